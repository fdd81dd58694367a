"""Topologies: every matrix that was collected is read right, and nonsense is told by line."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from gpuyard.catalog import cards as catalog
from gpuyard.hardware import fleet_file
from gpuyard.hardware.simulated import CardGroup, SimulatedProbe, simulated_node
from gpuyard.hardware.topology_amd import parse_amd_smi, parse_rocm_smi
from gpuyard.hardware.topology_nvidia import parse_matrix, parse_nvlink_status
from gpuyard.hardware.topology_nvml import probe_topology
from gpuyard.model.errors import YardError
from gpuyard.model.topology import Link, LinkKind, Topology, format_cpu_list, parse_cpu_list
from shared_data import shared_data

# file -> cards, network cards, link of card 0 and the last card, CPU list and NUMA node of the last card
MATRICES = {
    "ansi_h100_590": (1, [], "X", "0-19", 0),
    "ansi_h100mig_590": (1, [], "X", "0-19", 0),
    "ansi_rtx4080s_595": (1, [], "X", "0-15", 0),
    "nvsentinel_edge_2": (3, ["mlx5_0"], "NV18", "0-55", None),
    "nvsentinel_edge_3": (2, ["mlx5_0"], "NV18", "0-55", None),
    "nvsentinel_edge_4": (8, ["mlx5_0", "mlx5_1"], "NV18", "56-111", 1),
    "nvsentinel_edge_5": (4, [f"mlx5_{n}" for n in range(6)], "NV18", "72-143", None),
    "nvsentinel_edge_6": (1, ["mlx5_0"], "X", "0-55", None),
    "nvsentinel_edge_7": (2, [], "NV18", "0-47", 0),
    "nvsentinel_edge_8": (2, ["mlx5_0", "NIC1"], "NV18", "0-55", None),
    "nvsentinel_edge_9": (2, ["mlx5_0", "mlx5_1", "NIC28NIC29", "mlx5_30"], "NV18", "0-55", 0),
    "nvsentinel_h100_mlx5_tabs": (8, [f"mlx5_{n}" for n in range(10)], "NV18", "48-95,144-191", 1),
    "nvsentinel_oci_nic_legend": (4, [f"mlx5_{n}" for n in range(4)], "NV18", "0-55,112-167", 0),
    "stas_2gpu_nv2": (2, [], "NV2", "0-23", None),
    "stas_2gpu_phb": (2, [], "PHB", "0-11", None),
    "stas_a100_nv12": (8, [], "NV12", "24-47", 1),
    "stas_h100_ht": (8, [], "NV18", "52-103,156-207", 1),
    "stas_h100_nv18": (8, [], "NV18", "52-103", 1),
}


@pytest.mark.parametrize("name", MATRICES)
def test_every_collected_matrix_is_read_right(name: str) -> None:
    cards, nics, link, cpus, numa = MATRICES[name]
    topology = parse_matrix((shared_data("samples/topo") / f"{name}.txt").read_text())
    assert topology.devices == tuple(f"GPU{n}" for n in range(cards))
    assert [nic.name for nic in topology.nics] == nics
    assert topology.links[0][-1].text == link
    assert (topology.cpus[-1], topology.numa[-1]) == (cpus, numa)
    assert Topology.from_json(topology.to_json()) == topology


def test_no_collected_matrix_is_left_out() -> None:
    folder = shared_data("samples/topo")
    assert {path.stem for path in folder.iterdir() if not path.name.startswith("nvlink_s")} == set(MATRICES)


def test_rows_in_another_order_are_read_by_their_names() -> None:
    topology = parse_matrix((shared_data("samples/topo") / "nvsentinel_edge_2.txt").read_text())
    assert [nic.links for nic in topology.nics] == [
        tuple(Link(kind) for kind in (LinkKind.PIX, LinkKind.SYS, LinkKind.NODE))
    ]


def test_network_cards_of_the_legend_are_named_by_it() -> None:
    topology = parse_matrix((shared_data("samples/topo") / "nvsentinel_oci_nic_legend.txt").read_text())
    assert [link.text for link in topology.nics[3].links] == ["NODE", "PXB", "NODE", "NODE"]


GOOD = "\tGPU0\tGPU1\tCPU Affinity\nGPU0\t X \tPIX\t0-3\nGPU1\tPIX\t X \t0-3\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "--"),
        ("no matrix at all", "--"),
        ("GPU0 GPU1", "--"),
        (GOOD.replace("GPU1\tPIX", "GPU1\tSYS"), "GPU0-GPU1 PIX, GPU1-GPU0 SYS"),
        (GOOD.replace("GPU0\t X \tPIX", "GPU0\t X "), "GPU0: 1 links"),
        (GOOD + "GPU1\tPIX\t X \t0-3\n", "GPU1"),
        (GOOD.replace("GPU1\tPIX\t X \t0-3\n", ""), "GPU1"),
        ("\tGPU0\tGPU0\nGPU0\t X \t X \n", "GPU0 GPU0"),
        ("x" * 2_000_000, "2000000 characters"),
    ],
)
def test_nonsense_is_told(text: str, found: str) -> None:
    with pytest.raises(YardError) as refused:
        parse_matrix(text)
    assert refused.value.code == "topology_invalid"
    assert refused.value.params["found"] == found


def test_nvlink_status_counts_links_and_their_speed() -> None:
    folder = shared_data("samples/topo")
    (card,) = parse_nvlink_status((folder / "nvlink_s_h100_590.txt").read_text())
    assert (card.index, card.active, set(card.links_mbps)) == (0, 18, {26_562})
    for name in ("nvlink_s_h100mig_590", "nvlink_s_rtx4080s_595"):
        (card,) = parse_nvlink_status((folder / f"{name}.txt").read_text())
        assert card.active == 0
    with pytest.raises(YardError):
        parse_nvlink_status("nothing")


def test_amd_topologies_are_read() -> None:
    folder = shared_data("samples/amd")
    topology = parse_amd_smi((folder / "amd_smi_topology_mi300_8gpu.txt").read_text())
    assert len(topology.devices) == 8
    assert topology.links[0][7].kind is LinkKind.XGMI
    assert topology.islands() == (tuple(range(8)),)
    untold = parse_amd_smi((folder / "amd_smi_topology_cndz.txt").read_text())
    assert untold.devices == topology.devices
    assert untold.links[0][7].kind is LinkKind.UNKNOWN
    with pytest.raises(YardError):
        parse_amd_smi("nothing")
    with pytest.raises(YardError, match="topology_invalid"):
        parse_amd_smi("HOPS TABLE:\n 0000:0c:00.0 0000:22:00.0\n0000:0c:00.0 0\n")


def test_rocm_topologies_are_read() -> None:
    folder = shared_data("samples/amd")
    vega = parse_rocm_smi((folder / "rocm_smi_mi100_rocm602.json").read_text())
    assert vega.numa == (1, 1, 1, 1)
    assert {link.text for link in vega.links[0][1:]} == {"NODE"}
    assert parse_rocm_smi((folder / "rocm_smi_rx6700xt_rocm612.json").read_text()).devices == ("0000:07:00.0",)
    for nonsense in ("", "[]", "{}", '{"card0": 3}'):
        with pytest.raises(YardError, match="topology_invalid"):
            parse_rocm_smi(nonsense)


class FakeNvml:
    """Two cards on a switch of NVLink and one beside them; answers as the real bindings do."""

    class NVMLError(Exception):
        pass

    def nvmlDeviceGetNvLinkState(self, handle: int, link: int) -> int:  # noqa: N802
        if handle == 2 or link >= 4:
            raise self.NVMLError
        return 1

    def nvmlDeviceGetNvLinkRemoteDeviceType(self, handle: int, link: int) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetTopologyCommonAncestor(self, a: int, b: int) -> int:  # noqa: N802
        return 50

    def nvmlDeviceGetCpuAffinity(self, handle: int, words: int) -> list[int]:  # noqa: N802
        return [0b1111_0000, 1] + [0] * (words - 2)


def test_nvml_tells_the_same_facts(tmp_path: Path) -> None:
    (tmp_path / "0000:02:00.0").mkdir()
    (tmp_path / "0000:02:00.0" / "numa_node").write_text("1\n")
    handles = {"0000:01:00.0": 0, "0000:02:00.0": 1, "0000:03:00.0": 2}
    topology = probe_topology(FakeNvml(), handles, tmp_path)  # type: ignore[arg-type]
    assert [link.text for link in topology.links[0]] == ["X", "NV4", "SYS"]
    assert topology.islands() == ((0, 1), (2,))
    assert topology.cpus == ("4-7,64",) * 3
    assert topology.numa == (None, 1, None)


def test_a_driver_that_tells_nothing_gives_unknown_links() -> None:
    def refuse(*_: object) -> None:
        raise FakeNvml.NVMLError

    silent = SimpleNamespace(NVMLError=FakeNvml.NVMLError, nvmlDeviceGetNvLinkState=refuse)
    topology = probe_topology(silent, {"0000:01:00.0": 0, "0000:02:00.0": 1})  # type: ignore[arg-type]
    assert topology.links[0][1].kind is LinkKind.UNKNOWN
    assert topology.cpus == (None, None)


def test_simulated_nodes_have_the_links_that_such_servers_have() -> None:
    node = SimulatedProbe.from_spec("8xH100,8xRTX4090").probe().nodes[0]
    assert node.topology is not None
    assert [len(island) for island in node.topology.islands()] == [8] + [1] * 8
    assert node.topology.links[0][7].text == "NV18"
    assert node.topology.links[8][9].text == "PIX"
    assert node.topology.links[8][10].text == "NODE"
    large = SimulatedProbe.from_spec("1000xRTX4090").probe().nodes[0]
    assert large.topology is None


def test_a_fleet_file_may_hold_the_matrix_of_a_real_server(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(f'[[node]]\nname = "a"\ncards = "2xRTX4090"\ntopology = """\n{GOOD}"""\n')
    (node,) = fleet_file.load(path)
    assert node.topology is not None
    assert node.topology.devices == tuple(card.pci_address for card in node.cards)
    assert node.topology.links[0][1].text == "PIX"
    for broken in (GOOD.replace("PIX", "FAR"), "x"):
        path.write_text(f'[[node]]\nname = "a"\ncards = "2xRTX4090"\ntopology = """\n{broken}"""\n')
        with pytest.raises(YardError, match="fleet_file_invalid"):
            fleet_file.load(path)
    path.write_text(f'[[node]]\nname = "a"\ncards = "3xRTX4090"\ntopology = """\n{GOOD}"""\n')
    with pytest.raises(YardError, match="2 x GPU"):
        fleet_file.load(path)


def test_a_fleet_file_may_hold_what_amd_prints(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    printed = (shared_data("samples/amd") / "amd_smi_topology_mi300_8gpu.txt").read_text()
    path.write_text(f"[[node]]\nname = 'a'\ncards = '8xMI300X'\ntopology = '''\n{printed}'''\n")
    (node,) = fleet_file.load(path)
    assert node.topology is not None
    assert node.topology.links[0][7].text == "XGMI"
    printed = (shared_data("samples/amd") / "rocm_smi_mi100_rocm602.json").read_text()
    path.write_text(f"[[node]]\nname = 'a'\ncards = '4xMI300X'\ntopology = '''\n{printed}'''\n")
    assert fleet_file.load(path)[0].topology is not None


def test_cpu_lists_go_both_ways() -> None:
    assert format_cpu_list(parse_cpu_list("0-3,8,10-11")) == "0-3,8,10-11"
    for nonsense in ("", "a", "3-1", "1-", "0-99999999"):
        with pytest.raises(ValueError):
            parse_cpu_list(nonsense)


def test_bridges_join_two_cards() -> None:
    node = simulated_node("n", [CardGroup(catalog.find("RTX3090"), 4)])
    assert node.topology is not None
    assert [len(island) for island in node.topology.islands()] == [2, 2]
