"""Intel TDX quotes, verified by `dcap-qvl` against collateral that came along: TCB data, the quoting enclave's identity
and revocation lists, all signed below the root that the policy names and held against the time that is given."""

from __future__ import annotations

import hashlib
import json
import struct
from datetime import UTC, datetime
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gpuyard.access.attestation.evidence import TDX, Claims, Evidence, refused
from gpuyard.access.attestation.policy import TdxPolicy
from gpuyard.model.errors import YardError

_TEE_TDX: Final = 0x81
_QE_REPORT: Final = 6  # the quote is vouched for by a report of the quoting enclave
# What the library's sentences are about, by a word of theirs; the first that fits.
_FLAWS: Final = (
    ("debug", "debug"),
    ("expired", "collateral_stale"),
    ("in the future", "collateral_stale"),
    ("certificate chain", "chain_refused"),
    ("root ca crl", "chain_refused"),
    ("issuer", "chain_refused"),
    ("advisor", "advisory"),
    ("tcb status", "tcb_status"),
    ("below minimum", "tcb_old"),
    ("signature", "signature"),
    ("hash mismatch", "signature"),
    ("decode", "malformed"),
    ("unsupported", "malformed"),
    ("unknown qe", "malformed"),
)


def verify(evidence: Evidence, policy: TdxPolicy, report_data: bytes, now: datetime) -> Claims:
    """What the quote says, once everything about it holds.

    Raises YardError `evidence_refused`, and `extra_missing` where the library is not installed.
    """
    _check_layout(evidence.report)
    claims = _verified(evidence, policy, int(now.timestamp()))
    report = _report(claims)
    if claims["tee_type"] != _TEE_TDX:
        raise refused(TDX, "malformed", "not a TDX quote")
    if bytes.fromhex(report["report_data"]) != report_data:
        raise refused(TDX, "other_binding")
    if report["mr_td"] not in policy.measurements:
        raise refused(TDX, "measurement", report["mr_td"])
    for number, allowed in policy.registers.items():
        if report[f"rt_mr{number}"] not in allowed:
            raise refused(TDX, "measurement", f"rtmr{number} {report[f'rt_mr{number}']}")
    facts = {
        "measurement": report["mr_td"],
        "tcb_status": claims["tcb"]["status"],
        "advisories": ", ".join(claims["tcb"]["advisory_ids"]) or "--",
        "evaluation": str(claims["tcb"]["eval_data_number"]),
    }
    until = datetime.fromtimestamp(claims["earliest_expiration_date"], UTC)
    device = hashlib.sha256(bytes(claims["platform"]["pck"]["ppid"])).hexdigest()
    return Claims(TDX, device, until, facts)


def _check_layout(quote: bytes) -> None:
    """What the library reads past, because no signature covers it: nothing in a quote may be chosen freely."""
    try:
        (version,) = struct.unpack_from("<H", quote)
        at = 48 + 584 if version == 4 else 54 + struct.unpack_from("<I", quote, 50)[0]
        (size,) = struct.unpack_from("<I", quote, at)
        (certified,) = struct.unpack_from("<H", quote, at + 4 + 128)
    except struct.error:
        raise refused(TDX, "malformed", f"{len(quote)} bytes") from None
    if version not in (4, 5) or size != len(quote) - at - 4 or certified != _QE_REPORT:
        raise refused(TDX, "malformed", f"version {version}")


def _verified(evidence: Evidence, policy: TdxPolicy, now_s: int) -> dict[str, Any]:
    library = _library()
    try:
        collateral = library.QuoteCollateralV3.from_json(evidence.collateral)
    except ValueError:
        raise refused(TDX, "malformed", "collateral") from None
    trouble = "--"
    for root in policy.roots:
        verifier = library.QuoteVerifier(x509.load_pem_x509_certificate(root.encode()).public_bytes(Encoding.DER))
        try:
            claims = verifier.verify_with_policy(evidence.report, collateral, now_s, _asked(library, policy, now_s))
        except ValueError as error:
            trouble = str(error)
            continue
        return json.loads(claims.to_json())
    told = trouble.lower()
    raise refused(TDX, next((flaw for word, flaw in _FLAWS if word in told), "not_verified"), trouble)


def _library() -> Any:
    try:
        import dcap_qvl  # an extra  # pyright: ignore[reportMissingImports, reportMissingTypeStubs]
    except ImportError:
        command = 'pip install "gpuyard[attestation]"'
        raise YardError("extra_missing", extra="attestation", command=command) from None
    return dcap_qvl  # pyright: ignore[reportUnknownVariableType]


def _asked(library: Any, policy: TdxPolicy, now_s: int) -> Any:
    asked = library.QuotePolicy.strict(now_s)
    for status in sorted(policy.statuses):
        asked = asked.allow_status(status)
    asked = asked.allow_smt(policy.smt).allow_dynamic_platform(policy.dynamic_platform)
    asked = asked.allow_cached_keys(policy.cached_keys)
    return asked.reject_advisories(sorted(policy.rejected_advisories)).min_tcb_eval_data_number(
        policy.minimum_evaluation
    )


def _report(claims: dict[str, Any]) -> dict[str, Any]:
    """The report's fields, whichever version it has: a newer one holds an older one as its base."""
    (found,) = claims["report"].values()
    return {**found.get("base", {}), **found}
