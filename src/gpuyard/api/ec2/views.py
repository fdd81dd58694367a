"""Workloads and offers as EC2's model has them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from gpuyard.api.dialects import nouns
from gpuyard.api.ec2.shapes import Fixed
from gpuyard.model.leases import PurchaseOption
from gpuyard.model.offers import Offer
from gpuyard.model.states import WorkloadState
from gpuyard.model.units import SHARE_WHOLE_PPM
from gpuyard.model.workloads import Workload
from gpuyard.texts import reason_text

Row = dict[str, Any]
MIB: Final = 1 << 20
GROUP: Final = Fixed(GroupId="sg-default", GroupName="default")
UNMONITORED: Final = Fixed(State="disabled")
STATES: Final = {
    WorkloadState.PENDING: (0, "pending"),
    WorkloadState.STARTING: (0, "pending"),
    WorkloadState.RUNNING: (16, "running"),
    WorkloadState.STOPPING: (64, "stopping"),
    WorkloadState.STOPPED: (80, "stopped"),
    WorkloadState.SUCCEEDED: (80, "stopped"),
    WorkloadState.FAILED: (80, "stopped"),
    WorkloadState.REMOVING: (32, "shutting-down"),
    WorkloadState.REMOVED: (48, "terminated"),
}


_SHOWN: Final = {state: Fixed(Code=code, Name=name) for state, (code, name) in STATES.items()}


def state(workload: Workload) -> Row:
    return _SHOWN[nouns.shown_state(workload)]


@lru_cache(maxsize=64)
def placement(region: str) -> Row:
    return Fixed(AvailabilityZone=nouns.zone(region), Tenancy="default")


def tag_list(workload: Workload) -> list[Row]:
    return [{"Key": key, "Value": value} for key, value in nouns.tags_of(workload).items()]


def image_id(workload: Workload) -> str:
    name = nouns.image_of(workload)
    return name if "/" in name or ":" in name else f"ami-{name}"


def instance(workload: Workload, region: str, number: int = 0) -> Row:
    spec = workload.spec
    row: Row = {
        "InstanceId": nouns.outside(workload.id),
        "ImageId": image_id(workload),
        "State": state(workload),
        "PrivateDnsName": "",
        "PublicDnsName": "",
        "StateTransitionReason": "",
        "KeyName": spec.environment.get(nouns.KEY_NAME),
        "AmiLaunchIndex": number,
        "InstanceType": nouns.type_of(workload),
        "LaunchTime": workload.created_us,
        "Placement": placement(region),
        "Monitoring": UNMONITORED,
        "SubnetId": "subnet-default",
        "VpcId": "vpc-default",
        "Architecture": "x86_64",
        "RootDeviceType": "ebs",
        "RootDeviceName": "/dev/sda1",
        "BlockDeviceMappings": [
            {
                "DeviceName": "/dev/sda1",
                "Ebs": {
                    "VolumeId": nouns.outside(workload.id, "vol-"),
                    "Status": "attached",
                    "AttachTime": workload.created_us,
                    "DeleteOnTermination": True,
                },
            }
        ],
        "VirtualizationType": "hvm",
        "Hypervisor": "xen",
        "EbsOptimized": False,
        "SourceDestCheck": True,
        "SecurityGroups": [GROUP],
        "Tags": tag_list(workload),
    }
    if spec.option is PurchaseOption.SPOT:
        row |= {"InstanceLifecycle": "spot", "SpotInstanceRequestId": nouns.outside(workload.id, "sir-")}
    if workload.reason is not None:
        params = {key: str(value) for key, value in workload.reason_params.items()}
        row["StateReason"] = {"Code": f"gpuyard.{workload.reason}", "Message": _reason(workload.reason, params)}
    return row


def _reason(reason: str, params: dict[str, str]) -> str:
    if reason == "waiting_for_slices":
        return "It waits for slices: none that fit are free now."
    return reason_text(reason, "en", {"detail": "--", "exit_code": "--", **params})


def reservation(owner: str, workload: Workload, instances: list[Row]) -> Row:
    return {
        "ReservationId": nouns.outside(workload.id, "r-"),
        "OwnerId": owner,
        "Groups": [],
        "Instances": instances,
    }


def instance_type(offer: Offer, card_count: int = 1) -> Row:
    """An offer. A slice is told as EC2 tells its own: no whole GPU, one logical one, and the part of a card that it
    is. What is not measured here is left out."""
    share = max(offer.shape.compute_ppm, 1)
    whole = share >= SHARE_WHOLE_PPM
    memory = offer.shape.memory_bytes // MIB
    vcpus = max(1, offer.cpu_milli // 1000)
    gpu: Row = {
        "Name": offer.card_model,
        "Manufacturer": "AMD" if offer.card_model.upper().startswith("MI") else "NVIDIA",
        "Count": card_count if whole else 0,
        "LogicalGpuCount": card_count,
        "GpuPartitionSize": share / SHARE_WHOLE_PPM,
        "MemoryInfo": {"SizeInMiB": memory},
    }
    return {
        "InstanceType": offer.name,
        "CurrentGeneration": True,
        "FreeTierEligible": False,
        "SupportedUsageClasses": ["on-demand", "spot"],
        "SupportedRootDeviceTypes": ["ebs"],
        "SupportedVirtualizationTypes": ["hvm"],
        "BareMetal": False,
        "ProcessorInfo": {"SupportedArchitectures": ["x86_64"]},
        "VCpuInfo": {"DefaultVCpus": vcpus, "DefaultCores": vcpus, "DefaultThreadsPerCore": 1},
        "MemoryInfo": {"SizeInMiB": offer.memory_bytes // MIB},
        "InstanceStorageSupported": False,
        "GpuInfo": {"Gpus": [gpu], "TotalGpuMemoryInMiB": memory * card_count},
        "HibernationSupported": False,
        "BurstablePerformanceSupported": False,
        "DedicatedHostsSupported": False,
        "AutoRecoverySupported": False,
    }
