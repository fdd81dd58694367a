"""What the operator asks of evidence. Everything that is not understood, and every list that would let anything pass,
is refused when the policy is set."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import rfc8785

from gpuyard.access.attestation.evidence import GPU, KINDS, SNP, TDX
from gpuyard.model.errors import YardError

TCB_PARTS: Final = ("fmc", "boot_loader", "tee", "snp", "microcode")
TDX_STATUSES: Final = (
    "UpToDate", "SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded", "OutOfDate",
    "OutOfDateConfigurationNeeded",
)  # fmt: skip
MAX_AGE_S: Final = 86_400
_HASH = {32: re.compile(r"[0-9a-f]{64}"), 48: re.compile(r"[0-9a-f]{96}")}
Hashes = frozenset[str]


@dataclass(frozen=True, slots=True)
class SnpPolicy:
    """AMD SEV-SNP. An empty set of `host_data` or `id_keys` asks for none."""

    roots: tuple[str, ...]
    measurements: Hashes
    minimum_tcb: Mapping[str, int]
    host_data: Hashes = frozenset()
    id_keys: Hashes = frozenset()
    max_vmpl: int = 0
    smt: bool = True
    migration: bool = False
    revocation: bool = True


@dataclass(frozen=True, slots=True)
class TdxPolicy:
    """Intel TDX. `registers` are the run-time measurement registers that count, by number."""

    roots: tuple[str, ...]
    measurements: Hashes  # MRTD
    registers: Mapping[int, Hashes]
    statuses: frozenset[str]
    rejected_advisories: frozenset[str] = frozenset()
    minimum_evaluation: int = 0  # of Intel's TCB data: a number that grows with each recovery
    smt: bool = True
    dynamic_platform: bool = False  # one whose packages may be exchanged without new keys
    cached_keys: bool = False


@dataclass(frozen=True, slots=True)
class GpuPolicy:
    """NVIDIA cards in confidential mode. `measurements` by index, as NVIDIA's reference manifests list them."""

    roots: tuple[str, ...]
    measurements: Mapping[int, Hashes]
    drivers: frozenset[str]
    vbioses: frozenset[str]
    revocation: bool = True


@dataclass(frozen=True, slots=True)
class Policies:
    """One for each kind of evidence that is taken. `fingerprint` changes with every change of any."""

    snp: SnpPolicy | None = None
    tdx: TdxPolicy | None = None
    gpu: GpuPolicy | None = None
    max_age_s: int = MAX_AGE_S
    fingerprint: str = field(default="", compare=False)


def parse(document: Mapping[str, object]) -> Policies:
    """Raises YardError `attestation_policy_invalid` with the place and what is expected there."""
    top = _Table("", document)
    top.only("max_age_s", *KINDS)
    age = top.integer("max_age_s", MAX_AGE_S, 60, 30 * 86_400)
    tables = {kind: top.table(kind) for kind in KINDS}
    snp, tdx, gpu = tables[SNP], tables[TDX], tables[GPU]
    return Policies(
        snp=None if snp is None else _snp(snp),
        tdx=None if tdx is None else _tdx(tdx),
        gpu=None if gpu is None else _gpu(gpu),
        max_age_s=age,
        fingerprint=hashlib.sha256(rfc8785.dumps(document)).hexdigest(),  # pyright: ignore[reportArgumentType]
    )


def _snp(table: _Table) -> SnpPolicy:
    table.only(*SnpPolicy.__slots__)
    minimum = table.must_table("minimum_tcb")
    minimum.only(*TCB_PARTS)
    levels = {part: minimum.integer(part, None if part != "fmc" else 0, 0, 255) for part in TCB_PARTS}
    return SnpPolicy(
        roots=table.roots(),
        measurements=table.hashes("measurements", 48, must=True),
        minimum_tcb=levels,
        host_data=table.hashes("host_data", 32),
        id_keys=table.hashes("id_keys", 48),
        max_vmpl=table.integer("max_vmpl", 0, 0, 3),
        smt=table.boolean("smt", True),
        migration=table.boolean("migration", False),
        revocation=table.boolean("revocation", True),
    )


