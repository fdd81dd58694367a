"""Signing in: a proof of who somebody is becomes a token that lasts for hours."""

from __future__ import annotations

from dataclasses import replace

from gpuyard.access import passwords
from gpuyard.access.audit.entries import Entry
from gpuyard.access.tokens import digest, new_token
from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.model.names import new_id
from gpuyard.model.tenants import Identity, Role
from gpuyard.store import events, tenants, users

SESSION_US = 12 * 3_600_000_000
LOGIN = "gpuyard:Login"
NOBODY = "unknown"  # names that are no user's are not written down: people type passwords into the wrong field


def sign_in(yard: Yard, tenant: str, name: str, password: str, address: str | None) -> tuple[Identity, str]:
    """A session of a person by password: who, and the token.

    Raises YardError `login_refused`, the same and after the same work whatever was wrong.
    """
    with yard.store.read() as c:
        found_tenant = tenants.find(c, tenant)
        user = None if found_tenant is None else users.find(c, found_tenant.id, name)
    encoded = user.password if user is not None and user.kind == "person" else None
    right = passwords.matches(encoded, password)
    if user is None or encoded is None or not right:
        note_login(yard, user, None, address, "wrong_password" if user else "unknown_user")
        raise YardError("login_refused")
    if passwords.is_outdated(encoded):
        renewed = passwords.encode(password)
        with yard.store.write() as c:
            users.set_password(c, user.tenant_id, user.name, renewed)
        user = replace(user, password=renewed)
    return open_session(yard, user, address, "password")


def open_session(yard: Yard, user: users.User, address: str | None, how: str) -> tuple[Identity, str]:
    """A token of a user, for half a day; the decision is in the audit log with it.

    Raises YardError `login_refused` where the user was disabled meanwhile, or has another password.
    """
    now_us = yard.clock.now_us()
    token = new_token()
    who = Identity(new_id(users.SESSION, now_us), user.name, user.role, user.tenant_id, now_us + SESSION_US)
    with yard.authority.auditor.carried():
        note_login(yard, user, who.token_id, address, how)
        with yard.store.write() as c:
            known = users.find(c, user.tenant_id, user.name)
            if known is None or known.password != user.password:
                raise YardError("login_refused")
            tenants.insert_token(
                c, who.token_id, user.tenant_id, user.name, user.role, digest(token), now_us, who.expires_us
            )
            data = {"user": user.name, "role": user.role.value, "how": how}
            events.append(c, [Event("user.signed_in", who.token_id, now_us, user.tenant_id, user.name, data)])
    return who, token


def note_login(yard: Yard, user: users.User | None, token_id: str | None, address: str | None, because: str) -> None:
    """An attempt, for the audit log; `token_id` None for one that failed."""
    yard.authority.auditor.note(
        Entry(
            at_us=yard.clock.now_us(),
            tenant_id="" if user is None else user.tenant_id,
            user=NOBODY if user is None else user.name,
            role="--" if user is None else user.role.value,
            token_id=token_id or "--",
            action=LOGIN,
            resource="arn:aws:gpuyard:::yard",
            allowed=token_id is not None,
            because=because,
            personal={} if address is None else {"aws:SourceIp": address},
        )
    )


def set_password(yard: Yard, tenant_id: str, name: str, password: str, actor: str) -> None:
    """Sets a person's password and ends all sessions.

    Raises YardError `user_not_found`, `password_refused`.
    """
    passwords.check_new(password, name)
    encoded = passwords.encode(password)
    now_us = yard.clock.now_us()
    with yard.store.write() as c:
        user = users.find(c, tenant_id, name)
        if user is None or user.kind != "person":
            raise YardError("user_not_found", user=name[:100])
        users.set_password(c, tenant_id, name, encoded)
        users.end_sessions(c, tenant_id, name, now_us)
        events.append(c, [Event("user.password_set", name, now_us, tenant_id, actor, {})])
    yard.identities.clear()


def change_password(yard: Yard, who: Identity, old: str, new: str, address: str | None) -> None:
    """One's own password; every session ends, this one too.

    Raises YardError `login_refused` where `old` is not it, and `password_refused`.
    """
    passwords.check_new(new, who.user)
    with yard.store.read() as c:
        user = users.find(c, who.tenant_id, who.user)
    if not passwords.matches(user.password if user is not None else None, old):
        note_login(yard, user, None, address, "wrong_password")
        raise YardError("login_refused")
    set_password(yard, who.tenant_id, who.user, new, who.user)


def new_user(yard: Yard, tenant_id: str, name: str, role: Role, kind: str, actor: str) -> users.User:
    """Raises YardError `name_taken`."""
    now_us = yard.clock.now_us()
    user = users.User(tenant_id, name, role, kind, now_us)
    with yard.store.write() as c:
        users.insert(c, user)
        data = {"role": role.value, "kind": kind}
        events.append(c, [Event("user.added", name, now_us, tenant_id, actor, data)])
    return user


def disable(yard: Yard, tenant_id: str, name: str, actor: str) -> None:
    """Ends a user with every token and access key.

    Raises YardError `user_not_found`.
    """
    now_us = yard.clock.now_us()
    with yard.store.write() as c:
        if users.find(c, tenant_id, name) is None:
            raise YardError("user_not_found", user=name[:100])
        users.disable(c, tenant_id, name, now_us)
        events.append(c, [Event("user.disabled", name, now_us, tenant_id, actor, {})])
    yard.identities.clear()
    yard.access_keys.clear()
