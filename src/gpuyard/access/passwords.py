"""Passwords: what may be one, and argon2id over it (RFC 9106's parameters for little memory, which are 64 MiB)."""

from __future__ import annotations

import secrets
import unicodedata
from functools import cache
from typing import TYPE_CHECKING

from gpuyard.model.errors import YardError

if TYPE_CHECKING:
    from argon2 import PasswordHasher

MIN_LENGTH = 12
MAX_LENGTH = 256
_DIFFERENT = 5  # letters that a password has at least


def check_new(password: str, user: str) -> None:
    """Raises YardError `password_refused` for one that is short, of few letters, or says the user's name."""
    plain = _normal(password)
    name = _normal(user).casefold()
    if not MIN_LENGTH <= len(plain) <= MAX_LENGTH:
        raise YardError("password_refused", because="password_length", least=MIN_LENGTH, most=MAX_LENGTH)
    if len(set(plain)) < _DIFFERENT:
        raise YardError("password_refused", because="password_plain", least=MIN_LENGTH, most=MAX_LENGTH)
    if len(name) > 2 and name in plain.casefold():
        raise YardError("password_refused", because="password_name", least=MIN_LENGTH, most=MAX_LENGTH)


def encode(password: str) -> str:
    """What is stored. Takes tens of milliseconds of a core on purpose."""
    return _hasher().hash(_normal(password))


def matches(encoded: str | None, password: str) -> bool:
    """Whether it is the password. The same work where there is none to compare with, so that nobody learns that."""
    from argon2.exceptions import InvalidHashError, VerificationError

    against = encoded or _nobodys()
    try:
        return _hasher().verify(against, _normal(password)[: 4 * MAX_LENGTH]) and encoded is not None
    except (VerificationError, InvalidHashError):
        return False


def is_outdated(encoded: str) -> bool:
    """Whether it was made with other parameters than today's."""
    return _hasher().check_needs_rehash(encoded)


@cache
def _hasher() -> PasswordHasher:
    """Made when it is first wanted: most servers never see a password."""
    from argon2 import PasswordHasher

    return PasswordHasher()


@cache
def _nobodys() -> str:
    return _hasher().hash(secrets.token_urlsafe(32))


def warm_up() -> None:
    """Makes what `matches` compares with where there is no password: else the first such answer took twice as long."""
    _nobodys()


def _normal(password: str) -> str:
    """One form for what keyboards may enter in several."""
    return unicodedata.normalize("NFKC", password)
