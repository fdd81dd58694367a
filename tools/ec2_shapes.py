"""Writes src/gpuyard/api/ec2/shapes.json: the operations that the EC2 dialect serves, out of botocore's service models.

Run it with a Python that has botocore: `python tools/ec2_shapes.py`. The models are Apache-2.0; see NOTICE.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import botocore
import botocore.session

TARGET = Path(__file__).parents[1] / "src" / "gpuyard" / "api" / "ec2" / "shapes.json"
EC2 = [
    "DescribeRegions",
    "DescribeAvailabilityZones",
    "DescribeInstanceTypes",
    "DescribeInstanceTypeOfferings",
    "DescribeAccountAttributes",
    "RunInstances",
    "DescribeInstances",
    "DescribeInstanceStatus",
    "DescribeInstanceAttribute",
    "StartInstances",
    "StopInstances",
    "RebootInstances",
    "TerminateInstances",
    "CreateTags",
    "DescribeTags",
    "DeleteTags",
    "DescribeSpotPriceHistory",
    "DescribeSpotInstanceRequests",
    "RequestSpotInstances",
    "CancelSpotInstanceRequests",
    "DescribeReservedInstances",
    "DescribeReservedInstancesOfferings",
    "PurchaseReservedInstancesOffering",
    "DescribeImages",
    "CreateImage",
    "DescribeSnapshots",
    "CreateSnapshot",
    "DeleteSnapshot",
    "DescribeVolumes",
    "CreateKeyPair",
    "ImportKeyPair",
    "DescribeKeyPairs",
    "DeleteKeyPair",
    "DescribeSecurityGroups",
    "CreateSecurityGroup",
    "DeleteSecurityGroup",
    "AuthorizeSecurityGroupIngress",
    "DescribeVpcs",
    "DescribeSubnets",
    "DescribeNetworkInterfaces",
    "DescribeInstanceCreditSpecifications",
]
STS = ["GetCallerIdentity"]
SIMPLE = {"timestamp": "time", "blob": "blob"}


class Table:
    """The shapes that were reached, by name."""

    def __init__(self) -> None:
        self.shapes: dict[str, Any] = {}

    def add(self, shape: Any) -> str:
        kind = shape.type_name
        if kind == "structure":
            if shape.name not in self.shapes:
                members: dict[str, Any] = {}
                self.shapes[shape.name] = ["s", members]
                for name, member in shape.members.items():
                    wire = member.serialization.get("name", name)
                    asked = member.serialization.get("queryName") or wire[0].upper() + wire[1:]
                    members[name] = [self.add(member), asked, wire]
            return str(shape.name)
        if kind == "list":
            if shape.name not in self.shapes:
                self.shapes[shape.name] = ["l", "", ""]
                self.shapes[shape.name][1:] = [self.add(shape.member), shape.member.serialization.get("name", "item")]
            return str(shape.name)
        return SIMPLE.get(kind, kind)


def main() -> None:
    session = botocore.session.get_session()
    table = Table()
    operations: dict[str, Any] = {}
    for service, names in (("ec2", EC2), ("sts", STS)):
        model = session.get_service_model(service)
        for name in names:
            operation = model.operation_model(name)
            put = None if operation.input_shape is None else table.add(operation.input_shape)
            got = None if operation.output_shape is None else table.add(operation.output_shape)
            operations[name] = [put, got]
    found = {"source": f"botocore {botocore.__version__}", "operations": operations, "shapes": table.shapes}
    text = json.dumps(found, separators=(",", ":"), sort_keys=True) + "\n"
    if sys.argv[1:] == ["--check"]:
        sys.exit(None if TARGET.read_text() == text else f"{TARGET} is not what this botocore says: make shapes")
    TARGET.write_text(text)


if __name__ == "__main__":
    main()
