"""How the process of a server is set up: its heap, its garbage, its log."""

from __future__ import annotations

import ctypes
import gc
import logging
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path

from pythonjsonlogger.json import JsonFormatter


def share_one_heap() -> None:
    """glibc gives threads heaps of their own, and what is freed in one is of no use to another. The yard's threads wait
    for the disk and never allocate in step: one heap for all is smaller, and no slower."""
    m_arena_max = -8  # glibc's malloc.h
    with suppress(OSError, AttributeError):  # another C library: it has its own ways
        ctypes.CDLL(None).mallopt(m_arena_max, 1)


def log_to(path: Path) -> None:
    """JSON lines in a file that rotates; a full disk loses lines and stops nothing. Never the locals of a traceback:
    they hold tokens and tenants' secrets."""
    logging.raiseExceptions = False
    handler = RotatingFileHandler(path, maxBytes=10 << 20, backupCount=3, delay=True)
    names = {"levelname": "level", "name": "logger", "message": "event"}
    handler.setFormatter(JsonFormatter("%(levelname)s %(name)s %(message)s", rename_fields=names, timestamp=True))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    for chatty in ("uvicorn", "httpx", "httpcore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def leave_imports_alone() -> None:
    """What was imported stays: looking through it for garbage would hold everybody up for 0.1 s."""
    gc.collect()
    gc.freeze()
