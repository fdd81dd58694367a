"""An explanation in words and facts."""

from __future__ import annotations

from gpuyard.api import views
from gpuyard.control.explaining import Wait, Why, shown_terms
from gpuyard.model.leases import Lease, PurchaseOption
from gpuyard.model.times import to_text
from gpuyard.model.units import SECOND_US, SHARE_WHOLE_PPM
from gpuyard.store.placements import PlacementRow
from gpuyard.texts import text

_DOMAINS = frozenset({"island", "node", "rack", "fleet"})
_MOVED = frozenset({"moved_blocked", "moved_low_load", "moved_peak", "moved_back"})
_SCHEDULERS = frozenset({"mig", "best_fit", "fragmentation_aware", "nearest"})


def why_view(told: Why, language: str) -> views.View:
    """What `GET /v1/workloads/{workload}/why` answers."""
    workload = told.workload
    lines: list[str] = []
    for lease, row in told.placed:
        lines += _placed_lines(lease, row, language)
    for row in told.reclaimed:
        at = to_text(row.reclaimed_us or 0)
        lines.append(text("why.reclaimed", language, times=row.reclaims, at=at))
    for lease, move in told.moving:
        ways = {"replica": lease.replica, "start": move.start.node, "end": move.end.node}
        lines.append(text("why.moving", language, **ways))
    if told.making_room:
        lines.append(text("why.room_is_made", language, count=told.making_room))
    if told.wait is not None:
        lines += _wait_lines(told, told.wait, language)
    if not lines:
        reason = views.reason_view(workload.reason, workload.reason_params, language)
        lines.append(reason or text("why.nothing", language, state=workload.state.value))
    return {
        "workload_id": workload.id,
        "name": workload.name,
        "state": workload.state.value,
        "lines": lines,
        "placements": [_placement(lease, row) for lease, row in told.placed],
        "waiting": None if told.wait is None else _waiting(told.wait, workload.reason_params.get("shortfalls")),
    }


def _placed_lines(lease: Lease, row: PlacementRow, language: str) -> list[str]:
    cards = ", ".join(f"{cut.card_uuid} {cut.mig or ''}".rstrip() for cut in lease.slices)
    waited = _seconds(row.why.get("waited_us"))
    facts = {"replica": lease.replica, "node": lease.node, "cards": cards, "waited": waited}
    scheduler = row.why.get("scheduler")
    if scheduler in _MOVED:
        moved = {"replica": lease.replica, "node": lease.node, "cards": cards, "start": row.why.get("from", "--")}
        return [text(f"why.{scheduler}", language, **moved), text("why.move_free", language), *_near(row, language)]
    lines = [text("why.placed", language, **facts)]
    if scheduler in _SCHEDULERS:
        lines.append(text(f"why.scheduler.{scheduler}", language))
    terms = dict(shown_terms(row))
    terms.pop("instance", None)  # said with its card
    domain, link = terms.pop("domain", None), terms.pop("worst_link", None)
    if domain in _DOMAINS:
        lines.append(text(f"why.domain.{domain}", language))
    if link is not None:
        lines.append(text("why.link", language, link=link))
    lines += _near(row, language)
    if terms.pop("sharing", None) == "alone":
        lines.append(text("why.alone", language))
    if terms:
        told = ", ".join(_term(key, terms[key], language) for key in sorted(terms))
        lines.append(text("why.terms", language, terms=told))
    if lease.option is PurchaseOption.SPOT:
        lines.append(text("why.spot", language))
    if row.notice is not None:
        lines.append(text("why.notice", language, until=to_text(row.notice.until_us)))
    return lines


def _term(key: str, value: object, language: str) -> str:
    """A term by its name in the placement's record and in words; kept in millionths of a card, told in cards."""
    in_cards = f"{value / SHARE_WHOLE_PPM:.3f}" if isinstance(value, int) else str(value)
    return f"{text(f'why.term.{key}', language)} ({key}) {in_cards}"


def _near(row: PlacementRow, language: str) -> list[str]:
    cpus = row.why.get("cpus")
    return [] if cpus is None else [text("why.cpus", language, cpus=cpus)]


def _wait_lines(told: Why, wait: Wait, language: str) -> list[str]:
    lines: list[str] = []
    if wait.position is None:
        lines.append(text("why.unplanned", language))
    else:
        lines.append(text("why.position", language, position=wait.position + 1, length=wait.length))
    if told.workload.reason == "waiting_for_slices":
        reason = views.reason_view(told.workload.reason, told.workload.reason_params, language)
        lines.append(reason or "--")
    if wait.never:
        lines.append(text("why.never", language))
    elif wait.start_us is not None:
        key = "why.start_kept" if wait.kept else "why.start"
        lines.append(text(key, language, at=to_text(wait.start_us)))
    else:
        lines.append(text("why.start_kept_open" if wait.kept else "why.start_unknown", language))
    lines += [text(f"why.change.{key}", language) for key in wait.changes]
    return lines


def _placement(lease: Lease, row: PlacementRow) -> views.View:
    return {
        "replica": lease.replica,
        "lease_id": lease.id,
        "node": lease.node,
        "card_uuids": [cut.card_uuid for cut in lease.slices],
        "option": lease.option.value,
        "placed_at": to_text(row.placed_us),
        "why": dict(row.why),
        "safe_at": None if row.checkpoint_us is None else to_text(row.checkpoint_us),
        "goes_at": None if row.notice is None else to_text(row.notice.until_us),
        "reclaims": row.reclaims,
    }


def _waiting(wait: Wait, shortfalls: object) -> views.View:
    return {
        "position": None if wait.position is None else wait.position + 1,
        "length": wait.length,
        "start_at": None if wait.start_us is None else to_text(wait.start_us),
        "kept": wait.kept,
        "never": wait.never,
        "changes": list(wait.changes),
        "shortfalls": shortfalls if isinstance(shortfalls, list) else [],
    }


def _seconds(us: object) -> str:
    return f"{us / SECOND_US:.1f}" if isinstance(us, int) else "--"
