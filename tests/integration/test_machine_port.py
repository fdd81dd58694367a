"""The port for machines, with real TLS: who gets in, what each may do there, and what happens when something breaks."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from gpuyard.access import certificates, machine_certificates
from gpuyard.control.machines.watching import notice_the_late
from gpuyard.model.errors import YardError
from gpuyard.sdk.machine_identity import signing_request
from machines_in_hand import Box, MachinesInHand, an_authority, beat, inventory, new_key, pem_of, problem

HOUR_US = 3_600_000_000


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[MachinesInHand]:
    yard = MachinesInHand(tmp_path)
    yield yard
    yard.close()


def test_a_machine_joins_beats_tells_of_its_cards_and_is_seen(yard: MachinesInHand) -> None:
    box = yard.joined("rack2")
    seen = yard.operator.get("/v1/machines/rack2").json()
    assert (seen["last_heartbeat_at"], seen["late"], seen["cards"], seen["inventory"]) == (None, None, None, None)
    assert box.agent().round() == 15
    seen = yard.operator.get("/v1/machines/rack2").json()
    assert (seen["state"], seen["late"], seen["cards"]) == ("joined", False, 1)
    assert seen["inventory"]["cards"][0]["guarantees"][1]["guarantee"] == "cooperative"
    assert seen["spiffe_id"] == "spiffe://yd-test/machine/rack2"
    assert abs(seen["clock_ahead_s"]) < 5
    assert [one["name"] for one in yard.operator.get("/v1/machines").json()["items"]] == ["rack2"]
    assert [event.subject for event in yard.events("machine.joined")] == ["rack2"]
    assert yard.events("machine.cards")[0].data == {"new": ["GPU-1"], "gone": []}
    (entry,) = [one for one in yard.audited() if one["action"] == "gpuyard:JoinMachine"]
    assert (entry["allowed"], entry["resource"]) == (True, "arn:aws:gpuyard:::machine/rack2")


def test_a_heartbeat_that_stays_away_is_told_once_and_so_is_its_return(yard: MachinesInHand) -> None:
    box = yard.joined("rack2")
    agent = box.agent()
    agent.round()
    yard.hand.clock.advance(44_000_000)
    notice_the_late(yard.gate)
    assert yard.events("machine.late") == []
    yard.hand.clock.advance(2_000_000)
    for _ in range(3):
        notice_the_late(yard.gate)
    assert yard.operator.get("/v1/machines/rack2").json()["late"] is True
    assert len(yard.events("machine.late")) == 1
    agent.round()
    assert yard.operator.get("/v1/machines/rack2").json()["late"] is False
    agent.round()
    assert len(yard.events("machine.back")) == 1


# who gets through the handshake


def connect(yard: MachinesInHand, box: Box, chain: bytes | None) -> httpx.Response:
    """Asks with this certificate and key (PEM) in place of the machine's own."""
    context = ssl.create_default_context(cadata=yard.gate.authorities.bundle(yard.gate.wall()))
    if chain is not None:
        file = yard.root / "shown.pem"
        file.write_bytes(chain)
        context.load_cert_chain(file)
    with box.client(context) as client:
        return client.get("/v1/machine")


def by(signer: machine_certificates.Authority, at: datetime, name: str = "rack2") -> bytes:
    """A machine's certificate and key, signed by this authority."""
    key = new_key()
    made = machine_certificates.issue(signer, key.public_key(), "yd-test", name, at)
    return made.certificate + pem_of(key)


NOW = datetime.now(UTC)
STRANGERS: dict[str, Callable[[MachinesInHand], bytes | None]] = {
    "nothing": lambda yard: None,
    "of another yard": lambda yard: by(an_authority(NOW), NOW),
    "self-signed": lambda yard: (lambda made: made.certificate + made.key)(certificates.new_authority("rack2", NOW)),
    "expired": lambda yard: by(yard.gate.authorities.trusted(NOW)[0], NOW - timedelta(hours=24)),
    "not yet": lambda yard: by(yard.gate.authorities.trusted(NOW)[0], NOW + timedelta(hours=2)),
    "the port's own": lambda yard: (yard.root / "machines" / "server.pem").read_bytes(),
}


def test_no_stranger_gets_through_the_handshake(yard: MachinesInHand) -> None:
    box = yard.joined("rack2")
    for shown in STRANGERS.values():
        with pytest.raises(httpx.HTTPError):
            connect(yard, box, shown(yard))
    assert connect(yard, box, box.folder.identity().file.read_bytes()).status_code == 200  # type: ignore[union-attr]


