"""The one door through which a yard fetches what others name: an address is looked up once, judged, and then the very
address that was judged is connected to. Redirects are not followed, proxies of the environment not asked.

Container engines fetch images by themselves: there the registry's name is judged before the engine is told to.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpuyard.access.addresses import Address, Network, is_allowed, why_refused
from gpuyard.model.errors import YardError

if TYPE_CHECKING:
    import httpx

MAX_BYTES = 1 << 20
TIMEOUT_S = 10.0
Resolve = Callable[[str, int], Sequence[str]]


def look_up(host: str, port: int) -> Sequence[str]:
    """Every address of a name. Raises OSError."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


@dataclass(frozen=True, slots=True)
class Answer:
    """What was fetched."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Outgoing:
    """`allowed`: networks that the operator lets the yard fetch from, although they are not public."""

    allowed: tuple[Network, ...] = ()
    resolve: Resolve = look_up

    @classmethod
    def allowing(cls, networks: Sequence[str]) -> Outgoing:
        """Raises YardError `invalid_request` for what is no network."""
        try:
            return cls(tuple(ipaddress.ip_network(network) for network in networks))
        except ValueError as error:
            raise YardError("invalid_request", reason=f"--fetch-network: {error}") from None

    def judged(self, host: str, port: int) -> list[Address]:
        """The addresses of a host, all of which may be fetched from.

        Raises YardError `fetch_refused` where one of them may not, and `fetch_failed` where there are none.
        """
        try:
            found = [ipaddress.ip_address(address.partition("%")[0]) for address in self.resolve(host, port)]
        except (OSError, ValueError) as error:
            raise YardError("fetch_failed", host=host, reason=str(error)) from error
        for address in found:
            if why := why_refused(address, self.allowed):
                raise YardError("fetch_refused", host=host, address=address, because=why)
        if not found:
            raise YardError("fetch_failed", host=host, reason="it has no address")
        return found

    def fetch(
        self,
        url: str,
        *,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """GETs a URL, or POSTs a form to it. Clear text only to networks that the operator allowed.

        Raises YardError `fetch_refused`, `fetch_failed`.
        """
        import httpx

        try:
            asked = httpx.URL(url)
            port = asked.port or {"https": 443, "http": 80}[asked.scheme]
        except (httpx.InvalidURL, KeyError, TypeError):
            raise YardError("fetch_refused", host=url[:100], address="--", because="not_https") from None
        if not asked.host or asked.userinfo:
            raise YardError("fetch_refused", host=url[:100], address="--", because="not_https")
        addresses = self.judged(asked.host, port)
        if asked.scheme == "http" and not all(is_allowed(address, self.allowed) for address in addresses):
            raise YardError("fetch_refused", host=asked.host, address=addresses[0], because="not_https")
        told = {**(headers or {}), "Host": asked.netloc.decode()}
        failure: httpx.HTTPError | None = None
        with httpx.Client(
            trust_env=False, follow_redirects=False, timeout=TIMEOUT_S, verify=ssl.create_default_context()
        ) as client:
            for address in addresses:
                pinned = client.build_request(
                    "GET" if form is None else "POST",
                    asked.copy_with(host=str(address)),
                    headers=told,
                    data=form,
                    extensions={"sni_hostname": asked.host},  # whose certificate it has to show
                )
                try:
                    return _answer(client, pinned, asked.host)
                except httpx.ConnectError as error:
                    failure = error
                except httpx.HTTPError as error:
                    raise YardError("fetch_failed", host=asked.host, reason=str(error)) from error
        raise YardError("fetch_failed", host=asked.host, reason=str(failure)) from failure

    def check_image(self, reference: str) -> None:
        """Whether an engine may be told to fetch an image.

        Raises YardError `fetch_refused`. A name that has no address here passes: it is no way to one, and the engine
        may know a mirror for it.
        """
        host, _, port = reference.partition("/")[0].partition(":")
        try:
            self.judged(host, int(port) if port.isdecimal() else 443)
        except YardError as error:
            if error.code == "fetch_refused":
                raise


def _answer(client: httpx.Client, request: httpx.Request, host: str) -> Answer:
    """Raises YardError `fetch_failed` for a redirect and for more than is taken; httpx.HTTPError."""
    response = client.send(request, stream=True)
    try:
        if response.is_redirect:
            raise YardError("fetch_failed", host=host, reason="it redirects elsewhere, which is not followed")
        body = b""
        for piece in response.iter_bytes():
            body += piece
            if len(body) > MAX_BYTES:
                raise YardError("fetch_failed", host=host, reason=f"it sent more than {MAX_BYTES} bytes")
        return Answer(response.status_code, body)
    finally:
        response.close()
