"""Workloads, their specs and secrets, on every database."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuyard.model.errors import YardError
from gpuyard.model.slices import SliceShape
from gpuyard.model.states import WorkloadState
from gpuyard.model.workloads import (
    Desired,
    Mount,
    RestartPolicy,
    SliceRequest,
    Workload,
    WorkloadKind,
    WorkloadSpec,
)
from gpuyard.store import specs, workloads
from gpuyard.store.database import Store

Make = Callable[..., Workload]

_FULL_SPEC = WorkloadSpec(
    kind=WorkloadKind.SERVICE,
    command=("python", "-c", "print('ü 显卡 \\u0000 \n')"),
    slices=SliceRequest(SliceShape(2**53, 1), None, count=8, offer="h100-full"),
    image="docker.io/library/busybox:1",
    environment={"B": "", "A": "x=y"},
    secret_names=("TOKEN", "KEY"),
    mounts=(Mount("data", "/data", read_only=True), Mount("out", "/out")),
    ports=(8080, 65535),
    working_directory="src",
    cpu_milli=1,
    memory_bytes=2**53,
    disk_bytes=1,
    replicas=3,
    restart=RestartPolicy.ON_FAILURE,
    max_restarts=0,
    stop_grace_us=0,
    time_limit_us=2**60,
    checkpoint_command=("save",),
    labels={"team": "research"},
)

_texts = st.text(max_size=20)
_words = st.lists(_texts, max_size=4).map(tuple)
_maps = st.dictionaries(_texts, _texts, max_size=3)
_sizes = st.integers(0, 2**63 - 1)
_specs = st.builds(
    WorkloadSpec,
    kind=st.sampled_from(WorkloadKind),
    command=_words,
    slices=st.builds(
        SliceRequest,
        st.builds(SliceShape, _sizes, st.integers(1, 10**6)),
        st.none() | _texts,
        count=st.integers(1, 9),
        offer=st.none() | _texts,
    ),
    image=st.none() | _texts,
    environment=_maps,
    secret_names=_words,
    mounts=st.lists(st.builds(Mount, _texts, _texts, st.booleans()), max_size=2).map(tuple),
    ports=st.lists(st.integers(1, 65535), max_size=3).map(tuple),
    working_directory=st.none() | _texts,
    cpu_milli=_sizes,
    memory_bytes=_sizes,
    disk_bytes=_sizes,
    replicas=st.integers(0, 99),
    restart=st.sampled_from(RestartPolicy),
    max_restarts=_sizes,
    stop_grace_us=_sizes,
    time_limit_us=st.none() | _sizes,
    checkpoint_command=_words,
    labels=_maps,
)


@given(_specs)
def test_a_spec_comes_back_exactly_from_its_text_and_always_gives_the_same_text(spec: WorkloadSpec) -> None:
    text = specs.to_json(spec)
    back = specs.from_json(text)
    assert back == spec
    assert type(back.kind) is WorkloadKind
    assert type(back.restart) is RestartPolicy
    assert specs.to_json(back) == text


def test_a_workload_comes_back_as_it_was_put_in(store: Store, a_workload: Make) -> None:
    full = a_workload(
        spec=_FULL_SPEC,
        desired=Desired.STOP,
        state=WorkloadState.FAILED,
        reason="start_failed",
        reason_params={"detail": "显卡\x00", "count": 2**60},
        exit_code=137,
        created_us=2**62,
        updated_us=2**62 + 1,
    )
    with store.write() as c:
        workloads.insert(c, full, {"TOKEN": bytes(range(256)), "KEY": b""})
    with store.read() as c:
        assert workloads.get(c, full.id) == full
        assert workloads.sealed(c, full.id) == {"TOKEN": bytes(range(256)), "KEY": b""}
        assert workloads.get(c, "wl-9") is None
        assert workloads.sealed(c, "wl-9") == {}


def test_a_name_is_taken_until_the_workload_is_removed(store: Store, a_workload: Make) -> None:
    with store.write() as c:
        workloads.insert(c, a_workload(), {})
        workloads.insert(c, a_workload(id="wl-2", tenant_id="t-2"), {})  # another tenant's names are its own
    with pytest.raises(YardError) as refused, store.write() as c:
        workloads.insert(c, a_workload(id="wl-3"), {"KEY": b"x"})
    assert (refused.value.code, refused.value.params) == ("name_taken", {"name": "train"})
    with store.write() as c:
        assert workloads.get(c, "wl-3") is None
        assert workloads.sealed(c, "wl-3") == {}
        workloads.set_state(c, "wl-1", WorkloadState.REMOVED, None, {}, None, 2)
        workloads.insert(c, a_workload(id="wl-3"), {})
    with store.read() as c:
        assert [found.id for found in workloads.unsettled(c)] == ["wl-2", "wl-3"]


def test_of_many_that_take_a_name_at_once_one_gets_it(lasting_url: str, a_workload: Make) -> None:
    stores = [Store.open(lasting_url) for _ in range(5)]
    outcomes: list[str] = []
    ready = threading.Barrier(len(stores))

    def take(number: int) -> None:
        ready.wait()
        try:
            with stores[number].write() as c:
                workloads.insert(c, a_workload(id=f"wl-{number}"), {})
            outcomes.append("got it")
        except YardError as refused:
            outcomes.append(refused.code)

    takers = [threading.Thread(target=take, args=(number,), daemon=True) for number in range(5)]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join(60)
    assert sorted(outcomes) == ["got it"] + ["name_taken"] * 4
    for store in stores:
        store.close()


def test_a_workload_is_found_by_id_or_by_the_name_of_the_live_one(store: Store, a_workload: Make) -> None:
    with store.write() as c:
        workloads.insert(c, a_workload(id="wl-1", state=WorkloadState.REMOVED), {})
        workloads.insert(c, a_workload(id="wl-2"), {})
        assert workloads.find(c, "t-1", "train") == workloads.find(c, None, "train") == a_workload(id="wl-2")
        assert workloads.find(c, "t-1", "wl-1") == a_workload(id="wl-1", state=WorkloadState.REMOVED)
        assert workloads.find(c, "t-2", "wl-2") is None  # tenants do not see one another
        assert workloads.find(c, "t-2", "train") is None


def test_a_name_that_several_tenants_use_needs_an_id_where_no_tenant_is_given(store: Store, a_workload: Make) -> None:
    with store.write() as c:
        workloads.insert(c, a_workload(), {})
        workloads.insert(c, a_workload(id="wl-2", tenant_id="t-2"), {})
        with pytest.raises(YardError) as refused:
            workloads.find(c, None, "train")
        assert refused.value.code == "invalid_request"
        assert workloads.find(c, "t-2", "train") == a_workload(id="wl-2", tenant_id="t-2")


def test_pages_go_from_the_newest_to_the_oldest_without_gap_or_repetition(store: Store, a_workload: Make) -> None:
    with store.write() as c:
        for number in range(10):
            state = WorkloadState.REMOVED if number == 4 else WorkloadState.RUNNING
            workloads.insert(c, a_workload(id=f"wl-{number}", name=f"n-{number}", state=state), {})
    seen: list[str] = []
    before: str | None = None
    with store.read() as c:
        while page := workloads.page(c, "t-1", None, None, 4, before):
            assert len(page) <= 4
            seen += [workload.id for workload in page]
            before = seen[-1]
    assert seen == [f"wl-{number}" for number in (9, 8, 7, 6, 5, 3, 2, 1, 0)]


def test_a_page_holds_only_the_tenant_kind_and_states_that_were_asked_for(store: Store, a_workload: Make) -> None:
    removed, failed = WorkloadState.REMOVED, WorkloadState.FAILED
    with store.write() as c:
        workloads.insert(c, a_workload(id="wl-1", name="a"), {})
        workloads.insert(c, a_workload(id="wl-2", name="b", state=failed), {})
        workloads.insert(c, a_workload(id="wl-3", name="c", state=removed), {})
        workloads.insert(c, a_workload(id="wl-4", name="d", kind=WorkloadKind.SERVICE), {})
        workloads.insert(c, a_workload(id="wl-5", name="e", tenant_id="t-2"), {})

        def ids(*asked: object) -> list[str]:
            return [workload.id for workload in workloads.page(c, *asked, limit=9, before_id=None)]  # type: ignore[arg-type]

        assert ids(None, None, None) == ["wl-5", "wl-4", "wl-2", "wl-1"]
        assert ids("t-1", WorkloadKind.JOB, None) == ["wl-2", "wl-1"]
        assert ids("t-1", None, [removed, failed]) == ["wl-3", "wl-2"]
        assert ids("t-3", None, None) == []


def test_what_is_wanted_and_what_is_change_apart_and_secrets_go_with_removal(store: Store, a_workload: Make) -> None:
    with store.write() as c:
        workloads.insert(c, a_workload(), {"KEY": b"x"})
        workloads.set_desired(c, "wl-1", Desired.REMOVE, 7)
        workloads.set_state(c, "wl-1", WorkloadState.FAILED, "exited", {"code": 3}, 3, 8)
        assert workloads.get(c, "wl-1") == a_workload(
            desired=Desired.REMOVE,
            state=WorkloadState.FAILED,
            reason="exited",
            reason_params={"code": 3},
            exit_code=3,
            updated_us=8,
        )
        assert workloads.sealed(c, "wl-1") == {"KEY": b"x"}
        workloads.set_state(c, "wl-1", WorkloadState.REMOVED, None, {}, 0, 9)
    with store.read() as c:
        assert workloads.sealed(c, "wl-1") == {}
        assert workloads.unsettled(c) == []
        found = workloads.get(c, "wl-1")
        assert found is not None
        assert (found.state, found.exit_code, found.reason_params) == (WorkloadState.REMOVED, 0, {})
