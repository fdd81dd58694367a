"""What EC2 has and a yard does not: refused in words, or listed as none, never pretended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gpuyard.api.asking import Asking
from gpuyard.api.dialects.call import Call
from gpuyard.api.dialects.faults import Fault

SNAPSHOTS: Final = (
    "A yard keeps an instance's disk until it is terminated and takes no snapshots: copy files with `gpuyard cp`."
)
GROUPS: Final = (
    "No runtime of a yard can enforce a group's rules, so there are none to change: an instance is reached on the "
    "ports that its image or workload declares, on the yard's own machine alone."
)
REFUSED: Final = {
    "CreateImage": SNAPSHOTS,
    "CreateSnapshot": SNAPSHOTS,
    "DeleteSnapshot": SNAPSHOTS,
    "CreateSecurityGroup": GROUPS,
    "DeleteSecurityGroup": GROUPS,
    "AuthorizeSecurityGroupIngress": GROUPS,
}
NONE: Final = {
    "DescribeSnapshots": "Snapshots",
    "DescribeNetworkInterfaces": "NetworkInterfaces",
    "DescribeInstanceCreditSpecifications": "InstanceCreditSpecifications",
}


def refuse(_: Asking, call: Call, __: dict[str, Any]) -> Mapping[str, Any]:
    raise Fault("UnsupportedOperation", REFUSED[call.action])


def none(_: Asking, call: Call, __: dict[str, Any]) -> Mapping[str, Any]:
    return {NONE[call.action]: []}
