"""One suite for every probe: simulated cards, and NVIDIA's through the real nvidia-ml-py on a stand-in for the driver."""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pynvml
import pytest

from gpuyard.catalog import cards as catalog
from gpuyard.hardware.amd import AmdProbe, is_amd, names, visible
from gpuyard.hardware.nvidia import NvidiaProbe, clean_model
from gpuyard.hardware.probe import Finding, Probe, ProbeReport
from gpuyard.hardware.simulated import SimulatedProbe
from gpuyard.hardware.this_machine import MachineProbe
from gpuyard.model.fleet import Card
from gpuyard.model.units import MIB
from gpuyard.texts import text
from shared_data import shared_data

GPU_IS_LOST = 15
DRIVER_NOT_LOADED = 9


class FakeCard(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char * 96),
        ("uuid", ctypes.c_char * 96),
        ("domain", ctypes.c_uint),
        ("bus", ctypes.c_uint),
        ("device", ctypes.c_uint),
        ("memory", ctypes.c_ulonglong),
        ("answer", ctypes.c_int),
        ("mig", ctypes.c_int),
    )


class FakeNvml:
    """The compiled stand-in, loaded where nvidia-ml-py looks for the driver's library."""

    def __init__(self, library: Path) -> None:
        self.library = ctypes.CDLL(str(library))
        self.cards = (FakeCard * 16).in_dll(self.library, "fake_cards")
        self.set(fake_count=0, fake_init_answer=0, fake_count_answer=0, fake_open=0)

    def set(self, **values: int) -> None:
        for name, value in values.items():
            ctypes.c_int.in_dll(self.library, name).value = value

    def get(self, name: str) -> int:
        return ctypes.c_int.in_dll(self.library, name).value

    def add(self, name: str, memory_mib: int, mig: int = -1) -> FakeCard:
        index = self.get("fake_count")
        uuid = f"GPU-{index:08x}-1111-2222-3333-444444444444".encode()
        self.cards[index] = FakeCard(name.encode(), uuid, 0, 0x81 + index, 0, memory_mib * MIB, 0, mig)
        self.set(fake_count=index + 1)
        return self.cards[index]


@pytest.fixture(scope="session")
def compile_nvml(tmp_path_factory: pytest.TempPathFactory) -> Any:
    compiler = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    if compiler is None:
        pytest.skip("needs a C compiler (cc, gcc or clang) for the stand-in of NVIDIA's library")
    folder = tmp_path_factory.mktemp("nvml")

    def compiled(*flags: str) -> Path:
        target = folder / f"libfake{len(flags)}.so"
        if not target.exists():
            source = Path(__file__).with_name("fake_nvml.c")
            subprocess.run([compiler, "-shared", "-fPIC", *flags, "-o", str(target), str(source)], check=True)
        return target

    return compiled


@pytest.fixture
def fresh_bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    """nvidia-ml-py keeps the library that it loaded first for the life of the process."""
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})