def test_old_versions_of_tls_are_not_spoken(yard: MachinesInHand) -> None:
    box = yard.joined("rack2")
    context = box.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(httpx.HTTPError), box.client(context) as client:
        client.get("/v1/machine")


def test_a_certificate_that_was_never_written_down_does_not_count_whoever_signed_it(yard: MachinesInHand) -> None:
    box = yard.joined("rack2")
    forged = by(yard.gate.authorities.trusted(NOW)[0], NOW)
    assert problem(connect(yard, box, forged)) == (403, "machine_refused", "unknown")
    (refused,) = yard.events("machine.refused")
    assert refused.data["because"] == "unknown"


def test_tokens_of_the_api_mean_nothing_at_the_port_and_certificates_nothing_at_the_api(yard: MachinesInHand) -> None:
    box = yard.joined("rack2")
    headers = {"Authorization": yard.operator.headers["Authorization"]}
    context = ssl.create_default_context(cadata=yard.gate.authorities.bundle(yard.gate.wall()))
    with pytest.raises(httpx.HTTPError), box.client(context) as client:
        client.get("/v1/machine", headers=headers)
    with box.client() as client:
        for path in ("/v1/machines", "/v1/yard", "/v1/workloads", "/v1/openapi.json", "/"):
            assert client.get(path, headers=headers).status_code == 404
    with yard.served() as url, httpx.Client(verify=box.context()) as client:
        assert client.get(f"{url}/v1/machines").status_code == 401
        assert client.post(f"{url}/v1/machine/heartbeat", json=beat()).status_code == 404


def test_what_a_caller_says_of_certificates_is_not_believed(yard: MachinesInHand) -> None:
    from starlette.testclient import TestClient

    from gpuyard.api.machine_door import build_door

    told = {"X-Client-Cert": "rack2", "X-SSL-Client-Verify": "SUCCESS", "X-Forwarded-Client-Cert": "URI=spiffe://a"}
    answer = TestClient(build_door(yard.gate)).post("/v1/machine/heartbeat", json=beat(), headers=told)
    assert problem(answer) == (403, "machine_refused", "none")


# what one that got in may do


def test_no_call_is_about_another_machine(yard: MachinesInHand) -> None:
    one, two = yard.joined("rack1"), yard.joined("rack2")
    with one.client() as client:
        for more in ({"name": "rack2"}, {"machine": "rack2"}, {"id": "spiffe://yd-test/machine/rack2"}):
            assert client.post("/v1/machine/heartbeat", json={**beat(), **more}).status_code == 400
            assert client.post("/v1/machine/inventory", json={**inventory("GPU-9"), **more}).status_code == 400
        for path in ("/v1/machine/rack2", "/v1/machine/rack2/heartbeat", "/v1/machines/rack2/revoke"):
            assert client.post(path, json={}).status_code == 404
        answer = client.post("/v1/machine/renew", json={"request": signing_request(new_key(), "rack2")})
        assert problem(answer) == (422, "machine_request_refused", "name")
    del two
    assert yard.operator.get("/v1/machines/rack2").json()["last_heartbeat_at"] is None


def test_a_card_that_another_machine_has_is_not_taken_until_that_one_is_gone(yard: MachinesInHand) -> None:
    one, two = yard.joined("rack1"), yard.joined("rack2")
    for box, cards in ((one, ("GPU-1", "GPU-2")), (two, ("GPU-3",))):
        box.has = inventory(*cards)
        box.agent().round()
    two.has = inventory("GPU-3", "GPU-2")
    two.agent().round()
    assert [key for key, _ in two.said] == ["not_told"]
    assert yard.operator.get("/v1/machines/rack2").json()["cards"] == 1
    yard.operator.post("/v1/machines/rack1/revoke")
    two.agent().round()
    assert yard.operator.get("/v1/machines/rack2").json()["cards"] == 2
    two.has = inventory(yard.hand.probe.probe().nodes[0].cards[0].uuid)
    two.agent().round()
    assert yard.operator.get("/v1/machines/rack2").json()["cards"] == 2  # the yard's own is not taken either


