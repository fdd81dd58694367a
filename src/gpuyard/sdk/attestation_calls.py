"""The calls about evidence of confidential machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from gpuyard.sdk.access_calls import View
from gpuyard.sdk.calls import Call, params_of


def _path(workload: str, rest: str = "") -> str:
    return f"/v1/workloads/{quote(workload, safe='')}/attestation{rest}"


def attestation(workload: str, tenant: str | None = None) -> Call[View]:
    return Call("GET", _path(workload), View, params=params_of(tenant=tenant))


def attestation_nonce(workload: str, key_pem: str, replica: int = 0, tenant: str | None = None) -> Call[View]:
    body: View = {"key": key_pem, "replica": replica}
    return Call("POST", _path(workload, "/nonce"), View, params=params_of(tenant=tenant), body=body, repeatable=False)


def submit_evidence(
    workload: str, nonce: str, evidence: Sequence[Mapping[str, object]], tenant: str | None = None
) -> Call[View]:
    body: View = {"nonce": nonce, "evidence": list(evidence)}
    return Call("POST", _path(workload), View, params=params_of(tenant=tenant), body=body, repeatable=False)


def attestation_policy() -> Call[View]:
    return Call("GET", "/v1/attestation/policy", View)


def put_attestation_policy(document: Mapping[str, object]) -> Call[View]:
    return Call("PUT", "/v1/attestation/policy", View, body={"document": dict(document)})
