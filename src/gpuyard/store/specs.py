"""A workload's spec as JSON text and back, exactly."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import lru_cache

from gpuyard.model.leases import PurchaseOption
from gpuyard.model.sharing import Sharing
from gpuyard.model.slices import SliceShape
from gpuyard.model.workloads import Mount, RestartPolicy, SliceRequest, WhenReclaimed, WorkloadKind, WorkloadSpec


def to_json(spec: WorkloadSpec) -> str:
    """Compact JSON with sorted keys: the same spec always gives the same text."""
    return json.dumps(asdict(spec), sort_keys=True, separators=(",", ":"))


@lru_cache(maxsize=4096)
def from_json(text: str) -> WorkloadSpec:
    """The spec of a text. Specs never change, so each text is parsed once."""
    values = json.loads(text)
    wish = values.pop("slices")
    return WorkloadSpec(
        kind=WorkloadKind(values.pop("kind")),
        command=tuple(values.pop("command")),
        slices=SliceRequest(
            SliceShape(**wish.pop("shape")),
            wish["card_model"],
            count=wish["count"],
            offer=wish["offer"],
            mig=wish.get("mig", False),  # specs of older yards do not say, and neither of how cards are shared
            sharing=Sharing(wish.get("sharing", Sharing.SHARED)),
        ),
        secret_names=tuple(values.pop("secret_names")),
        mounts=tuple(Mount(**mount) for mount in values.pop("mounts")),
        ports=tuple(values.pop("ports")),
        restart=RestartPolicy(values.pop("restart")),
        checkpoint_command=tuple(values.pop("checkpoint_command")),
        option=PurchaseOption(values.pop("option", PurchaseOption.ON_DEMAND)),  # specs of older yards have none
        when_reclaimed=WhenReclaimed(values.pop("when_reclaimed", WhenReclaimed.WAIT)),
        **values,
    )
