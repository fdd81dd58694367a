"""Nouns as plain values for the wire; see `schemas` for what each field means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gpuyard.billing.rating import Line
from gpuyard.control.confidentiality import Confidentiality, Level, of_instance
from gpuyard.control.yard import Yard
from gpuyard.engines.runtime import Isolation, Observation
from gpuyard.model.events import Event
from gpuyard.model.fleet import Card, Node
from gpuyard.model.leases import Interval, Lease
from gpuyard.model.offers import Offer
from gpuyard.model.times import to_text
from gpuyard.model.units import SECOND_US, SHARE_WHOLE_PPM, format_money, format_price, format_share, format_size
from gpuyard.model.workloads import Workload, WorkloadSpec
from gpuyard.slicing.ladder import left_open
from gpuyard.store.attestations import Attestation
from gpuyard.texts import reason_text, text

View = dict[str, object]
ABSENT = "--"
# What keeps a workload waiting although no node was asked.
_HOLDS = frozenset({"quota", "spot_room", "queued", "outbid", "volume_key", "no_cpu_only_price"})


def reason_view(reason: str | None, params: Mapping[str, object], language: str) -> str | None:
    """The sentence of a reason; a refusal is told node by node."""
    if reason is None:
        return None
    if reason != "waiting_for_slices":
        return reason_text(reason, language, params)
    shortfalls = params.get("shortfalls")
    told = [shortfall_text(lack, language) for lack in shortfalls] if isinstance(shortfalls, list) else []
    more = params.get("more_nodes")
    if more:
        told.append(f"+{more}")
    if isinstance(shortfalls, list) and {lack.get("lacks") for lack in shortfalls} <= _HOLDS:
        return reason_text("waiting_for_turn", language, {"shortfalls": "; ".join(told)})
    return reason_text(
        reason, language, {"shortfalls": "; ".join(told) or "--", "suggestion": suggestion(params, language)}
    )


def shortfall_text(lack: Mapping[str, object], language: str) -> str:
    """What one node lacked, with sizes and shares spelt out."""
    shown = dict(lack)
    key = str(shown.pop("lacks"))
    if isinstance(shown.get("share"), int):
        shown["share"] = format_share(int(str(shown["share"])))
    if key in {"quota", "spot_room"}:
        for name in ("quota", "held", "wanted", "room"):
            if isinstance(shown.get(name), int):
                shown[name] = f"{int(str(shown[name])) / SHARE_WHOLE_PPM:g}"
        shown = {name: ABSENT if value is None else value for name, value in shown.items()}
    sizes = ("quota_memory", "held_memory", "wanted_memory", *(("free", "wanted") if key == "no_memory" else ()))
    for name in ("memory", *sizes):
        if isinstance(shown.get(name), int):
            shown[name] = format_size(int(str(shown[name])))
    return reason_text(key, language, shown)


def suggestion(params: Mapping[str, object], language: str) -> str:
    """What would fit now, or that waiting or asking for less is all there is."""
    if not params.get("ever", True):
        return reason_text("suggest_never", language)
    memory, share = params.get("fits_memory_bytes"), params.get("fits_compute_ppm")
    if isinstance(memory, int) and isinstance(share, int):
        return reason_text("suggest_shape", language, {"memory": format_size(memory), "share": format_share(share)})
    return reason_text("suggest_wait", language)


def isolation_view(isolation: Isolation, language: str) -> View:
    return {
        "enforces": [text(f"isolation.{key}", language) for key in isolation.enforces],
        "not_protected": [text(f"isolation.{key}", language) for key in isolation.not_protected],
    }


def lease_view(lease: Lease, runtime: str, language: str) -> View:
    """`runtime`: the one that runs the lease's workload."""
    return {
        "id": lease.id,
        "workload_id": lease.workload_id,
        "tenant_id": lease.tenant_id,
        "replica": lease.replica,
        "state": lease.state.value,
        "run": lease.run,
        "attempt": lease.attempt,
        "restarts": lease.restarts,
        "option": lease.option.value,
        "node": lease.node,
        "slices": [
            {
                "card_uuid": cut.card_uuid,
                "memory_bytes": cut.shape.memory_bytes,
                "compute_ppm": cut.shape.compute_ppm,
                "guarantee": cut.guarantee.value,
                "not_protected": [
                    text(f"guarantee.{key}", language) for key in left_open(cut.guarantee, runtime, cut.mig is not None)
                ],
                "instance": None if cut.mig is None else str(cut.mig),
            }
            for cut in lease.slices
        ],
        "price_per_hour": format_price(lease.terms.active_per_hour_nano) if lease.terms else None,
        "currency": lease.terms.currency if lease.terms else None,
        "exit_code": lease.exit_code,
        "reason": lease.reason,
        "reason_text": reason_view(
            lease.reason, {"exit_code": lease.exit_code, "detail": lease.detail or "--"}, language
        ),
        "created_at": to_text(lease.created_us),
        "updated_at": to_text(lease.updated_us),
    }


