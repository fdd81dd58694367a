"""What a yard has, in ECS's words: regions, types, images, key pairs, and what there is none of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gpuyard.api.asking import Asking
from gpuyard.api.dialects import nouns
from gpuyard.api.dialects.call import Call
from gpuyard.api.dialects.faults import Fault
from gpuyard.api.ecs.instances import moment, paged
from gpuyard.api.ecs.wire import Parameters
from gpuyard.catalog import images
from gpuyard.control import key_pairs as control_key_pairs
from gpuyard.model.offers import Offer
from gpuyard.model.units import SHARE_WHOLE_PPM
from gpuyard.store import key_pairs

GROUPS: Final = "No runtime of a yard can enforce a security group's rules, so there are none to make or change."
SNAPSHOTS: Final = (
    "A yard keeps an instance's disk until it is deleted and takes no snapshots: copy files with gpuyard cp."
)
REFUSED: Final = {
    "CreateSnapshot": SNAPSHOTS,
    "DeleteSnapshot": SNAPSHOTS,
    "CreateImage": SNAPSHOTS,
    "CreateSecurityGroup": GROUPS,
    "DeleteSecurityGroup": GROUPS,
    "AuthorizeSecurityGroup": GROUPS,
}
NONE: Final = {
    "DescribeSnapshots": {"Snapshots": {"Snapshot": []}},
}


def refuse(_: Asking, call: Call, __: Parameters) -> Mapping[str, Any]:
    raise Fault("UnsupportedOperation", REFUSED[call.action])


def none(_: Asking, call: Call, given: Parameters) -> Mapping[str, Any]:
    return {**paged([], given)[1], **NONE[call.action]}


def regions(caller: Asking, call: Call, _: Parameters) -> Mapping[str, Any]:
    names = dict.fromkeys([call.claim.region or nouns.REGION, *nouns.regions(caller.yard.roster.nodes)])
    rows = [{"RegionId": name, "LocalName": name, "RegionEndpoint": ""} for name in names]
    return {"Regions": {"Region": rows}}


def zones(caller: Asking, call: Call, _: Parameters) -> Mapping[str, Any]:
    zone = nouns.zone(call.claim.region or nouns.REGION)
    types = [offer.name for offer in nouns.offers(caller.yard)]
    row = {"ZoneId": zone, "LocalName": zone, "AvailableInstanceTypes": {"InstanceTypes": types}}
    row["AvailableResourceCreation"] = {"ResourceTypes": ["Instance"]}
    return {"Zones": {"Zone": [row]}}


def _type(offer: Offer) -> Mapping[str, Any]:
    """A slice counts as no whole GPU; its memory is the slice's."""
    return {
        "InstanceTypeId": offer.name,
        "InstanceTypeFamily": offer.card_model.lower(),
        "CpuCoreCount": max(1, offer.cpu_milli // 1000),
        "MemorySize": offer.memory_bytes / nouns.GIB,
        "GPUAmount": 1 if offer.shape.compute_ppm >= SHARE_WHOLE_PPM else 0,
        "GPUSpec": offer.card_model,
        "GPUMemorySize": offer.shape.memory_bytes / nouns.GIB,
        "CpuArchitecture": "X86",
    }


def types(caller: Asking, _: Call, given: Parameters) -> Mapping[str, Any]:
    wanted = set(given.listed("InstanceTypes"))
    rows = [_type(offer) for offer in nouns.offers(caller.yard) if not wanted or offer.name in wanted]
    return {"InstanceTypes": {"InstanceType": rows}, "NextToken": ""}


def available(caller: Asking, call: Call, given: Parameters) -> Mapping[str, Any]:
    region, wanted = call.claim.region or nouns.REGION, given.text("InstanceType")
    supported = [
        {
            "Value": offer.name,
            "Status": "Available" if offer.available else "SoldOut",
            "StatusCategory": "WithStock" if offer.available else "WithoutStock",
        }
        for offer in nouns.offers(caller.yard)
        if wanted in (None, offer.name)
    ]
    resource = {"Type": "InstanceType", "SupportedResources": {"SupportedResource": supported}}
    zone = {
        "RegionId": region,
        "ZoneId": nouns.zone(region),
        "Status": "Available",
        "AvailableResources": {"AvailableResource": [resource]},
    }
    return {"AvailableZones": {"AvailableZone": [zone]}}


def image_list(_: Asking, __: Call, given: Parameters) -> Mapping[str, Any]:
    wanted = given.text("ImageId")
    rows = [
        {
            "ImageId": f"m-{image.name}",
            "ImageName": image.name,
            "Description": image.purposes["en"],
            "Status": "Available",
            "OSType": "linux",
            "Architecture": "x86_64",
            "ImageOwnerAlias": "system",
        }
        for image in images.load().values()
        if wanted is None or image.name in wanted.split(",") or f"m-{image.name}" in wanted.split(",")
    ]
    some, counts = paged(rows, given)
    return {**counts, "Images": {"Image": some}}


def groups(_: Asking, __: Call, given: Parameters) -> Mapping[str, Any]:
    told = "Declared ports only, on the yard's own machine. Its rules cannot be changed."
    row = {"SecurityGroupId": "sg-default", "SecurityGroupName": "default", "VpcId": "vpc-default", "Description": told}
    some, counts = paged([row], given)
    return {**counts, "SecurityGroups": {"SecurityGroup": some}}


def vpcs(_: Asking, call: Call, given: Parameters) -> Mapping[str, Any]:
    row = {"VpcId": "vpc-default", "Status": "Available", "IsDefault": True, "RegionId": call.claim.region or ""}
    some, counts = paged([row], given)
    return {**counts, "Vpcs": {"Vpc": some}}


def create_pair(caller: Asking, _: Call, given: Parameters) -> Mapping[str, Any]:
    who, name = caller.identity, given.needed("KeyPairName")[:128]
    pair, private = control_key_pairs.create(caller.yard, who.tenant_id, name, True, who.user)
    return {
        "KeyPairId": pair.id,
        "KeyPairName": pair.name,
        "KeyPairFingerPrint": pair.fingerprint,
        "PrivateKeyBody": private,
    }


def import_pair(caller: Asking, _: Call, given: Parameters) -> Mapping[str, Any]:
    who, name = caller.identity, given.needed("KeyPairName")[:128]
    pair = control_key_pairs.bring(caller.yard, who.tenant_id, name, given.needed("PublicKeyBody"), who.user)
    return {"KeyPairName": pair.name, "KeyPairFingerPrint": pair.fingerprint}


def pairs(caller: Asking, _: Call, given: Parameters) -> Mapping[str, Any]:
    with caller.yard.store.read() as c:
        found = key_pairs.listing(c, caller.identity.tenant_id)
    name = given.text("KeyPairName")
    some, counts = paged([pair for pair in found if name in (None, pair.name)], given)
    rows = [
        {
            "KeyPairId": pair.id,
            "KeyPairName": pair.name,
            "KeyPairFingerPrint": pair.fingerprint,
            "CreationTime": moment(pair.created_us),
        }
        for pair in some
    ]
    return {**counts, "KeyPairs": {"KeyPair": rows}}


def delete_pairs(caller: Asking, _: Call, given: Parameters) -> Mapping[str, Any]:
    for name in given.listed("KeyPairNames"):
        control_key_pairs.delete(caller.yard, caller.identity.tenant_id, name, caller.identity.user)
    return {}
