"""Tags are labels, and key pairs are a tenant's public keys."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from gpuyard.api.asking import Asking
from gpuyard.api.dialects import nouns
from gpuyard.api.dialects.call import Call
from gpuyard.api.dialects.faults import Fault
from gpuyard.api.ec2 import filters, instances
from gpuyard.control import key_pairs as control_key_pairs
from gpuyard.control.labelling import relabel
from gpuyard.model.errors import YardError
from gpuyard.store import key_pairs
from gpuyard.store.key_pairs import KeyPair

Asked = dict[str, Any]


def _resources(caller: Asking, asked: Asked) -> list[str]:
    """The workloads behind instances and behind their disks."""
    ids = ["i-" + one.removeprefix("vol-") if one.startswith("vol-") else one for one in asked.get("Resources", [])]
    if not ids:
        raise Fault("MissingParameter", "The request must contain the parameter ResourceId")
    return [workload.id for workload in nouns.find(caller, ids)]


def create(caller: Asking, _: Call, asked: Asked) -> Mapping[str, Any]:
    tags = {tag.get("Key", ""): tag.get("Value", "") for tag in asked.get("Tags", [])}
    if not tags or any(not 0 < len(key) <= 128 or len(value) > 256 for key, value in tags.items()):
        raise Fault("InvalidParameterValue", "Give tags with keys of 1 to 128 characters and values up to 256.")
    relabel(caller.yard, _resources(caller, asked), lambda labels: {**labels, **tags}, caller.identity.user)
    return {}


def delete(caller: Asking, _: Call, asked: Asked) -> Mapping[str, Any]:
    wanted = asked.get("Tags")

    def change(labels: Mapping[str, str]) -> Mapping[str, str]:
        if not wanted:
            return {}
        goes = {tag["Key"] for tag in wanted if "Value" not in tag or labels.get(tag["Key"]) == tag["Value"]}
        return {key: value for key, value in labels.items() if key not in goes}

    relabel(caller.yard, _resources(caller, asked), change, caller.identity.user)
    return {}


def describe(caller: Asking, call: Call, asked: Asked) -> Mapping[str, Any]:
    rows = [
        {"ResourceId": row["InstanceId"], "ResourceType": "instance", **tag}
        for row in instances.listed(caller, call, {})
        for tag in row["Tags"]
    ]
    known = {"resource-id": filters.field("ResourceId"), "resource-type": filters.field("ResourceType")}
    known |= {"key": filters.field("Key"), "value": filters.field("Value")}
    some, token = filters.page(filters.keep(rows, asked, known), asked, "tags")
    return {"Tags": some, "NextToken": token}


def _pair(pair: KeyPair) -> Asked:
    return {"KeyName": pair.name, "KeyPairId": pair.id, "KeyFingerprint": pair.fingerprint}


def _name(asked: Asked) -> str:
    name = asked.get("KeyName", "")
    if not 0 < len(name) <= 255:
        raise Fault("InvalidParameterValue", "KeyName must have 1 to 255 characters.")
    return name


def create_pair(caller: Asking, _: Call, asked: Asked) -> Mapping[str, Any]:
    who, is_rsa = caller.identity, asked.get("KeyType", "rsa") == "rsa"
    pair, private = control_key_pairs.create(caller.yard, who.tenant_id, _name(asked), is_rsa, who.user)
    return {**_pair(pair), "KeyMaterial": private}


def import_pair(caller: Asking, _: Call, asked: Asked) -> Mapping[str, Any]:
    try:
        public = base64.b64decode(asked.get("PublicKeyMaterial", ""), validate=True).decode()
    except (binascii.Error, UnicodeError):
        raise YardError("invalid_public_key") from None
    who = caller.identity
    return _pair(control_key_pairs.bring(caller.yard, who.tenant_id, _name(asked), public, who.user))


def describe_pairs(caller: Asking, _: Call, asked: Asked) -> Mapping[str, Any]:
    with caller.yard.store.read() as c:
        found = key_pairs.listing(c, caller.identity.tenant_id)
    names, ids = asked.get("KeyNames"), asked.get("KeyPairIds")
    for wanted, has in ((names, {p.name for p in found}), (ids, {p.id for p in found})):
        if missing := set(wanted or ()) - has:
            raise YardError("key_pair_not_found", name=sorted(missing)[0][:200])
    found = [p for p in found if (not names or p.name in names) and (not ids or p.id in ids)]
    rows = [{**_pair(pair), "CreateTime": pair.created_us} for pair in found]
    known = {"key-name": filters.field("KeyName"), "fingerprint": filters.field("KeyFingerprint")}
    known["key-pair-id"] = filters.field("KeyPairId")
    return {"KeyPairs": filters.keep(rows, asked, known)}


def delete_pair(caller: Asking, _: Call, asked: Asked) -> Mapping[str, Any]:
    """What is not there is deleted: as EC2 has it."""
    name = asked.get("KeyName")
    if name is None:
        with caller.yard.store.read() as c:
            found = key_pairs.listing(c, caller.identity.tenant_id)
        name = next((pair.name for pair in found if pair.id == asked.get("KeyPairId")), None)
    if name is not None:
        control_key_pairs.delete(caller.yard, caller.identity.tenant_id, name, caller.identity.user)
    return {"Return": True}
