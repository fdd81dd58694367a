"""Files of evidence as a user has them: what they name is read from beside them, whatever form the vendor gave it."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attested_authorities import pem, root
from gpuyard.cli.evidence_files import read_evidence, read_policy
from gpuyard.model.errors import YardError

AUTHORITY = root("Root")


def test_what_a_file_of_evidence_names_is_read_from_beside_it(tmp_path: Path) -> None:
    (tmp_path / "report.bin").write_bytes(b"\x01\x02")
    (tmp_path / "one.der").write_bytes(AUTHORITY.certificate.public_bytes(Encoding.DER))
    (tmp_path / "two.pem").write_text(pem(AUTHORITY.certificate))
    (tmp_path / "list.crl").write_bytes(AUTHORITY.crl())
    (tmp_path / "collateral.json").write_text('{"tcb_info": "x"}')
    piece = {
        "kind": "amd-sev-snp",
        "report_file": "report.bin",
        "certificate_files": ["one.der", "two.pem"],
        "revocation_files": ["list.crl"],
        "collateral_file": "collateral.json",
    }
    (tmp_path / "evidence.json").write_text(json.dumps({"nonce": "ab", "evidence": [piece]}))
    nonce, (found,) = read_evidence(tmp_path / "evidence.json")
    assert (nonce, found["report"], found["collateral"]) == ("ab", "AQI=", {"tcb_info": "x"})
    assert x509.load_pem_x509_certificates(found["certificates"].encode()) == [AUTHORITY.certificate] * 2
    assert base64.b64decode(found["revocation"][0]) == (tmp_path / "list.crl").read_bytes()
    assert set(found) == {"kind", "report", "certificates", "revocation", "collateral"}


def test_the_roots_of_a_policy_may_be_files(tmp_path: Path) -> None:
    (tmp_path / "ark.der").write_bytes(AUTHORITY.certificate.public_bytes(Encoding.DER))
    (tmp_path / "policy.toml").write_text('max_age_s = 60\n[amd-sev-snp]\nroot_files = ["ark.der"]\nsmt = false\n')
    found = read_policy(tmp_path / "policy.toml")
    assert found["amd-sev-snp"]["smt"] is False
    assert x509.load_pem_x509_certificate(found["amd-sev-snp"]["roots"][0].encode()) == AUTHORITY.certificate
    assert "root_files" not in found["amd-sev-snp"]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"nonce": "ab"}', '{"nonce": 1, "evidence": []}', '{"nonce": "a", "evidence": [1]}',
     '{"nonce": "a", "evidence": [], "more": 1}', '{"nonce": "a", "evidence": [{"report_file": 1}]}',
     '{"nonce": "a", "evidence": [{"report_file": "gone"}]}', '{"nonce": "a", "evidence": [{"report_file": "."}]}',
     '{"nonce": "a", "evidence": [{"certificate_files": "one"}]}', "[" * 100_000],
)  # fmt: skip
def test_a_file_that_is_no_evidence_is_refused_in_words(tmp_path: Path, text: str) -> None:
    (tmp_path / "evidence.json").write_text(text)
    with pytest.raises(YardError) as refused:
        read_evidence(tmp_path / "evidence.json")
    assert refused.value.code == "evidence_unreadable"
    with pytest.raises(YardError):
        read_evidence(tmp_path / "none.json")


@pytest.mark.parametrize("text", ["=", "a = ", '[x]\nroot_files = "one"', '[x]\nroot_files = ["gone"]'])
def test_a_file_that_is_no_policy_is_refused_in_words(tmp_path: Path, text: str) -> None:
    (tmp_path / "policy.toml").write_text(text)
    with pytest.raises(YardError) as refused:
        read_policy(tmp_path / "policy.toml")
    assert refused.value.code == "evidence_unreadable"
