"""The calls about access, limits and the audit log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from gpuyard.sdk.calls import Call, params_of

View = dict[str, Any]


def policies() -> Call[View]:
    return Call("GET", "/v1/policies", View)


def put_policy(name: str, document: str) -> Call[View]:
    return Call("PUT", f"/v1/policies/{quote(name, safe='')}", View, body={"document": document})


def delete_policy(name: str) -> Call[None]:
    return Call("DELETE", f"/v1/policies/{quote(name, safe='')}", type(None), repeatable=False)


def check_policy(document: str) -> Call[View]:
    return Call("POST", "/v1/access/check", View, body={"document": document})


def attachments() -> Call[View]:
    return Call("GET", "/v1/attachments", View)


def attach(policy: str, kind: str, subject: str, fence: bool) -> Call[View]:
    body: View = {"policy": policy, "kind": kind, "subject": subject, "fence": fence}
    return Call("POST", "/v1/attachments", View, body=body)


def detach(policy: str, kind: str, subject: str) -> Call[None]:
    params: dict[str, str | int | list[str]] = {"policy": policy, "kind": kind, "subject": subject}
    return Call("DELETE", "/v1/attachments", type(None), params, repeatable=False)


def explain(body: View) -> Call[View]:
    return Call("POST", "/v1/access/explain", View, body=body)


def dry_run(body: View) -> Call[View]:
    return Call("POST", "/v1/access/dry-run", View, body=body)


def organisations() -> Call[View]:
    return Call("GET", "/v1/organisations", View)


def add_organisation(name: str) -> Call[View]:
    return Call("POST", "/v1/organisations", View, body={"name": name}, repeatable=False)


def assign(tenant: str, organisation: str) -> Call[None]:
    path = f"/v1/tenants/{quote(tenant, safe='')}/organisation"
    return Call("PUT", path, type(None), body={"organisation": organisation})


def quotas() -> Call[View]:
    return Call("GET", "/v1/quotas", View)


def put_quota(kind: str, subject: str, what: str, soft: int | None, hard: int | None) -> Call[None]:
    body: View = {"kind": kind, "subject": subject, "what": what, "soft": soft, "hard": hard}
    return Call("PUT", "/v1/quotas", type(None), body=body)


def geography() -> Call[View]:
    return Call("GET", "/v1/geography", View)


def put_export_class(name: str, card_models: list[str], countries: list[str]) -> Call[None]:
    body: View = {"card_models": card_models, "countries": countries}
    return Call("PUT", f"/v1/export-classes/{quote(name, safe='')}", type(None), body=body)


def residency(tenant: str | None = None) -> Call[View]:
    return Call("GET", "/v1/residency", View, params_of(tenant=tenant))


def put_residency_class(name: str, regions: list[str]) -> Call[None]:
    path = f"/v1/residency/classes/{quote(name, safe='')}"
    return Call("PUT", path, type(None), body={"regions": regions})


def put_country(tenant: str, country: str, verifier: str, evidence_sha256: str, expires_at: str) -> Call[None]:
    body: View = {
        "country": country,
        "verifier": verifier,
        "evidence_sha256": evidence_sha256,
        "expires_at": expires_at,
    }
    return Call("PUT", f"/v1/tenants/{quote(tenant, safe='')}/country", type(None), body=body)


def put_networks(networks: Mapping[str, str | None]) -> Call[None]:
    return Call("PUT", "/v1/networks", type(None), body={"networks": dict(networks)})


def audit_checkpoint() -> Call[View]:
    return Call("GET", "/v1/audit/checkpoint", View)


def audit_proof(entry: int) -> Call[View]:
    return Call("GET", f"/v1/audit/entries/{entry}/proof", View)


def audit_consistency(of: int) -> Call[View]:
    return Call("GET", "/v1/audit/consistency", View, {"of": of})


def shred(tenant: str, user: str) -> Call[View]:
    return Call("POST", "/v1/audit/shred", View, body={"tenant": tenant, "user": user}, repeatable=False)
