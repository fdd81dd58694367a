"""Start, stop, reboot and removal of several instances over both dialects: all of them or none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from api_in_hand import ApiInHand
from clouds_in_hand import ECS_RUN, RUN, Cloud, code, ids, states


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiInHand]:
    found = ApiInHand(tmp_path)
    yield found
    found.close()


@pytest.fixture
def alice(api: ApiInHand) -> Cloud:
    return Cloud(api, "alice")


def three(api: ApiInHand, alice: Cloud) -> list[str]:
    made = ids(alice.ec2("RunInstances", **{**RUN, "MinCount": "3", "MaxCount": "3"}))
    api.hand.settle()
    return made


def named(made: list[str]) -> dict[str, str]:
    return {f"InstanceId.{n}": one for n, one in enumerate(made, 1)}


def attempts(api: ApiInHand, made: list[str]) -> list[str]:
    return sorted(name.rpartition("-")[2] for name in api.hand.runtime.live())


def test_ec2_reboots_instances_which_go_on_running(api: ApiInHand, alice: Cloud) -> None:
    made = three(api, alice)
    answer = alice.ec2("RebootInstances", **named(made[:2]))
    assert answer.status_code == 200, answer.text
    for _ in range(4):
        assert states(alice.ec2("DescribeInstances")) == ["running"] * 3
        api.hand.loops.pass_once()
    api.hand.settle()
    assert attempts(api, made) == ["1", "2", "2"]


@pytest.mark.parametrize("action", ["RebootInstance", "RebootInstances"])
def test_ecs_reboots_instances_which_go_on_running(api: ApiInHand, alice: Cloud, action: str) -> None:
    made = alice.ecs("RunInstances", **ECS_RUN).json()["InstanceIdSets"]["InstanceIdSet"][0]
    api.hand.settle()
    name = "InstanceId" if action == "RebootInstance" else "InstanceId.1"
    answer = alice.ecs(action, **{name: made}, ForceStop="True")
    assert answer.status_code == 200, answer.text
    for _ in range(4):
        assert alice.ecs("DescribeInstances").json()["Instances"]["Instance"][0]["Status"] == "Running"
        api.hand.loops.pass_once()
    api.hand.settle()
    assert attempts(api, [made]) == ["2"]


def test_rest_reboots_and_says_so_while_it_does(api: ApiInHand, alice: Cloud) -> None:
    made = three(api, alice)[0]
    told = api.alice.post(f"/v1/workloads/wl-{made[2:]}/reboot").json()
    assert (told["state"], told["reason"]) == ("running", "rebooting")
    assert told["reason_text"] == "It is being rebooted, on the slices and the disk that it has."
    api.hand.settle()
    told = api.alice.get(f"/v1/workloads/wl-{made[2:]}").json()
    assert (told["state"], told["reason"], told["leases"][0]["restarts"]) == ("running", None, 0)


def test_what_is_stopped_is_not_rebooted(api: ApiInHand, alice: Cloud) -> None:
    made = three(api, alice)
    alice.ec2("StopInstances", **named(made[:1]))
    api.hand.settle()
    before = api.everything()
    assert code(alice.ec2("RebootInstances", **named(made))) == "IncorrectInstanceState"
    assert code(alice.ecs("RebootInstance", InstanceId=made[0])) == "IncorrectInstanceStatus"
    assert code(alice.ecs("RebootInstances", **named(made))) == "IncorrectInstanceStatus"
    assert changed(before, api.everything()) == set()


def changed(before: dict[str, list[object]], after: dict[str, list[object]]) -> set[str]:
    """The tables in which anything is different, but for the record of who asked for what."""
    record = {"audit", "audit_subjects", "audit_checkpoints", "access_keys", "meta"}
    return {name for name in before if before[name] != after[name]} - record


@pytest.mark.parametrize("action", ["StartInstances", "StopInstances", "TerminateInstances", "RebootInstances"])
def test_one_that_is_not_there_leaves_the_others_as_they_are(api: ApiInHand, alice: Cloud, action: str) -> None:
    made = three(api, alice)
    before = api.everything()
    assert code(alice.ec2(action, **named([*made, "i-nobody"]))) == "InvalidInstanceID.NotFound"
    assert changed(before, api.everything()) == set()


def test_one_that_cannot_start_leaves_the_others_stopped(api: ApiInHand, alice: Cloud) -> None:
    made = three(api, alice)
    alice.ec2("StopInstances", **named(made))
    api.hand.settle()
    alice.ec2("TerminateInstances", **named(made[2:]))
    before = api.everything()
    assert code(alice.ec2("StartInstances", **named(made))) == "IncorrectInstanceState"
    assert code(alice.ecs("StartInstances", **named(made))) == "IncorrectInstanceStatus"
    assert changed(before, api.everything()) == set()


def test_a_failure_in_the_middle_leaves_all_as_they_were(
    api: ApiInHand, alice: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpuyard.control import commands
    from gpuyard.model.errors import YardError

    made = three(api, alice)
    tell, count = commands._tell, []  # type: ignore[attr-defined]

    def full(*given: object) -> bool:
        count.append(1)
        if len(count) == 3:
            raise YardError("storage_full")
        return tell(*given)

    monkeypatch.setattr(commands, "_tell", full)
    assert alice.ec2("StopInstances", **named(made)).status_code == 503
    assert states(alice.ec2("DescribeInstances")) == ["running"] * 3


def test_success_first_starts_what_it_can_and_tells_each(api: ApiInHand, alice: Cloud) -> None:
    made = three(api, alice)
    alice.ec2("StopInstances", **named(made))
    api.hand.settle()
    alice.ec2("TerminateInstances", **named(made[2:]))
    answer = alice.ecs("StartInstances", **named(made), BatchOptimization="SuccessFirst")
    rows = answer.json()["InstanceResponses"]["InstanceResponse"]
    assert [row["Code"] for row in rows] == ["200", "200", "IncorrectInstanceStatus"]
    assert rows[2]["Message"] == "This workload is removing and cannot become running."
    api.hand.settle()
    assert states(alice.ec2("DescribeInstances")) == ["running"] * 2
    assert code(alice.ecs("StartInstances", **named(made), BatchOptimization="Some")) == (
        "InvalidParameter.BatchOptimization"
    )