def _tdx(table: _Table) -> TdxPolicy:
    table.only(*TdxPolicy.__slots__)
    return TdxPolicy(
        roots=table.roots(),
        measurements=table.hashes("measurements", 48, must=True),
        registers=table.numbered("registers", 0, 3),
        statuses=table.words("statuses", TDX_STATUSES.__contains__) or frozenset({"UpToDate"}),
        rejected_advisories=table.words("rejected_advisories"),
        minimum_evaluation=table.integer("minimum_evaluation", 0, 0, (1 << 31) - 1),
        smt=table.boolean("smt", True),
        dynamic_platform=table.boolean("dynamic_platform", False),
        cached_keys=table.boolean("cached_keys", False),
    )


def _gpu(table: _Table) -> GpuPolicy:
    table.only(*GpuPolicy.__slots__)
    return GpuPolicy(
        roots=table.roots(),
        measurements=table.numbered("measurements", 1, 255, must=True),
        drivers=table.words("drivers", must=True),
        vbioses=frozenset(one.upper() for one in table.words("vbioses", must=True)),
        revocation=table.boolean("revocation", True),
    )


class _Table:
    """One table of the document, which knows where it stands."""

    def __init__(self, where: str, values: Mapping[str, object]) -> None:
        self._where, self._values = where, values

    def only(self, *known: str) -> None:
        """First of all: a name that is misspelt must not be told as one that is missing."""
        for name in self._values:
            if name not in known:
                raise self._wrong(name, "unknown")

    def table(self, name: str) -> _Table | None:
        found = self._values.get(name)
        if found is None:
            return None
        if not isinstance(found, Mapping):
            raise self._wrong(name, "table")
        return _Table(self._at(name), {str(key): value for key, value in found.items()})  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]

    def must_table(self, name: str) -> _Table:
        found = self.table(name)
        if found is None:
            raise self._wrong(name, "missing")
        return found

    def integer(self, name: str, default: int | None, least: int, most: int) -> int:
        found = self._values.get(name)
        if found is None:
            if default is None:
                raise self._wrong(name, "missing")
            return default
        if not isinstance(found, int) or isinstance(found, bool) or not least <= found <= most:
            raise self._wrong(name, "integer")
        return found

    def boolean(self, name: str, default: bool) -> bool:
        found = self._values.get(name)
        if found is None:
            return default
        if not isinstance(found, bool):
            raise self._wrong(name, "boolean")
        return found

    def words(
        self, name: str, fits: Callable[[str], bool] = str.isprintable, *, must: bool = False, expected: str = "word"
    ) -> frozenset[str]:
        found = self._values.get(name)
        if found is None and not must:
            return frozenset()
        if not isinstance(found, list) or not found:
            raise self._wrong(name, "missing" if found is None else "list")
        for one in found:  # pyright: ignore[reportUnknownVariableType]
            if not isinstance(one, str) or not 0 < len(one) <= 20_000 or not fits(one):
                raise self._wrong(name, expected)
        return frozenset(found)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]

    def hashes(self, name: str, size: int, *, must: bool = False) -> Hashes:
        found = self.words(name, lambda one: _HASH[size].fullmatch(one.lower()) is not None, must=must, expected="hash")
        return frozenset(one.lower() for one in found)

    def numbered(self, name: str, least: int, most: int, *, must: bool = False) -> dict[int, Hashes]:
        """Hashes by number; TOML and JSON have text alone as keys."""
        table = self.must_table(name) if must else self.table(name)
        if table is None:
            return {}
        if must and not table._values:
            raise self._wrong(name, "missing")
        found: dict[int, Hashes] = {}
        for key in table._values:
            if not key.isdecimal() or str(int(key)) != key or not least <= int(key) <= most:
                raise table._wrong(key, "number")
            found[int(key)] = table.hashes(key, 48, must=True)
        return found

    def roots(self) -> tuple[str, ...]:
        """Certificates of authorities, one PEM text each."""
        return tuple(sorted(self.words("roots", _is_authority, must=True, expected="root")))

    def _at(self, name: str) -> str:
        return f"{self._where}.{name}" if self._where else name

    def _wrong(self, name: str, expected: str) -> YardError:
        return YardError("attestation_policy_invalid", where=ascii(self._at(name))[1:-1][:100], expected=expected)


def _is_authority(pem: str) -> bool:
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificates(pem.encode())
        return len(found) == 1 and found[0].extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (ValueError, x509.ExtensionNotFound):
        return False
