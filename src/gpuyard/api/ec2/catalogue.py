"""What a yard has, in EC2's words: regions, types, images, volumes, and the one network that there is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpuyard.api.asking import Asking
from gpuyard.api.dialects import nouns
from gpuyard.api.dialects.call import Call
from gpuyard.api.dialects.faults import Fault
from gpuyard.api.ec2 import filters, instances, views
from gpuyard.catalog import aliases, images

Asked = dict[str, Any]


def regions(caller: Asking, call: Call, asked: Asked) -> Mapping[str, Any]:
    """The yard's own; the region that the client was set to is the yard as well, whatever it is called."""
    names = asked.get("RegionNames") or list(
        dict.fromkeys([call.claim.region or nouns.REGION, *nouns.regions(caller.yard.roster.nodes)])
    )
    rows = [{"RegionName": name, "Endpoint": name, "OptInStatus": "opt-in-not-required"} for name in names]
    known = {"region-name": filters.field("RegionName"), "opt-in-status": filters.field("OptInStatus")}
    return {"Regions": filters.keep(rows, asked, known)}


def zones(_: Asking, call: Call, asked: Asked) -> Mapping[str, Any]:
    region = call.claim.region or nouns.REGION
    row = {
        "ZoneName": nouns.zone(region),
        "ZoneId": nouns.zone(region),
        "RegionName": region,
        "State": "available",
        "ZoneType": "availability-zone",
        "OptInStatus": "opt-in-not-required",
        "Messages": [],
    }
    known = {"zone-name": filters.field("ZoneName"), "state": filters.field("State")}
    known |= {"region-name": filters.field("RegionName"), "zone-type": filters.field("ZoneType")}
    known |= {"opt-in-status": filters.field("OptInStatus"), "zone-id": filters.field("ZoneId")}
    return {"AvailabilityZones": filters.keep([row], asked, known)}


def types(caller: Asking, _: Call, asked: Asked) -> Mapping[str, Any]:
    offers = {offer.name: offer for offer in nouns.offers(caller.yard)}
    wanted = asked.get("InstanceTypes")
    if wanted:
        known_as = [(name, offers.get(aliases.load().offer(name).lower())) for name in wanted]
        if unknown := [name for name, offer in known_as if offer is None]:
            raise Fault(
                "InvalidInstanceType", f"The following supplied instance types do not exist: [{unknown[0][:80]}]"
            )
        rows = [{**views.instance_type(offer), "InstanceType": name} for name, offer in known_as if offer is not None]
    else:
        rows = [views.instance_type(offer) for offer in offers.values()]
    known = {"instance-type": filters.field("InstanceType"), "bare-metal": filters.field("BareMetal")}
    known["current-generation"] = filters.field("CurrentGeneration")
    known["supported-usage-class"] = lambda row: row["SupportedUsageClasses"]
    known["processor-info.supported-architecture"] = lambda row: row["ProcessorInfo"]["SupportedArchitectures"]
    some, token = filters.page(filters.keep(rows, asked, known), asked, "types")
    return {"InstanceTypes": some, "NextToken": token}


def offerings(caller: Asking, call: Call, asked: Asked) -> Mapping[str, Any]:
    kind = asked.get("LocationType", "region")
    region = call.claim.region or nouns.REGION
    place = region if kind == "region" else nouns.zone(region)
    rows = [
        {"InstanceType": offer.name, "LocationType": kind, "Location": place} for offer in nouns.offers(caller.yard)
    ]
    known = {"instance-type": filters.field("InstanceType"), "location": filters.field("Location")}
    some, token = filters.page(filters.keep(rows, asked, known), asked, "offerings")
    return {"InstanceTypeOfferings": some, "NextToken": token}


def image_list(_: Asking, __: Call, asked: Asked) -> Mapping[str, Any]:
    rows = [
        {
            "ImageId": f"ami-{image.name}",
            "Name": image.name,
            "Description": image.purposes["en"],
            "ImageLocation": image.reference or image.name,
            "State": "available",
            "Public": True,
            "OwnerId": "gpuyard",
            "ImageType": "machine",
            "Architecture": "x86_64",
            "RootDeviceType": "ebs",
            "RootDeviceName": "/dev/sda1",
            "VirtualizationType": "hvm",
            "Hypervisor": "xen",
            "BlockDeviceMappings": [],
            "CreationDate": "1970-01-01T00:00:00.000Z",
        }
        for image in images.load().values()
    ]
    if ids := asked.get("ImageIds"):
        meant = {name: f"ami-{aliases.load().image(name)}" for name in ids}
        by_id = {row["ImageId"]: row for row in rows}
        if unknown := [name for name, real in meant.items() if real not in by_id]:
            raise Fault("InvalidAMIID.NotFound", f"The image id '[{unknown[0][:80]}]' does not exist")
        rows = [{**by_id[real], "ImageId": name} for name, real in meant.items()]
    if owners := set(asked.get("Owners", [])) - {"amazon", "aws-marketplace"}:
        rows = [row for row in rows if row["OwnerId"] in owners]
    known = {"name": filters.field("Name"), "state": filters.field("State"), "image-id": filters.field("ImageId")}
    known |= {"architecture": filters.field("Architecture"), "image-type": filters.field("ImageType")}
    known |= {"root-device-type": filters.field("RootDeviceType"), "is-public": filters.field("Public")}
    known |= {"virtualization-type": filters.field("VirtualizationType"), "owner-id": filters.field("OwnerId")}
    return {"Images": filters.keep(rows, asked, known)}


