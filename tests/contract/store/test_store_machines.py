"""Machines, invitations and certificates, on every database."""

from __future__ import annotations

from dataclasses import replace

from gpuyard.model.machines import Invitation, Machine, MachineCertificate, MachineState
from gpuyard.store import machines
from gpuyard.store.database import Store

OPEN = Invitation("mi-1", "digest", "rack2", 1, "admin", 1000)
JOINED = Machine("mc-1", "rack2", MachineState.JOINED, 5, "admin")
FIRST = MachineCertificate("aa", "mc-1", "mi-1", "key", 5, 5000)
SECOND = MachineCertificate("bb", "mc-1", None, "other", 6, 6000)


def test_an_invitation_is_used_once_and_not_after_it_was_withdrawn(store: Store) -> None:
    with store.write() as c:
        machines.add_invitation(c, OPEN, 0)
        machines.add_invitation(c, replace(OPEN, id="mi-2", digest="other", name=None), 0)
        assert machines.invitation(c, "digest") == OPEN
        assert machines.bind_invitation(c, "mi-1", "key", "mc-1", 7)
        assert not machines.bind_invitation(c, "mi-1", "key", "mc-1", 8)
        assert not machines.withdraw_invitation(c, "mi-1", 9)
        assert machines.withdraw_invitation(c, "mi-2", 9)
        assert not machines.withdraw_invitation(c, "mi-2", 9)
        used = replace(OPEN, used_us=7, key_sha256="key", machine_id="mc-1")
        assert machines.invitation(c, "digest") == used
        assert machines.invitations(c) == [replace(OPEN, id="mi-2", digest="other", name=None, withdrawn_us=9), used]
        machines.add_invitation(c, replace(OPEN, id="mi-3", digest="third", expires_us=3000), 2000)
        assert [one.id for one in machines.invitations(c)] == ["mi-3"]


def test_a_machine_comes_back_as_it_was_and_tells_only_while_it_counts(store: Store) -> None:
    with store.write() as c:
        machines.put(c, JOINED)
        assert machines.find(c, "rack2") == machines.find(c, "mc-1") == JOINED
        assert machines.tell(c, "mc-1", {"heartbeat_us": 9, "clock_ahead_us": -3})
        assert machines.listing(c) == [replace(JOINED, heartbeat_us=9, clock_ahead_us=-3)]
        machines.put(c, replace(JOINED, state=MachineState.REVOKED, revoked_us=10))
        assert not machines.tell(c, "mc-1", {"heartbeat_us": 11})
        assert machines.find(c, "rack2") == replace(JOINED, state=MachineState.REVOKED, revoked_us=10)


def test_the_first_use_of_a_certificate_ends_the_others_and_none_comes_back(store: Store) -> None:
    with store.write() as c:
        machines.put(c, JOINED)
        for one in (FIRST, SECOND, replace(FIRST, sha256="cc", machine_id="mc-2")):
            machines.add_certificate(c, one, 0)
        assert machines.use_certificate(c, FIRST, 7)
        assert not machines.use_certificate(c, SECOND, 8)
        assert machines.certificates_of(c, "mc-1") == [replace(SECOND, superseded_us=7), replace(FIRST, used_us=7)]
        assert machines.certificate(c, "cc") == replace(FIRST, sha256="cc", machine_id="mc-2")
        machines.revoke_certificates(c, "mc-2", 9)
        assert not machines.use_certificate(c, replace(FIRST, sha256="cc", machine_id="mc-2"), 10)
        machines.add_certificate(c, replace(SECOND, sha256="dd", until_us=9000), 5500)
        assert [one.sha256 for one in machines.certificates_of(c, "mc-1")] == ["bb", "dd"]
        assert machines.remove(c, "mc-1")
        assert not machines.remove(c, "mc-1")
        assert (machines.certificates_of(c, "mc-1"), machines.certificate(c, "bb")) == ([], None)
