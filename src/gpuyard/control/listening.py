"""Where a yard listens: the socket, the address that it tells, and the names that its certificate is for."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from contextlib import suppress

from gpuyard.model.errors import YardError


def listen(host: str, port: int, *, guarded: bool) -> socket.socket:
    """The listening socket, taken before anything else so that a port in use changes nothing. `guarded`: it will speak
    TLS, or the operator said that something in front of it does.

    Raises YardError `not_loopback`, `port_in_use`, and `invalid_request` for what is no address.
    """
    if not guarded and not _address(host).is_loopback:
        raise YardError("not_loopback", host=host)
    listener = socket.socket(socket.AF_INET6 if _address(host).version == 6 else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise YardError("port_in_use", host=host, port=port) from error
    listener.listen(128)
    return listener


def parse_address(text: str) -> tuple[str, int]:
    """Host and port from `127.0.0.1:8471` or `[::]:8471`.

    Raises YardError `invalid_request`.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise YardError("invalid_request", reason=f"'{text[:60]}' is not HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def told_address(listener: socket.socket, names: Sequence[str], *, secure: bool) -> str:
    """The URL that others reach it by: of a yard that listens everywhere, by its first name."""
    host, port = listener.getsockname()[:2]
    if _address(host).is_unspecified:
        host = names[0] if names else socket.gethostname()
    scheme = "https" if secure else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def certified_names(host: str, names: Sequence[str]) -> tuple[str, ...]:
    """What the certificate is for: what the operator named, this machine's own names, and loopback."""
    found = [*names]
    if not _address(host).is_unspecified:
        found.append(host)
    else:
        machine = socket.gethostname()
        found.append(machine)
        with suppress(OSError):
            found += [str(told[4][0]) for told in socket.getaddrinfo(machine, None) if "%" not in str(told[4][0])]
    return tuple(dict.fromkeys([*found, "localhost", "127.0.0.1", "::1"]))


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise YardError("invalid_request", reason=f"--host '{host[:60]}' is not an IP address") from None
