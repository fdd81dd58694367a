"""Joining with a token, renewing, and authorities that are replaced: over real TLS, with clocks that are moved."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from gpuyard.access import certificates, machine_certificates
from gpuyard.access.rates import Buckets
from gpuyard.control.machines.watching import look
from gpuyard.model.errors import YardError
from gpuyard.sdk.machine_identity import signing_request
from gpuyard.texts import error_text
from machines_in_hand import Box, MachinesInHand, an_authority, inventory, new_key, problem

HOUR_US = 3_600_000_000


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[MachinesInHand]:
    yard = MachinesInHand(tmp_path)
    yield yard
    yard.close()


NOW = datetime.now(UTC)


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
