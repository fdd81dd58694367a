"""Takes evidence: a nonce for one start of one instance and one key, used once; the evidence held against the
operator's policy; and what it proves, until that ends."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection

from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.model.leases import Lease
from gpuyard.model.names import new_id
from gpuyard.model.workloads import Workload
from gpuyard.store import attestations, events, leases, meta
from gpuyard.store.attestations import Attestation, Nonce

if TYPE_CHECKING:
    from gpuyard.access.attestation.binding import Binding
    from gpuyard.access.attestation.evidence import Evidence
    from gpuyard.access.attestation.judging import Proven
    from gpuyard.access.attestation.policy import Policies

NONCE_LIFE_US: Final = 600_000_000
_POLICY: Final = "attestation_policy"
Told = Callable[[bool, str, str], None]  # allowed, because, the policy's fingerprint


def issue_nonce(yard: Yard, workload: Workload, lease: Lease, key_pem: str) -> tuple[Nonce, Binding]:
    """A nonce for the unit that runs now, and what evidence must be about.

    Raises YardError `not_running` or `attestation_key_invalid`.
    """
    if lease.state != "active":
        raise YardError("not_running", workload=workload.name, state=workload.state.value)
    now_us = yard.clock.now_us()
    made = Nonce(secrets.token_hex(32), workload.tenant_id, workload.id, lease.unit_name, _key_sha256(key_pem), now_us)
    with yard.store.write(tells=False) as c:
        attestations.add_nonce(c, made, now_us - NONCE_LIFE_US)
    return made, binding_of(made)


def binding_of(nonce: Nonce) -> Binding:
    """What evidence for this nonce must be about."""
    from gpuyard.access.attestation.binding import Binding

    return Binding(nonce.nonce, nonce.tenant_id, nonce.workload_id, nonce.unit, nonce.key_sha256)


def submit(
    yard: Yard, workload: Workload, wanted: str, found: Sequence[Evidence], actor: str, told: Told
) -> Attestation:
    """Verifies evidence and writes down what it proves. The nonce is spent whatever comes of it. `told` hears the
    verdict; that something is taken it hears in the transaction that takes it.

    Raises YardError `nonce_refused`, `evidence_refused`, `attestation_off`, `extra_missing`.
    """
    from gpuyard.access.attestation.judging import judge

    fingerprint = "--"
    try:
        nonce = _spend(yard, workload, wanted)
        with yard.store.read() as c:
            policies = read_policies(c)
        fingerprint = policies.fingerprint or "--"
        proven = judge(found, policies, binding_of(nonce), yard.clock.now_us())
        return _write_down(yard, workload, nonce, found, proven, fingerprint, actor, told)
    except YardError as error:
        told(False, str(error.params.get("flaw") or error.params.get("because") or error.code), fingerprint)
        raise


def _spend(yard: Yard, workload: Workload, wanted: str) -> Nonce:
    """Uses a nonce up. One of another instance is as good as none."""
    now_us = yard.clock.now_us()
    with yard.store.write(tells=False) as c:
        nonce = attestations.nonce(c, wanted)
        if nonce is None or nonce.workload_id != workload.id or now_us - nonce.issued_us > NONCE_LIFE_US:
            raise _nonce_refused("nonce_unknown")
        if not attestations.use_nonce(c, wanted, now_us):
            raise _nonce_refused("nonce_used")
    return nonce


def _write_down(
    yard: Yard,
    workload: Workload,
    nonce: Nonce,
    found: Sequence[Evidence],
    proven: Proven,
    fingerprint: str,
    actor: str,
    told: Told,
) -> Attestation:
    now_us = yard.clock.now_us()
    claims = [{"kind": one.kind, "device": one.device, **one.facts} for one in (proven.processor, *proven.cards)]
    made = Attestation(
        id=new_id("at", now_us),
        tenant_id=workload.tenant_id,
        workload_id=workload.id,
        unit=nonce.unit,
        key_sha256=nonce.key_sha256,
        policy_sha256=fingerprint,
        evidence_sha256=hashlib.sha256(b"".join(one.report for one in found)).hexdigest(),
        processor=proven.processor.kind,
        cards=len(proven.cards),
        claims=json.dumps(claims),
        verified_us=now_us,
        until_us=proven.until_us,
    )
    with yard.store.write() as c:
        if not _runs(c, workload.id, nonce.unit):
            raise _nonce_refused("nonce_other_unit")
        if read_policies(c).fingerprint != fingerprint:
            raise _nonce_refused("nonce_policy")
        attestations.add(c, made)
        data = {"name": workload.name, "unit": made.unit, "processor": made.processor, "cards": made.cards}
        events.append(c, [Event("instance.attested", workload.id, now_us, workload.tenant_id, actor, data)])
        told(True, "verified", fingerprint)
    return made


def _runs(c: Connection, workload_id: str, unit: str) -> bool:
    return any(lease.unit_name == unit and lease.state == "active" for lease in leases.of_workload(c, workload_id))


def end_what_is_over(yard: Yard, now_us: int) -> None:
    """Ends attestations that are out of date, or of a unit that runs no more: what lists show must not outlive them."""
    with yard.store.read() as c:
        over = [(one, because) for one in attestations.open_ones(c) if (because := _over(c, one, now_us))]
    for one, because in over:
        with yard.store.write() as c:
            if attestations.end(c, one.id, because, now_us):
                data = {"unit": one.unit, "reason": because}
                events.append(c, [Event("instance.unattested", one.workload_id, now_us, one.tenant_id, data=data)])


def _over(c: Connection, one: Attestation, now_us: int) -> str | None:
    if one.until_us <= now_us:
        return "evidence_old"
    return None if _runs(c, one.workload_id, one.unit) else "not_running"


def read_document(c: Connection) -> Mapping[str, object]:
    """The operator's policy as it was set; empty where none is."""
    return json.loads(meta.get(c, _POLICY) or "{}")


def read_policies(c: Connection) -> Policies:
    """The operator's policy as it counts."""
    from gpuyard.access.attestation.policy import parse

    return parse(read_document(c))


def put_document(yard: Yard, document: Mapping[str, object], actor: str) -> Policies:
    """Sets the policy. What was verified under another one ends: it must be shown anew.

    Raises YardError `attestation_policy_invalid`.
    """
    from gpuyard.access.attestation.policy import parse

    parsed = parse(document)
    now_us = yard.clock.now_us()
    with yard.store.write() as c:
        ending = attestations.open_ones(c) if read_document(c) != document else []
        meta.put(c, _POLICY, json.dumps(document))
        told = [Event("attestation.policy_set", "attestation", now_us, None, actor, {"policy": parsed.fingerprint})]
        for one in ending:
            attestations.end(c, one.id, "policy_changed", now_us)
            data = {"unit": one.unit, "reason": "policy_changed"}
            told.append(Event("instance.unattested", one.workload_id, now_us, one.tenant_id, actor, data))
        events.append(c, told)
    return parsed


def _nonce_refused(because: str) -> YardError:
    return YardError("nonce_refused", because=because, seconds=NONCE_LIFE_US // 1_000_000)


def _key_sha256(pem: str) -> str:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_pem_public_key(pem.encode())
        der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise YardError("attestation_key_invalid") from None
    return hashlib.sha256(der).hexdigest()
