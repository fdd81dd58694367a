"""The yard's nouns as both clouds see them: ids, types, images, zones, and the launch of instances."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from gpuyard.access.rules import Action
from gpuyard.api.asking import START, Asking, facts_of
from gpuyard.api.dialects.faults import Fault
from gpuyard.api.may_launch import must_be_allowed, must_be_inside
from gpuyard.catalog import aliases, images
from gpuyard.control import commands
from gpuyard.control.launching import Launch, launch_many, prepare, recall_launch
from gpuyard.control.offering import SliceWish, free_slots, list_offers
from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.fleet import Node
from gpuyard.model.leases import REBOOTING, PurchaseOption
from gpuyard.model.offers import Offer
from gpuyard.model.states import WorkloadState
from gpuyard.model.workloads import WhenReclaimed, Workload, WorkloadKind
from gpuyard.store import key_pairs, workloads

REGION = "yard"  # of nodes that were given none
GIB = 1 << 30
NOT_ENCRYPTED = (
    "A yard has no keys of its own to encrypt disks with: leave it out, and keep what nobody who holds its machine's "
    "disk may read on a volume that is encrypted with a key of yours (gpuyard volumes, POST /v1/volumes)."
)
NOT_CONFIDENTIAL = (
    "An instance is not confidential until evidence of its machine was verified: leave this out, and hand evidence in "
    "with `gpuyard attest` once it runs."
)
MOST_AT_ONCE = 100
MAX_TAGS = 50
_FINISHED = frozenset({WorkloadState.SUCCEEDED, WorkloadState.FAILED})
USER_DATA = "GPUYARD_USER_DATA"
PUBLIC_KEY, KEY_NAME = "GPUYARD_PUBLIC_KEY", "GPUYARD_KEY_NAME"
# Once per disk, as cloud images do: a stopped instance that starts again finds the file and goes on.
_START = (
    f'if [ ! -e .user-data ]; then printf %s "${USER_DATA}" > .user-data && chmod 700 .user-data && ./.user-data; fi; '
    "exec sleep infinity"
)


def outside(workload_id: str, prefix: str = "i-") -> str:
    """`wl-06f...` is `i-06f...` outside, and its disk `vol-06f...`."""
    return prefix + workload_id.removeprefix("wl-")


def inside(instance_id: str, prefix: str = "i-") -> str:
    """The workload's id behind another noun's."""
    return "wl-" + instance_id.removeprefix(prefix)


def find(caller: Asking, instance_ids: Sequence[str]) -> list[Workload]:
    """The caller's own workloads of these ids, each once.

    Raises YardError `workload_not_found`: another tenant's id is as good as none.
    """
    found: list[Workload] = []
    with caller.yard.store.read() as c:
        for instance_id in dict.fromkeys(instance_ids):
            workload = workloads.get(c, inside(instance_id)) if instance_id.startswith("i-") else None
            if workload is None or workload.tenant_id != caller.identity.tenant_id:
                raise YardError("workload_not_found", workload=instance_id[:100])
            found.append(workload)
    return found


def must(caller: Asking, takes: Action, verb: str, instance_ids: Sequence[str] = ()) -> None:
    """Holds a request against roles, policies and geography: each instance that it names, or all where it names none.

    What is not the caller's is left to `find`. Raises YardError as `Asking.must` and `Asking.must_be_inside` do.
    """
    owner = caller.identity.tenant_id
    ids = [inside(one) for one in dict.fromkeys(instance_ids) if one.startswith("i-")]
    known: list[Workload | None] = []
    if ids:  # most requests name none, and need not ask the store
        with caller.yard.store.read() as c:
            known = [workloads.get(c, one) for one in ids]
    named = [workload for workload in known if workload is not None and workload.tenant_id == owner]
    if not named:
        caller.must(takes, None if takes is Action.READ_FLEET else owner, verb=verb)
    for workload in named:
        caller.must(takes, owner, verb=verb, about=workload.id, facts=facts_of(workload.spec))
        if verb == START:
            caller.must_be_inside(takes, owner, workload.spec, verb, workload.id)


def change(caller: Asking, found: Sequence[Workload], command: commands.Commands) -> list[Workload]:
    """Asks all of them in one transaction, or none where one cannot; as they are then. A job that has finished is as
    good as stopped, which is what both clouds are shown.

    Raises YardError.
    """
    asked = found if command is not commands.stop_each else [w for w in found if w.state not in _FINISHED]
    after = command(caller.yard, [workload.id for workload in asked], caller.identity.user) if asked else []
    changed = {workload.id: workload for workload in after}
    return [changed.get(workload.id, workload) for workload in found]


def shown_state(workload: Workload) -> WorkloadState:
    """Its state; what is rebooted goes on running, as both clouds tell it."""
    if workload.state is WorkloadState.STARTING and workload.reason == REBOOTING:
        return WorkloadState.RUNNING
    return workload.state


def type_of(workload: Workload) -> str:
    """Its offer's name."""
    return workload.spec.slices.offer or "custom"