@pytest.fixture
def nvml(compile_nvml: Any, fresh_bindings: None, monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    fake = FakeNvml(compile_nvml("-DWITH_MEMORY_LIMITS"))
    monkeypatch.setattr(pynvml, "CDLL", lambda _: fake.library)
    return fake


class Bench:
    """A probe and a hand that unplugs its cards."""

    def __init__(self, probe: Probe, nvml: FakeNvml | None = None) -> None:
        self.probe = probe
        self.nvml = nvml

    models: Sequence[str] = ["RTX4090", "RTX4090", "H100"]

    def cards(self) -> list[Card]:
        return [card for node in self.probe.probe().nodes for card in node.cards]

    def lose(self, uuid: str) -> None:
        self._answer(uuid, lost=True)

    def recover(self, uuid: str) -> None:
        self._answer(uuid, lost=False)

    def _answer(self, uuid: str, lost: bool) -> None:
        if isinstance(self.probe, SimulatedProbe):
            (self.probe.lose if lost else self.probe.recover)(uuid)
        else:
            assert self.nvml is not None
            card = next(card for card in self.nvml.cards if card.uuid.decode() == uuid)
            card.answer = GPU_IS_LOST if lost else 0


class AmdBench(Bench):
    """Cards as the kernel shows them below /sys/class/drm, names as rocm-smi does."""

    models = ("MI300X", "MI300X", "RX7900XTX")

    def __init__(self, root: Path) -> None:
        self.drm, self.bus = root / "drm", root / "bus"
        told: dict[str, dict[str, str]] = {}
        names = ("AMD Instinct MI300X", "AMD Instinct MI300X", "Navi 31 [Radeon RX 7900 XTX]")
        for number, (name, gib) in enumerate(zip(names, (192, 192, 24), strict=True)):
            self.add(number, gib, unique=f"{number:016x}")
            told[f"card{number}"] = {"Card Series": name, "PCI Bus": f"0000:{0x41 + number:02X}:00.0"}
        super().__init__(AmdProbe(drm=self.drm, tool=lambda: json.dumps(told)))
        self.models = list(AmdBench.models)

    def add(self, number: int, gib: int, unique: str = "", **files: str) -> Path:
        device = self.bus / f"0000:{0x41 + number:02x}:00.0"
        device.mkdir(parents=True)
        contents = {"vendor": "0x1002", "mem_info_vram_total": str((gib << 30) - (16 << 20)), "numa_node": "0"}
        for name, content in {**contents, "unique_id": unique, **files}.items():
            (device / name).write_text(f"{content}\n")
        for folder in (f"card{number}", f"card{number}-DP-1"):
            (self.drm / folder).mkdir(parents=True)
            (self.drm / folder / "device").symlink_to(device)
        return device

    def _answer(self, uuid: str, lost: bool) -> None:
        number = int(uuid.removeprefix("AMD-"), 16)
        there, away = self.drm / f"card{number}", self.drm / f"away{number}"
        (there if lost else away).rename(away if lost else there)


@pytest.fixture(params=["simulated", "nvidia", "amd", "all of this machine"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    if request.param == "amd":
        return AmdBench(tmp_path)
    if request.param == "simulated":
        return Bench(SimulatedProbe.from_spec("2xRTX4090,1xH100"))
    nvml: FakeNvml = request.getfixturevalue("nvml")
    nvml.add("NVIDIA GeForce RTX 4090", 24564)
    nvml.add("NVIDIA GeForce RTX 4090", 24564)
    nvml.add("NVIDIA H100 80GB HBM3", 81559, mig=0)
    if request.param == "nvidia":
        return Bench(NvidiaProbe(), nvml)
    return Bench(MachineProbe([NvidiaProbe(), AmdProbe(drm=tmp_path)]), nvml)


def findings(report: ProbeReport) -> dict[str, Finding]:
    return {finding.name: finding for finding in report.findings}


def has_a_sentence(finding: Finding) -> bool:
    key = f"doctor.{finding.name}." + {True: "ok", False: "missing", None: "unknown"}[finding.ok]
    return all(
        (sentence := text(key, language, **finding.params)) and key not in sentence and "{" not in sentence
        for language in ("en", "zh")
    )


def test_every_card_is_named_by_a_uuid_and_a_pci_address_of_its_own(bench: Bench) -> None:
    cards = bench.cards()
    assert len(cards) == 3
    assert len({card.uuid for card in cards}) == 3
    assert len({card.pci_address for card in cards}) == 3
    assert all(is_amd(card.uuid) or (card.uuid.startswith("GPU-") and len(card.uuid) == 40) for card in cards)


def test_every_card_is_of_a_catalogue_model_and_no_larger_than_it(bench: Bench) -> None:
    cards = bench.cards()
    assert [card.model for card in cards] == bench.models
    for card in cards:
        assert 0.9 * catalog.find(card.model).memory_bytes < card.memory_bytes <= catalog.find(card.model).memory_bytes


def test_every_card_belongs_to_the_node_that_reports_it(bench: Bench) -> None:
    for node in bench.probe.probe().nodes:
        assert node.cpu_milli > 0
        assert node.memory_bytes > 0
        assert {card.node for card in node.cards} == {node.name}


def test_only_simulated_cards_say_that_they_are_simulated(bench: Bench) -> None:
    assert {card.simulated for card in bench.cards()} == {bench.probe.name == "simulated"}


def test_probing_again_finds_the_same_cards(bench: Bench) -> None:
    assert bench.cards() == bench.cards()


def test_a_lost_card_is_not_in_the_next_report_and_comes_back(bench: Bench) -> None:
    before = bench.cards()
    bench.lose(before[1].uuid)
    assert bench.cards() == [before[0], before[2]]
    bench.recover(before[1].uuid)
    assert bench.cards() == before


def test_when_every_card_is_lost_a_finding_says_that_there_are_none(bench: Bench) -> None:
    for card in bench.cards():
        bench.lose(card.uuid)
    report = bench.probe.probe()
    assert [node.cards for node in report.nodes] == [()]
    assert any(finding.name.endswith("_cards") and finding.ok is False for finding in report.findings)


def test_every_finding_has_a_full_sentence_in_both_languages(bench: Bench) -> None:
    healthy = bench.probe.probe().findings
    bench.lose(bench.cards()[0].uuid)
    assert healthy
    for finding in (*healthy, *bench.probe.probe().findings):
        assert has_a_sentence(finding), finding


def test_a_missing_library_is_a_finding_and_no_card(fresh_bindings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(pynvml, "CDLL", absent)
    report = NvidiaProbe("here").probe()
    assert [(node.name, node.cards) for node in report.nodes] == [("here", ())]
    assert findings(report)["nvml"].ok is False
    assert all(has_a_sentence(finding) for finding in report.findings)


def test_a_library_without_a_driver_behind_it_is_a_finding_of_its_own(nvml: FakeNvml) -> None:
    nvml.set(fake_init_answer=DRIVER_NOT_LOADED)
    report = NvidiaProbe().probe()
    assert [finding.name for finding in report.findings] == ["nvidia_driver"]
    assert findings(report)["nvidia_driver"].ok is False
    assert all(has_a_sentence(finding) for finding in report.findings)


def test_a_driver_that_is_loaded_later_is_noticed(nvml: FakeNvml) -> None:
    probe = NvidiaProbe()
    nvml.add("NVIDIA L4", 23034)
    nvml.set(fake_init_answer=DRIVER_NOT_LOADED)
    assert probe.probe().nodes[0].cards == ()
    nvml.set(fake_init_answer=0)
    assert [card.model for card in probe.probe().nodes[0].cards] == ["L4"]


def test_a_driver_that_does_not_count_its_cards_is_reported_as_unknown(nvml: FakeNvml) -> None:
    nvml.set(fake_count_answer=999)
    report = NvidiaProbe().probe()
    assert findings(report)["nvidia_cards"].ok is None
    assert all(has_a_sentence(finding) for finding in report.findings)


def test_a_card_that_the_catalogue_lacks_is_listed_and_named_in_a_finding(nvml: FakeNvml) -> None:
    nvml.add("NVIDIA GeForce RTX 4080 SUPER", 16376)
    report = NvidiaProbe().probe()
    assert [card.model for card in report.nodes[0].cards] == ["RTX4080SUPER"]
    assert findings(report)["card_model"].params["reported"] == "NVIDIA GeForce RTX 4080 SUPER"
    assert all(has_a_sentence(finding) for finding in report.findings)


def test_what_the_driver_says_of_a_card_is_taken_as_it_is(nvml: FakeNvml, tmp_path: Path) -> None:
    card = nvml.add("NVIDIA GeForce RTX 4090", 24564)
    card.domain, card.bus, card.device = 1, 0xC1, 2
    (tmp_path / "0001:c1:02.0").mkdir()
    (tmp_path / "0001:c1:02.0" / "numa_node").write_text("1\n")
    (found,) = NvidiaProbe(pci_devices=tmp_path).probe().nodes[0].cards
    assert found.pci_address == "0001:c1:02.0"
    assert found.numa_node == 1
    assert found.memory_bytes == 24564 * MIB
    assert found.driver == "615.71.09"


def test_a_machine_without_numa_leaves_the_numa_node_absent(nvml: FakeNvml, tmp_path: Path) -> None:
    nvml.add("NVIDIA L4", 23034)
    (tmp_path / "0000:81:00.0").mkdir()
    (tmp_path / "0000:81:00.0" / "numa_node").write_text("-1\n")
    assert NvidiaProbe(pci_devices=tmp_path).probe().nodes[0].cards[0].numa_node is None
    assert NvidiaProbe(pci_devices=tmp_path / "none").probe().nodes[0].cards[0].numa_node is None


def test_a_card_in_mig_mode_is_named_in_a_finding(nvml: FakeNvml) -> None:
    nvml.add("NVIDIA H200", 143771, mig=1)
    report = NvidiaProbe().probe()
    assert findings(report)["mig_mode"].params["model"] == "H200"
    assert findings(report)["mig_mode"].ok is False  # this driver does not tell how the card can be cut
    (card,) = report.nodes[0].cards
    assert card.mig is not None
    assert card.mig.profiles == ()
    assert all(has_a_sentence(finding) for finding in report.findings)


@pytest.mark.parametrize("flags", [("-DWITH_MEMORY_LIMITS",), ()])
def test_memory_limits_are_reported_where_the_driver_has_them(
    flags: tuple[str, ...], compile_nvml: Any, fresh_bindings: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeNvml(compile_nvml(*flags))
    monkeypatch.setattr(pynvml, "CDLL", lambda _: fake.library)
    fake.add("NVIDIA L4", 23034)
    report = NvidiaProbe().probe()
    assert findings(report)["memory_limits"].ok is bool(flags)
    assert all(has_a_sentence(finding) for finding in report.findings)


def test_every_probe_closes_the_library_that_it_opened(nvml: FakeNvml) -> None:
    nvml.add("NVIDIA L4", 23034).answer = GPU_IS_LOST
    NvidiaProbe().probe()
    nvml.set(fake_count_answer=999)
    NvidiaProbe().probe()
    assert nvml.get("fake_open") == 0


@pytest.mark.parametrize(
    ("reported", "model"),
    [
        ("NVIDIA GeForce RTX 2080 SUPER", "RTX2080SUPER"),
        ("Tesla T4", "T4"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX6000AdaGeneration"),
        ("Quadro RTX 8000", "RTX8000"),
        ("NVIDIA", "unknown"),
        ("显卡", "unknown"),
    ],
)
def test_an_unknown_card_gets_a_name_that_fits_an_offer(reported: str, model: str) -> None:
    assert clean_model(reported) == model


def test_an_amd_card_without_a_unique_id_is_known_by_its_address(tmp_path: Path) -> None:
    bench = AmdBench(tmp_path)
    bench.add(7, 12)
    card = next(card for card in bench.cards() if card.memory_bytes < 13 << 30)
    assert card.uuid == "AMD-0000:48:00.0"
    assert visible([card.uuid]) == {}


def test_amd_partitions_are_told_and_a_card_without_its_driver_is_not_leased(tmp_path: Path) -> None:
    bench = AmdBench(tmp_path)
    bench.add(5, 24, current_compute_partition="CPX", current_memory_partition="NPS4")
    (bench.add(6, 16) / "mem_info_vram_total").unlink()
    report = bench.probe.probe()
    told = {finding.name: finding for finding in report.findings}
    assert told["amd_partition"].params["compute"] == "CPX"
    assert told["amd_card_unread"].params["address"] == "0000:47:00.0"
    assert len(report.nodes[0].cards) == 4
    assert all(has_a_sentence(finding) for finding in report.findings)


def test_cards_of_two_vendors_are_on_one_node(tmp_path: Path, nvml: FakeNvml) -> None:
    nvml.add("NVIDIA GeForce RTX 4090", 24564)
    amd = AmdBench(tmp_path)
    (node,) = MachineProbe([NvidiaProbe(), amd.probe]).probe().nodes
    assert [card.model for card in node.cards] == ["RTX4090", *AmdBench.models]


@pytest.mark.parametrize(
    ("sample", "found"),
    [
        ("rocm_smi_rx6700xt_rocm612", {"0000:07:00.0": "Radeon RX 6700/6700 XT / 6800M"}),
        ("rocm_smi_vega-20-WKS-GL-XE", {"0000:63:00.0": "Radeon Instinct MI50 32GB"}),
        ("rocm_smi_mi100_rocm602", {"0000:83:00.0": "Instinct MI100"}),
    ],
)
def test_the_names_of_cards_are_read_from_every_rocm_smi(sample: str, found: dict[str, str]) -> None:
    text = shared_data(f"samples/amd/{sample}.json").read_text()
    assert found.items() <= names(text).items()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"card0": 3}', '{"card0": {"PCI Bus": "x"}}', "ERROR: no GPU"]
)
def test_what_rocm_smi_cannot_say_is_no_name(text: str) -> None:
    assert names(text) == {}


def test_programs_are_shown_amd_cards_by_their_unique_ids() -> None:
    assert visible(["AMD-79ccd55167a2124a", "AMD-1", "GPU-x"]) == {"ROCR_VISIBLE_DEVICES": "GPU-79ccd55167a2124a,GPU-1"}
    assert visible(["GPU-x"]) == {}
