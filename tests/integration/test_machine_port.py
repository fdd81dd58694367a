"""The port for machines, with real TLS: who gets in, what each may do there, and what happens when something breaks."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from gpuyard.access import certificates, machine_certificates
from gpuyard.access.rates import Buckets
from gpuyard.control.machines.watching import look, notice_the_late
from gpuyard.model.errors import YardError
from gpuyard.sdk.machine_identity import signing_request
from gpuyard.texts import error_text
from machines_in_hand import Box, MachinesInHand, beat, inventory

HOUR_US = 3_600_000_000


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[MachinesInHand]:
    yard = MachinesInHand(tmp_path)
    yield yard
    yard.close()


def problem(answer: httpx.Response) -> tuple[int, str, str]:
    told = answer.json()
    return answer.status_code, told["code"], told["params"].get("refusal", "")


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


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
    from gpuyard.sdk.machine_identity import _private

    return made.certificate + _private(key)


def an_authority(at: datetime) -> machine_certificates.Authority:
    name = "gpuyard machines yd-test"
    return machine_certificates.Authority.of(certificates.new_authority(name, at, timedelta(days=365)))


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


# joining


def test_of_two_that_join_at_once_with_one_token_one_does(yard: MachinesInHand) -> None:
    for n in range(5):
        token = yard.invite()["token"]
        with ThreadPoolExecutor(2) as pool:
            asked = pool.map(lambda name, t=token: yard.ask_to_join(t, name, new_key()), (f"a{n}", f"b{n}"))
            answers = list(asked)
        assert sorted(answer.status_code for answer in answers) == [200, 403]
        (lost,) = [answer for answer in answers if answer.status_code == 403]
        assert problem(lost) == (403, "join_refused", "token_used")
    assert len(yard.operator.get("/v1/machines").json()["items"]) == 5


def test_a_token_that_is_used_expired_withdrawn_foreign_or_for_another_name_lets_nobody_in(
    yard: MachinesInHand,
) -> None:
    def refused(token: str, name: str = "rack2") -> str:
        before = yard.operator.get("/v1/machines").json()
        answer = yard.ask_to_join(token, name, new_key())
        assert yard.operator.get("/v1/machines").json() == before
        assert (answer.status_code, answer.json()["code"]) == (403, "join_refused")
        return str(answer.json()["params"]["refusal"])

    used = yard.invite("rack2")["token"]
    assert yard.ask_to_join(used, "rack2", new_key()).status_code == 200
    assert refused(used) == "token_used"
    assert refused("gyj_" + "a" * 43 + ".public") == "token_unknown"
    assert refused(yard.invite("rack9")["token"]) == "token_other_name"
    assert refused(yard.invite()["token"]) == "name_in_use"
    withdrawn = yard.invite()
    assert yard.operator.delete(f"/v1/machines/invitations/{withdrawn['id']}").status_code == 204
    assert yard.operator.delete(f"/v1/machines/invitations/{withdrawn['id']}").status_code == 404
    assert refused(withdrawn["token"], "rack3") == "token_withdrawn"
    expired = yard.invite("rack3", expires_s=60)
    yard.hand.clock.advance(60_000_000)
    assert refused(expired["token"], "rack3") == "token_expired"
    states = [one["state"] for one in yard.operator.get("/v1/machines/invitations").json()["items"]]
    assert sorted(states) == ["expired", "open", "open", "used", "withdrawn"]
    told = [one["because"] for one in yard.audited() if one["action"] == "gpuyard:JoinMachine" and not one["allowed"]]
    assert len(told) == 6


def test_an_answer_that_was_lost_is_given_again_to_the_same_key_and_to_no_other(yard: MachinesInHand) -> None:
    token, key = yard.invite("rack2")["token"], new_key()
    lost = yard.ask_to_join(token, "rack2", key)
    assert lost.status_code == 200
    yard.hand.kill()  # nothing of it is in memory
    yard.hand.yard.store.close()
    yard.hand.open()
    assert problem(yard.ask_to_join(token, "rack2", new_key())) == (403, "join_refused", "token_used")
    again = yard.ask_to_join(token, "rack2", key)
    assert again.status_code == 200
    assert len(yard.operator.get("/v1/machines").json()["items"]) == 1


def test_who_has_the_token_and_the_key_of_a_machine_at_work_does_not_join_as_it(yard: MachinesInHand) -> None:
    invitation = yard.invite("rack2")
    box = yard.joined("rack2")  # by another invitation
    key = new_key()
    assert (
        yard.ask_to_join(invitation["token"], "rack2", key).status_code == 200
    )  # it was invited twice: this one counts
    with box.client() as client:
        assert problem(client.get("/v1/machine")) == (403, "machine_refused", "revoked")

    token = yard.invite("rack3")["token"]
    rack3 = Box(yard, type(box.folder)(yard.root / "rack3"))
    key = rack3.folder.pending_key()
    rack3.save(yard.ask_to_join(token, "rack3", key).json())
    with rack3.client() as client:
        assert client.get("/v1/machine").status_code == 200
    assert problem(yard.ask_to_join(token, "rack3", key)) == (403, "join_refused", "token_used")
    yard.operator.post("/v1/machines/rack3/revoke")
    assert problem(yard.ask_to_join(token, "rack3", key)) == (403, "join_refused", "token_used")


def test_attempts_to_join_are_counted_by_address(yard: MachinesInHand) -> None:
    yard.app.state.joins = Buckets(per_second=0.001, burst=3)
    token = yard.invite("rack2")["token"]
    foreign = "gyj_" + "a" * 43 + ".public"
    assert [yard.ask_to_join(foreign, "rack2", new_key()).status_code for _ in range(3)] == [403] * 3
    refused = yard.ask_to_join(token, "rack2", new_key())
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
    assert int(refused.headers["retry-after"]) > 0
    yard.app.state.joins = Buckets(per_second=1, burst=3)
    assert yard.ask_to_join(token, "rack2", new_key()).status_code == 200  # it was not used up


def test_only_operators_invite_see_and_revoke_and_only_where_machines_are_listened_for(yard: MachinesInHand) -> None:
    yard.joined("rack2")
    for client in (yard.alice, yard.with_token(None)):
        for method, path in (
            ("POST", "/v1/machines/invitations"),
            ("GET", "/v1/machines/invitations"),
            ("GET", "/v1/machines"),
            ("GET", "/v1/machines/rack2"),
            ("POST", "/v1/machines/rack2/revoke"),
            ("DELETE", "/v1/machines/rack2"),
        ):
            answer = client.request(method, path, json={} if method == "POST" else None)
            assert answer.status_code in (401, 403), (method, path)
    yard.app.state.machines = None
    assert yard.operator.post("/v1/machines/invitations", json={}).json()["code"] == "machines_off"
    assert yard.ask_to_join("gyj_" + "a" * 43 + ".public", "x", new_key()).json()["code"] == "machines_off"
    assert yard.operator.get("/v1/machines/rack2").json()["late"] is None


def test_tokens_are_stored_only_as_digests(yard: MachinesInHand) -> None:
    secret = yard.invite("rack2")["token"].removeprefix("gyj_").split(".")[0]
    assert secret not in repr(yard.everything())
    assert all(secret not in repr(one) for one in yard.audited())


# renewal, and authorities that are new


def test_each_renewal_has_a_new_key_and_the_one_before_counts_until_the_new_one_is_used(yard: MachinesInHand) -> None:
    box = yard.joined("rack2")
    with box.client() as before:
        old_key = box.folder.identity().file.read_bytes()  # type: ignore[union-attr]
        request = signing_request(box.folder.pending_key(), "rack2")
        lost = before.post("/v1/machine/renew", json={"request": request})
        assert lost.status_code == 200
        assert before.get("/v1/machine").status_code == 200
        box.save(before.post("/v1/machine/renew", json={"request": request}).json())  # the same request, asked again
        assert box.folder.identity().file.read_bytes() != old_key  # type: ignore[union-attr]
        assert before.get("/v1/machine").status_code == 200
        with box.client() as client:
            assert client.get("/v1/machine").status_code == 200
        assert problem(before.get("/v1/machine")) == (403, "machine_refused", "superseded")
        answer = before.post("/v1/machine/renew", json={"request": signing_request(new_key(), "rack2")})
        assert problem(answer) == (403, "machine_refused", "superseded")  # a copied key shows itself
    with box.client() as client:
        used = load_pem_private_key(box.folder.identity().file.read_bytes(), None)  # type: ignore[union-attr]
        assert isinstance(used, ec.EllipticCurvePrivateKey)
        answer = client.post("/v1/machine/renew", json={"request": signing_request(used, "rack2")})
        assert problem(answer) == (422, "machine_request_refused", "same_key")


def joined_earlier(yard: MachinesInHand, name: str, ago: timedelta) -> Box:
    """A machine whose certificate is that old."""
    yard.gate.wall = lambda: datetime.now(UTC) - ago
    box = yard.joined(name)
    yard.gate.wall = lambda: datetime.now(UTC)
    return box


def test_an_agent_renews_at_half_life_and_goes_on_with_the_new_certificate(yard: MachinesInHand) -> None:
    box = joined_earlier(yard, "rack2", timedelta(hours=10, minutes=30))
    agent = box.agent()
    agent.round()
    assert box.said == []
    box = joined_earlier(yard, "rack3", timedelta(hours=11, minutes=30))
    box.has = inventory("GPU-2")
    agent, first = box.agent(), box.until
    agent.round()
    agent.round()
    assert [key for key, _ in box.said] == ["renewed"]
    assert box.until - first > timedelta(hours=11)
    assert len(yard.events("machine.renewed")) == 1


def test_a_clock_that_is_wrong_is_told_of_once_and_makes_nothing_due(yard: MachinesInHand) -> None:
    box = yard.joined("rack2")
    agent = box.agent()
    agent.wall = lambda: datetime.now(UTC) + timedelta(hours=1)
    agent.round()
    agent.wall = lambda: datetime.now(UTC) + timedelta(hours=13)  # by that clock it would be due
    agent.round()
    agent.round()
    assert [key for key, _ in box.said] == ["clock"]
    assert str(box.said[0][1]["seconds"]) in {"+3600", "+3599"}


def test_a_clock_by_which_the_ports_certificate_does_not_hold_is_said_in_words(yard: MachinesInHand) -> None:
    box = yard.joined("rack2")
    name = "gpuyard machines yd-test"
    late = certificates.new_authority(name, datetime.now(UTC) + timedelta(days=2), timedelta(days=365))
    for path in (yard.root / "machines").glob("*.pem"):
        path.unlink()
    (yard.root / "machines" / "authority-0.pem").write_bytes(late.certificate + late.key)
    yard.gate.authorities.refresh(datetime.now(UTC) + timedelta(days=2))  # as a yard whose clock is two days ahead
    trusting = box.folder.identity()
    assert trusting is not None
    told = trusting.joined.__class__(**{**asdict(trusting.joined), "authorities": late.certificate.decode()})
    (box.folder.path / "yard.json").write_text(json.dumps(asdict(told)))
    with pytest.raises(YardError, match="clock_differs") as caught:
        box.agent().round()
    for language in ("en", "zh"):
        sentence = error_text("clock_differs", language, caught.value.params)
        assert str(caught.value.params["here"])[:10] in sentence


def test_machines_stay_while_an_authority_ends_and_another_takes_its_place(yard: MachinesInHand) -> None:
    """A year and a month, hour by hour where it matters; OpenSSL's own clock is not ours to move, so what it would
    verify is verified by the same library at the moment that is meant."""
    gate = yard.gate
    begun = datetime.now(UTC)
    first = gate.authorities.trusted(begun)[0]
    at = first.ends - machine_certificates.NEXT_AUTHORITY_BEFORE - timedelta(days=1)
    gate.authorities.refresh(at)
    assert gate.authorities.trusted(at) == [first]
    bundle = gate.authorities.bundle(at)
    seen: set[bytes] = set()
    while at < first.ends + timedelta(days=2):
        gate.authorities.refresh(at)
        server = x509.load_pem_x509_certificates((yard.root / "machines" / "server.pem").read_bytes())[0]
        issued = gate.authorities.issue(new_key().public_key(), "rack2", at)
        held = x509.load_pem_x509_certificate(issued.certificate)
        told = x509.load_pem_x509_certificates(bundle.encode())  # by the renewal before this one
        assert any(server.issuer == one.subject and one.not_valid_after_utc > at for one in told)
        now_trusted = [x509.load_pem_x509_certificate(one.held.certificate) for one in gate.authorities.trusted(at)]
        assert any(held.issuer == one.subject for one in now_trusted)
        assert server.not_valid_after_utc > at
        seen.add(held.issuer.public_bytes())
        bundle = gate.authorities.bundle(at)
        at += timedelta(hours=12)
    assert len(seen) == 2
    assert len(gate.authorities.trusted(at)) == 1
    assert len(list((yard.root / "machines").glob("authority-*.pem"))) == 1


def test_both_authorities_are_believed_over_real_connections_while_there_are_two(yard: MachinesInHand) -> None:
    box = yard.joined("rack2")
    old = yard.gate.authorities.trusted(NOW)[0]
    another = an_authority(datetime.now(UTC) - timedelta(days=4))  # one that has settled: it signs now
    path = yard.root / "machines" / "authority-0.pem"
    path.write_bytes(another.held.certificate + another.held.key)
    assert yard.gate.authorities.refresh(datetime.now(UTC))
    with box.client(two_trusting(yard, box)) as client:  # its own certificate is by the old one
        assert client.get("/v1/machine").status_code == 200
        granted = client.post("/v1/machine/renew", json={"request": signing_request(box.folder.pending_key(), "rack2")})
    assert granted.json()["authorities"].count("BEGIN CERTIFICATE") == 2
    box.save(granted.json())
    assert box.agent().round() == 15  # with the new one, of the new authority
    (yard.root / "machines" / f"authority-{certificates.fingerprint(old.held.certificate)[:16]}.pem").unlink()
    assert yard.gate.authorities.refresh(datetime.now(UTC))
    assert box.agent().round() == 15


def two_trusting(yard: MachinesInHand, box: Box) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=yard.gate.authorities.bundle(datetime.now(UTC)))
    identity = box.folder.identity()
    assert identity is not None
    context.load_cert_chain(identity.file)
    return context


def test_a_look_that_finds_nothing_due_changes_nothing(yard: MachinesInHand) -> None:
    before = {path: path.read_bytes() for path in (yard.root / "machines").iterdir()}
    look(yard.gate)
    assert {path: path.read_bytes() for path in (yard.root / "machines").iterdir()} == before
    assert {path.stat().st_mode & 0o777 for path in before} == {0o600}