def volumes(caller: Asking, call: Call, asked: Asked) -> Mapping[str, Any]:
    """Each instance's disk, which comes and goes with it."""
    rows = []
    wanted = asked.get("VolumeIds", [])
    ids = {"InstanceIds": ["i-" + volume.removeprefix("vol-") for volume in wanted]} if wanted else {}
    region = call.claim.region or nouns.REGION
    shown = {row["InstanceId"] for row in instances.listed(caller, call, ids) if row["State"]["Name"] != "terminated"}
    for workload in nouns.find(caller, sorted(shown)):
        mapping = views.instance(workload, region)["BlockDeviceMappings"][0]
        rows.append(
            {
                "VolumeId": mapping["Ebs"]["VolumeId"],
                "Size": -(-workload.spec.disk_bytes // nouns.GIB),
                "State": "in-use",
                "AvailabilityZone": nouns.zone(region),
                "CreateTime": workload.created_us,
                "Encrypted": False,
                "SnapshotId": "",
                "Attachments": [
                    {
                        "VolumeId": mapping["Ebs"]["VolumeId"],
                        "InstanceId": nouns.outside(workload.id),
                        "Device": "/dev/sda1",
                        "State": "attached",
                        "DeleteOnTermination": True,
                    }
                ],
                "Tags": views.tag_list(workload),
            }
        )
    if missing := set(wanted) - {row["VolumeId"] for row in rows}:
        raise Fault("InvalidVolume.NotFound", f"The volume '{sorted(missing)[0][:80]}' does not exist.")
    known = {"volume-id": filters.field("VolumeId"), "status": filters.field("State")}
    known["attachment.instance-id"] = lambda row: [one["InstanceId"] for one in row["Attachments"]]
    some, token = filters.page(filters.keep(rows, asked, known), asked, "volumes")
    return {"Volumes": some, "NextToken": token}


def account(_: Asking, __: Call, asked: Asked) -> Mapping[str, Any]:
    told = {"supported-platforms": "VPC", "default-vpc": "vpc-default"}
    wanted = asked.get("AttributeNames") or list(told)
    rows = [
        {"AttributeName": name, "AttributeValues": [{"AttributeValue": told[name]}]} for name in wanted if name in told
    ]
    return {"AccountAttributes": rows}


def groups(caller: Asking, _: Call, asked: Asked) -> Mapping[str, Any]:
    row = {
        **views.GROUP,
        "Description": "Declared ports only, on the yard's own machine. Its rules cannot be changed.",
        "OwnerId": caller.identity.tenant_id,
        "VpcId": "vpc-default",
        "IpPermissions": [],
        "IpPermissionsEgress": [],
    }
    if unknown := set(asked.get("GroupIds", [])) - {"sg-default"}:
        raise Fault("InvalidGroup.NotFound", f"The security group '{sorted(unknown)[0][:80]}' does not exist")
    known = {"group-id": filters.field("GroupId"), "group-name": filters.field("GroupName")}
    known["vpc-id"] = filters.field("VpcId")
    return {"SecurityGroups": filters.keep([row], asked, known)}


def vpcs(caller: Asking, _: Call, asked: Asked) -> Mapping[str, Any]:
    row = {"VpcId": "vpc-default", "State": "available", "IsDefault": True, "InstanceTenancy": "default"}
    row["OwnerId"] = caller.identity.tenant_id
    if unknown := set(asked.get("VpcIds", [])) - {"vpc-default"}:
        raise Fault("InvalidVpcID.NotFound", f"The vpc ID '{sorted(unknown)[0][:80]}' does not exist")
    known = {"vpc-id": filters.field("VpcId"), "is-default": filters.field("IsDefault")}
    known |= {"isDefault": filters.field("IsDefault"), "state": filters.field("State")}
    return {"Vpcs": filters.keep([row], asked, known)}


def subnets(caller: Asking, call: Call, asked: Asked) -> Mapping[str, Any]:
    row: Asked = {"SubnetId": "subnet-default", "VpcId": "vpc-default", "State": "available", "DefaultForAz": True}
    row["AvailabilityZone"] = nouns.zone(call.claim.region or nouns.REGION)
    row["OwnerId"] = caller.identity.tenant_id
    if unknown := set(asked.get("SubnetIds", [])) - {"subnet-default"}:
        raise Fault("InvalidSubnetID.NotFound", f"The subnet ID '{sorted(unknown)[0][:80]}' does not exist")
    known = {"vpc-id": filters.field("VpcId"), "subnet-id": filters.field("SubnetId")}
    known |= {"availability-zone": filters.field("AvailabilityZone"), "default-for-az": filters.field("DefaultForAz")}
    return {"Subnets": filters.keep([row], asked, known)}
