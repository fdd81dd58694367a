"""A topology from whatever a vendor's tool printed."""

from __future__ import annotations

from gpuyard.hardware.topology_amd import parse_amd_smi, parse_rocm_smi
from gpuyard.hardware.topology_nvidia import parse_matrix
from gpuyard.model.topology import Topology


def parse_topology(text: str) -> Topology:
    """The topology in the output of `nvidia-smi topo -m`, `amd-smi topology` or `rocm-smi --showtopo --json`.

    Raises YardError `topology_invalid`.
    """
    if text.lstrip().startswith("{"):
        return parse_rocm_smi(text)
    return parse_amd_smi(text) if " TABLE:" in text else parse_matrix(text)
