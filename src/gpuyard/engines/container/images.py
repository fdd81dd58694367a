"""Images: which may be used, and fetching those that are not there yet."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import quote

from gpuyard.engines.container.api import EngineApi, EngineRefused
from gpuyard.model.errors import YardError
from gpuyard.model.units import MIB
from gpuyard.texts import error_text

MayFetch = Callable[[str], None]  # raises YardError for an image whose registry the yard may not ask


def is_present(api: EngineApi, image: str) -> bool:
    """Whether the engine has it. Raises EngineGone, or EngineRefused for what can be no image."""
    try:
        api.get(f"/images/{quote(image, safe='/:@')}/json")
    except EngineRefused as error:
        if error.status == 404:
            return False
        raise
    return True


def library_path(api: EngineApi, image: str) -> str:
    """Where programs of the image look for libraries first, as its variables say; empty where they say nothing."""
    config = api.get(f"/images/{quote(image, safe='/:@')}/json").get("Config") or {}
    found = (line.partition("=") for line in config.get("Env") or [])
    return next((value for name, _, value in found if name == "LD_LIBRARY_PATH"), "")


def is_full_reference(image: str) -> bool:
    """Whether it names its registry. A short name means a different image to every engine, and `localhost/` is none."""
    host, slash, _ = image.partition("/")
    return bool(slash) and host != "localhost" and ("." in host or ":" in host)


class Puller:
    """Fetches images; two units that need the same one fetch it once."""

    def __init__(self, api: EngineApi, may_fetch: MayFetch) -> None:
        self._api = api
        self._may_fetch = may_fetch
        self._lock = threading.Lock()
        self._fetching: dict[str, threading.Lock] = {}

    def ensure(self, image: str, say: Callable[[str], None]) -> None:
        """Returns once the engine has the image. Raises EngineRefused with what the registry said, or EngineGone."""
        if is_present(self._api, image):
            return
        say(f"{image}: waiting")
        with self._alone(image):
            if not is_present(self._api, image):
                self._pull(image, say)

    def _pull(self, image: str, say: Callable[[str], None]) -> None:
        try:
            self._may_fetch(image)
        except YardError as error:
            raise EngineRefused(403, error_text(error.code, "en", error.params)) from error
        last = image.rsplit("/", 1)[-1]
        reference = image if "@" in last or ":" in last else f"{image}:latest"
        say(f"{image}: started")
        layers: dict[str, tuple[int, int]] = {}
        for line in self._api.lines("/images/create", fromImage=reference):
            if line.get("error"):
                raise EngineRefused(500, str(line["error"])[:500])
            progress = line.get("progressDetail") or {}
            if progress.get("total"):
                layers[str(line.get("id"))] = (int(progress.get("current") or 0), int(progress["total"]))
                current, total = (sum(values) for values in zip(*layers.values(), strict=True))
                say(f"{image}: {current // MIB} of {total // MIB} MiB")
            elif line.get("status"):
                say(f"{image}: {str(line['status'])[:120]}")
        if not is_present(self._api, image):
            raise EngineRefused(500, f"the engine could not fetch {image}")

    @contextmanager
    def _alone(self, image: str) -> Iterator[None]:
        with self._lock:
            mine = self._fetching.setdefault(image, threading.Lock())
        with mine:
            yield