def image_of(workload: Workload) -> str:
    """The catalogue's name of its image, or the reference itself."""
    if workload.spec.image is None:
        return images.HOST
    known = (image.name for image in images.load().values() if image.reference == workload.spec.image)
    return next(known, workload.spec.image)


def tags_of(workload: Workload) -> dict[str, str]:
    """Its labels, its name where no label says another, and its kind where it is no instance."""
    tags = {"Name": workload.name, **workload.spec.labels}
    if workload.spec.kind is not WorkloadKind.INSTANCE:
        tags["gpuyard:kind"] = workload.spec.kind.value
    return tags


def offers(yard: Yard) -> list[Offer]:
    """What could be launched, with how many."""
    with yard.store.read() as c:
        return list_offers(yard, c)


def regions(nodes: Sequence[Node]) -> list[str]:
    """Where the yard's nodes stand."""
    return sorted({node.region or REGION for node in nodes}) or [REGION]


def zone(region: str) -> str:
    """Each region is one zone."""
    return f"{region}-a"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Instances as either cloud asks for them."""

    type: str
    image: str
    least: int
    most: int
    asked: Mapping[str, object]  # all of the request that decides what comes of it
    key: str | None = None  # what makes it the same request again
    key_name: str | None = None
    user_data: str | None = field(default=None, repr=False)
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    disk_bytes: int | None = None
    option: PurchaseOption = PurchaseOption.ON_DEMAND
    when_reclaimed: WhenReclaimed = WhenReclaimed.WAIT
    max_price_nano: int | None = None  # a bid on spot, for an hour of one instance
    may_wait: bool = False  # launched even where nothing is free now, to wait in the queue


def fingerprint(asked: Mapping[str, object]) -> str:
    """The same for the same request."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()


def launch(caller: Asking, wanted: Wanted, dry: bool) -> list[Workload]:
    """Launches `most`, or as many as could be granted now if that is at least `least`; all in one transaction.

    With `dry`, everything is checked and nothing changed. Raises YardError and Fault.
    """
    yard, tenant = caller.yard, caller.tenant(None)
    wish = _wish(wanted)
    must_be_allowed(caller, tenant.id, wish)
    must_be_inside(caller, tenant.id, wish)
    mark = fingerprint(wanted.asked)
    if wanted.key is not None and not dry and (known := recall_launch(yard, tenant.id, wanted.key, mark)):
        return known
    if not 1 <= wanted.least <= wanted.most <= MOST_AT_ONCE:
        raise Fault(
            "InvalidParameterValue", f"Ask for 1 to {MOST_AT_ONCE} instances, and for no more at least than at most."
        )
    if len(wanted.tags) > MAX_TAGS or any(not 0 < len(k) <= 128 or len(v) > 256 for k, v in wanted.tags.items()):
        raise Fault(
            "InvalidParameterValue", f"At most {MAX_TAGS} tags, with keys of 1 to 128 characters and values up to 256."
        )
    wish = replace(wish, environment=_environment(caller, wanted))
    prepare(yard, wish)
    free = wanted.most
    if not wanted.may_wait:
        with yard.store.read() as c:
            free = free_slots(yard, c, wish.slices.offer)
    if free < wanted.least:
        raise YardError("no_capacity", free=free, offer=wish.slices.offer, wanted=wanted.least)
    if dry:
        return []
    count = min(wanted.most, free)
    return launch_many(yard, tenant, caller.identity.user, wish, count, wanted.key, mark)[0]


def _environment(caller: Asking, wanted: Wanted) -> dict[str, str]:
    if wanted.key_name is None:
        return {}
    with caller.yard.store.read() as c:
        pair = key_pairs.find(c, caller.identity.tenant_id, wanted.key_name)
    if pair is None:
        raise YardError("key_pair_not_found", name=wanted.key_name[:200])
    return {KEY_NAME: pair.name, PUBLIC_KEY: pair.public_key}


def _wish(wanted: Wanted) -> Launch:
    data = wanted.user_data
    known = aliases.load()
    return Launch(
        kind=WorkloadKind.INSTANCE,
        slices=SliceWish(offer=known.offer(wanted.type).lower()),
        image=known.image(wanted.image),
        command=("/bin/sh", "-c", _START) if data and data.startswith("#!") else (),
        secrets={USER_DATA: data} if data else {},
        labels=dict(wanted.tags),
        disk_bytes=wanted.disk_bytes,
        option=wanted.option,
        when_reclaimed=wanted.when_reclaimed,
        max_price_nano=wanted.max_price_nano,
    )