def confidentiality_view(found: Confidentiality, language: str) -> View:
    until = None if found.until_us is None else to_text(found.until_us)
    key = found.because if found.level is Level.NONE else f"{found.level.value}.{found.because}"
    return {
        "level": found.level.value,
        "because": found.because,
        "text": text(f"confidentiality.{key}", language, until=until or ABSENT),
        "until": until,
    }


def workload_view(
    yard: Yard, workload: Workload, leases: Sequence[Lease], attested: Sequence[Attestation], language: str
) -> View:
    isolation = yard.engine.isolation(workload.runtime)
    return {
        "id": workload.id,
        "tenant_id": workload.tenant_id,
        "name": workload.name,
        "kind": workload.spec.kind.value,
        "state": workload.state.value,
        "desired": workload.desired.value,
        "reason": workload.reason,
        "reason_text": reason_view(workload.reason, workload.reason_params, language),
        "exit_code": workload.exit_code,
        "runtime": workload.runtime,
        "cpu_only": workload.cpu_only,
        "cpu_milli": workload.cpu_milli,
        "memory_bytes": workload.memory_bytes,
        "isolation": isolation_view(isolation, language) if isolation else {"enforces": [], "not_protected": []},
        "confidentiality": confidentiality_view(of_instance(leases, attested, yard.clock.now_us()), language),
        "spec": spec_view(workload.spec),
        "leases": [lease_view(lease, workload.runtime, language) for lease in leases],
        "endpoints": endpoints(leases, yard.seen),
        "created_at": to_text(workload.created_us),
        "updated_at": to_text(workload.updated_us),
    }


def endpoints(leases: Sequence[Lease], seen: Mapping[str, Observation]) -> list[View]:
    """Where the ports of running replicas answer, on the yard's own machine."""
    found: list[View] = []
    for lease in leases:
        observation = seen.get(lease.unit_name)
        if observation is None or lease.state != "active":
            continue
        for port, (host, host_port) in observation.ports.items():
            found.append({"replica": lease.replica, "port": port, "address": f"{host}:{host_port}"})
    return found