BAD = [
    ("/heartbeat", {"at": "yesterday", "version": "1"}),
    ("/heartbeat", {"at": "2026-11-28T12:00:00", "version": "1"}),
    ("/heartbeat", {**beat(), "version": "\x1b[2J"}),
    ("/inventory", {**inventory("GPU-1"), "cards": None}),
    ("/inventory", inventory(*(f"GPU-{n}" for n in range(65)))),
    ("/inventory", inventory("GPU-\x1b]0;x\x07")),
    ("/inventory", {**inventory("GPU-1"), "findings": [{"name": "{0.__class__}", "ok": True, "params": {}}]}),
    ("/inventory", {**inventory("GPU-1"), "cpu_milli": -1}),
    ("/renew", {"request": "x" * 8193}),
    ("/renew", {}),
]


def test_what_a_machine_may_not_say_changes_nothing(yard: MachinesInHand) -> None:
    box = yard.joined("rack2")
    with box.client() as client:
        client.get("/v1/machine")
        before = yard.everything()
        for path, body in BAD:
            answer = client.post(f"/v1/machine{path}", json=body)
            assert answer.status_code == 400, (path, body)
            assert answer.headers["content-type"] == "application/problem+json"
    assert yard.everything() == before


def test_bodies_that_are_too_large_are_not_read(yard: MachinesInHand) -> None:
    box = yard.joined("rack2")
    with box.client() as client:
        answer = client.post("/v1/machine/inventory", content=b"x" * (1 << 20 | 1))
        assert answer.status_code == 413
        endless = client.post("/v1/machine/inventory", content=(b"x" * 65536 for _ in range(40)))
        assert endless.status_code == 413
    answer = yard.with_token(None).post("/v1/machines/join", content=b"x" * (1 << 20 | 1))
    assert answer.status_code == 413


def test_a_machine_that_runs_wild_is_held_back_and_others_are_not(yard: MachinesInHand) -> None:
    one, two = yard.joined("rack1"), yard.joined("rack2")
    with one.client() as client:
        codes = [client.get("/v1/machine").status_code for _ in range(60)]
    assert set(codes) == {200, 429}
    with two.client() as client:
        assert client.get("/v1/machine").status_code == 200


# revocation


def test_who_is_revoked_is_refused_at_once_on_an_open_connection_too(yard: MachinesInHand) -> None:
    box = yard.joined("rack2")
    with box.client() as client:
        assert client.post("/v1/machine/heartbeat", json=beat()).status_code == 200
        assert yard.operator.post("/v1/machines/rack2/revoke").json()["state"] == "revoked"
        assert problem(client.post("/v1/machine/heartbeat", json=beat())) == (403, "machine_refused", "revoked")
        answer = client.post("/v1/machine/renew", json={"request": signing_request(new_key(), "rack2")})
        assert problem(answer) == (403, "machine_refused", "revoked")
    with pytest.raises(YardError, match="machine_refused"):
        box.agent().round()
    refused = [one for one in yard.audited() if not one["allowed"]]
    assert {(one["action"], one["because"]) for one in refused} == {("gpuyard:UseMachinePort", "revoked")}
    assert len(yard.events("machine.refused")) == 1  # of three: whoever asks again and again fills nothing


def test_a_machine_that_is_removed_is_none_and_its_name_is_free(yard: MachinesInHand) -> None:
    box = yard.joined("rack2")
    with box.client() as client:
        assert client.get("/v1/machine").status_code == 200
        assert yard.operator.delete("/v1/machines/rack2").status_code == 204
        assert problem(client.get("/v1/machine")) == (403, "machine_refused", "unknown")
    assert yard.operator.get("/v1/machines/rack2").status_code == 404
    fresh = yard.joined("rack2")
    with fresh.client() as client, box.client() as before:
        assert client.get("/v1/machine").status_code == 200
        assert before.get("/v1/machine").status_code == 403


def test_a_revocation_that_comes_while_a_request_is_on_its_way_wins(yard: MachinesInHand) -> None:
    from gpuyard.control.machines import joining, reporting
    from gpuyard.control.machines.admitting import admit

    box = yard.joined("rack2")
    identity = box.folder.identity()
    assert identity is not None
    shown = ssl.PEM_cert_to_DER_cert(identity.file.read_text()[identity.file.read_text().index("-----BEGIN CERT") :])
    admitted = admit(yard.gate, shown, None)
    yard.operator.post("/v1/machines/rack2/revoke")
    for late in (
        lambda: reporting.heartbeat(admitted, 0, "1"),
        lambda: reporting.report(admitted, inventory("GPU-1")),
        lambda: joining.renew(yard.gate, admitted, signing_request(new_key(), "rack2").encode(), None),
    ):
        with pytest.raises(YardError, match="machine_refused"):
            late()
    assert yard.operator.get("/v1/machines/rack2").json()["cards"] is None
