"""Attestation over HTTP: a nonce, evidence, what is proven, and the operator's policy."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.responses import Response

from gpuyard.access.authority import Judgement
from gpuyard.access.questions import ask
from gpuyard.access.rules import Action
from gpuyard.api import schemas, views
from gpuyard.api.access import may_manage
from gpuyard.api.asking import Asking, Caller, facts_of
from gpuyard.api.inside import newest_leases
from gpuyard.api.rendering import answer
from gpuyard.control import attesting
from gpuyard.control.confidentiality import of_instance, of_replica
from gpuyard.model.errors import YardError
from gpuyard.model.leases import Lease
from gpuyard.model.times import to_text
from gpuyard.model.workloads import Workload
from gpuyard.store import attestations
from gpuyard.store.attestations import Attestation

if TYPE_CHECKING:
    from gpuyard.access.attestation.evidence import Evidence

router = APIRouter(tags=["attestation"])

VERB = "gpuyard:AttestInstance"
Base64 = Annotated[str, StringConstraints(min_length=4, max_length=400_000, pattern=r"^[A-Za-z0-9+/]+={0,2}$")]
Pem = Annotated[str, StringConstraints(max_length=100_000)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NonceRequest(_Strict):
    key: Pem = Field(description="a public key (PEM) whose private half was made inside the instance and stays there")
    replica: Annotated[int, Field(strict=True, ge=0, le=999)] = 0


class NonceView(BaseModel):
    nonce: str
    unit: str = Field(description="the start of the replica that evidence must be of")
    key_sha256: str = Field(description="of the key as DER")
    statement: str = Field(description="what is hashed: canonical JSON of nonce, tenant, instance, unit and key")
    report_data: str = Field(description="SHA-512 of the statement: the report data of AMD SEV-SNP and Intel TDX")
    card_nonce: str = Field(description="SHA-256 of the statement: the nonce that cards are asked with")
    expires_at: str


class EvidenceRequest(_Strict):
    kind: Literal["amd-sev-snp", "intel-tdx", "nvidia-gpu"]
    report: Base64 = Field(description="the report or quote, as the hardware gave it")
    certificates: Pem = Field("", description="AMD and NVIDIA: PEM, the one that signed the report first")
    revocation: Annotated[list[Base64], Field(max_length=16)] = Field(
        [], description="AMD and NVIDIA: revocation lists and OCSP answers"
    )
    collateral: dict[str, str | None] | None = Field(None, description="Intel: as its provisioning service gives it")


class SubmitRequest(_Strict):
    nonce: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    evidence: Annotated[list[EvidenceRequest], Field(min_length=1, max_length=17)]


class AttestationView(BaseModel):
    id: str
    unit: str
    key_sha256: str
    policy_sha256: str
    evidence_sha256: str
    processor: str
    cards: int
    claims: list[dict[str, str]]
    verified_at: str
    until: str
    ended_at: str | None
    ended_because: str | None


class ReplicaView(BaseModel):
    replica: int
    unit: str
    level: Literal["not_confidential", "processor", "processor_and_cards"]
    because: str
    until: str | None


class ShownView(BaseModel):
    workload_id: str
    confidentiality: schemas.ConfidentialityView
    replicas: list[ReplicaView]
    attestations: list[AttestationView] = Field(description="the newest ones, ended or not")


class PolicyRequest(_Strict):
    document: dict[str, object] = Field(description="what evidence is held against, by kind")


class PolicyView(BaseModel):
    document: dict[str, object]
    fingerprint: str


@router.post("/workloads/{workload}/attestation/nonce", status_code=201, responses={201: {"model": NonceView}})
async def give_nonce(caller: Caller, workload: str, body: NonceRequest, tenant: str | None = None) -> Response:
    """A nonce for the evidence of a running replica: for ten minutes, once."""

    def work() -> Response:
        found = caller.workload(Action.CONTROL, workload, tenant, VERB)
        nonce, bound = attesting.issue_nonce(caller.yard, found, _replica(caller, found, body.replica), body.key)
        view: views.View = {
            "nonce": nonce.nonce,
            "unit": nonce.unit,
            "key_sha256": nonce.key_sha256,
            "statement": bound.statement().decode(),
            "report_data": bound.report_data().hex(),
            "card_nonce": bound.card_nonce().hex(),
            "expires_at": to_text(nonce.issued_us + attesting.NONCE_LIFE_US),
        }
        return answer(view, 201)

    return await caller.write(work)


@router.post("/workloads/{workload}/attestation", status_code=201, responses={201: {"model": AttestationView}})
async def submit(caller: Caller, workload: str, body: SubmitRequest, tenant: str | None = None) -> Response:
    """Evidence for a nonce. All of it must hold; the nonce is spent whatever comes of it."""

    def work() -> Response:
        found = caller.workload(Action.CONTROL, workload, tenant, VERB)
        told = _note(caller, found)
        made = attesting.submit(caller.yard, found, body.nonce, _evidence(body), caller.identity.user, told)
        return answer(_view(made), 201)

    return await caller.write(work)


@router.get("/workloads/{workload}/attestation", responses={200: {"model": ShownView}})
async def show(
    caller: Caller, workload: str, tenant: str | None = None, limit: Annotated[int, Query(ge=1, le=100)] = 5
) -> Response:
    """What is proven of an instance now, and what was."""

    def work() -> Response:
        found = caller.workload(Action.READ, workload, tenant)
        held, now_us = newest_leases(caller, found), caller.yard.clock.now_us()
        with caller.yard.store.read() as c:
            attested, newest = attestations.open_ones(c, [found.id]), attestations.newest(c, found.id, limit)
        return answer(
            {
                "workload_id": found.id,
                "confidentiality": views.confidentiality_view(of_instance(held, attested, now_us), caller.language),
                "replicas": [_replica_view(lease, attested, now_us) for lease in held],
                "attestations": [_view(one) for one in newest],
            }
        )

    return await caller.read(work)


@router.get("/attestation/policy", responses={200: {"model": PolicyView}})
async def show_policy(caller: Caller) -> Response:
    """What evidence is held against here: whoever hands some in may know."""
    caller.must(Action.READ_FLEET, None)

    def work() -> Response:
        with caller.yard.store.read() as c:
            document = attesting.read_document(c)
            return answer({"document": document, "fingerprint": attesting.read_policies(c).fingerprint})

    return await caller.read(work)


@router.put("/attestation/policy", responses={200: {"model": PolicyView}})
async def put_policy(caller: Caller, body: PolicyRequest) -> Response:
    """Sets what evidence is held against. What was verified under another policy ends."""
    may_manage(caller)

    def work() -> Response:
        parsed = attesting.put_document(caller.yard, body.document, caller.identity.user)
        return answer({"document": body.document, "fingerprint": parsed.fingerprint})

    return await caller.write(work)


def _replica(caller: Asking, workload: Workload, replica: int) -> Lease:
    for lease in newest_leases(caller, workload):
        if lease.replica == replica:
            return lease
    raise YardError("invalid_request", reason="no_replica", replica=replica)


def _evidence(body: SubmitRequest) -> list[Evidence]:
    from gpuyard.access.attestation.evidence import Evidence, refused

    def raw(kind: str, text: str) -> bytes:
        try:
            return base64.b64decode(text, validate=True)
        except ValueError:
            raise refused(kind, "malformed", "base64") from None

    return [
        Evidence(
            one.kind,
            raw(one.kind, one.report),
            one.certificates,
            tuple(raw(one.kind, each) for each in one.revocation),
            "" if one.collateral is None else json.dumps(one.collateral),
        )
        for one in body.evidence
    ]


def _note(caller: Asking, workload: Workload) -> attesting.Told:
    """Writes each verdict to the audit log, beside the decision that evidence might be handed in."""

    def told(allowed: bool, because: str, fingerprint: str) -> None:
        now_us = caller.yard.clock.now_us()
        question = ask(
            caller.identity,
            Action.CONTROL,
            workload.tenant_id,
            caller.origin,
            now_us,
            verb="gpuyard:VerifyEvidence",
            about=workload.id,
            facts=facts_of(workload.spec),
        )
        judged = Judgement(allowed, because, (f"attestation-policy/{fingerprint[:16]}",))
        caller.yard.authority.note(question, judged, now_us)

    return told


def _view(one: Attestation) -> views.View:
    return {
        "id": one.id,
        "unit": one.unit,
        "key_sha256": one.key_sha256,
        "policy_sha256": one.policy_sha256,
        "evidence_sha256": one.evidence_sha256,
        "processor": one.processor,
        "cards": one.cards,
        "claims": json.loads(one.claims),
        "verified_at": to_text(one.verified_us),
        "until": to_text(one.until_us),
        "ended_at": None if one.ended_us is None else to_text(one.ended_us),
        "ended_because": one.ended_because,
    }


def _replica_view(lease: Lease, attested: list[Attestation], now_us: int) -> views.View:
    found = of_replica(lease, attested, now_us)
    until = None if found.until_us is None else to_text(found.until_us)
    return {
        "replica": lease.replica,
        "unit": lease.unit_name,
        "level": found.level.value,
        "because": found.because,
        "until": until,
    }