def spec_view(spec: WorkloadSpec) -> View:
    return {
        "command": list(spec.command),
        "image": spec.image,
        "environment": dict(spec.environment),
        "secret_names": list(spec.secret_names),
        "mounts": [
            {"volume": m.volume, "path": m.path, "read_only": m.read_only, "encrypted": m.encrypted}
            for m in spec.mounts
        ],
        "ports": list(spec.ports),
        "working_directory": spec.working_directory,
        "cpu_milli": spec.cpu_milli,
        "memory_bytes": spec.memory_bytes,
        "disk_bytes": spec.disk_bytes,
        "replicas": spec.replicas,
        "restart": spec.restart.value,
        "max_restarts": spec.max_restarts,
        "stop_grace_us": spec.stop_grace_us,
        "time_limit_us": spec.time_limit_us,
        "checkpoint_command": list(spec.checkpoint_command),
        "labels": dict(spec.labels),
        "option": spec.option.value,
        "max_price": None if spec.max_price_nano is None else format_price(spec.max_price_nano),
        "priority": spec.priority,
        "when_reclaimed": spec.when_reclaimed.value,
        "slices": {
            "offer": spec.slices.offer,
            "card_model": spec.slices.card_model,
            "memory_bytes": spec.slices.shape.memory_bytes,
            "compute_ppm": spec.slices.shape.compute_ppm,
            "count": spec.slices.count,
            "sharing": spec.slices.sharing.value,
        },
    }


def offer_view(offer: Offer, language: str) -> View:
    return {
        "name": offer.name,
        "card_model": offer.card_model,
        "memory_bytes": offer.shape.memory_bytes,
        "compute_ppm": offer.shape.compute_ppm,
        "cpu_milli": offer.cpu_milli,
        "ram_bytes": offer.memory_bytes,
        "guarantee": offer.guarantee.value,
        "not_protected": [text(f"guarantee.{key}", language) for key in offer.not_protected],
        "price_per_hour": format_price(offer.price_per_hour_nano),
        "currency": offer.currency,
        "available": offer.available,
    }


def node_view(node: Node) -> View:
    return {
        "name": node.name,
        "state": node.state.value,
        "cpu_milli": node.cpu_milli,
        "memory_bytes": node.memory_bytes,
        "cards": len(node.cards),
        "rack": node.rack,
        "region": node.region,
        "simulated": node.simulated,
    }


def card_view(card: Card, used: tuple[int, int], leases: int) -> View:
    return {
        "uuid": card.uuid,
        "model": card.model,
        "node": card.node,
        "pci_address": card.pci_address,
        "state": card.state.value,
        "simulated": card.simulated,
        "memory_bytes": card.memory_bytes,
        "memory_free_bytes": card.memory_bytes - used[0],
        "compute_free_ppm": 1_000_000 - used[1],
        "leases": leases,
    }


def line_view(line: Line) -> View:
    return {
        "tenant_id": line.tenant_id,
        "workload_id": line.workload_id,
        "workload_name": line.workload_name,
        "lease_id": line.lease_id,
        "offer": line.offer,
        "day": line.day,
        "what": line.what,
        "seconds": seconds_text(line.duration_us),
        "price_per_hour": format_price(line.price_per_hour_nano),
        "amount": format_money(line.amount_nano),
        "currency": line.currency,
        "bytes": line.quantity_bytes if line.what == "egress" else None,
        "origin": line.origin or None,
    }


def seconds_text(duration_us: int) -> str:
    """Seconds with all six decimals, exact."""
    return f"{duration_us // SECOND_US}.{duration_us % SECOND_US:06d}"


def interval_view(interval: Interval) -> View:
    return {
        "lease_id": interval.lease_id,
        "sequence": interval.sequence,
        "tenant_id": interval.tenant_id,
        "workload_id": interval.workload_id,
        "workload_name": interval.workload_name,
        "offer": interval.offer,
        "state": interval.state.value,
        "run": interval.run,
        "start": to_text(interval.start_us),
        "end": to_text(interval.end_us),
        "duration_us": interval.duration_us,
        "node": interval.node,
        "boot_id": interval.boot_id,
        "proof": interval.proof.value,
        "price_per_hour": format_price(interval.price_per_hour_nano),
        "currency": interval.currency,
    }


def event_view(event: Event) -> View:
    return {
        "sequence": event.sequence,
        "kind": event.kind,
        "subject": event.subject,
        "at": to_text(event.at_us),
        "tenant_id": event.tenant_id,
        "actor": event.actor,
        "data": dict(event.data),
    }
