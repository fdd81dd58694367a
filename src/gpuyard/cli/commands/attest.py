"""gpuyard attest"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpuyard.cli.commands.tenants import AsJson
from gpuyard.cli.commands.work import Name, Tenant
from gpuyard.cli.credentials import connect
from gpuyard.cli.output import say, show_json, show_table, t
from gpuyard.sdk import attestation_calls as calls

APP = typer.Typer(rich_markup_mode=None, add_completion=False)
ATTEST = typer.Typer(rich_markup_mode=None, help=t("attest.help"), no_args_is_help=True)
POLICY = typer.Typer(rich_markup_mode=None, help=t("attest.policy"), no_args_is_help=True)
APP.add_typer(ATTEST, name="attest")
ATTEST.add_typer(POLICY, name="policy")


@ATTEST.command(help=t("attest.nonce"))
def nonce(
    workload: Name,
    key: Annotated[Path, typer.Option(help=t("attest.key"))],
    replica: Annotated[int, typer.Option(help=t("attest.replica"))] = 0,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    from gpuyard.cli.evidence_files import read_key

    pem = read_key(key)
    with connect() as client:
        found = client.send(calls.attestation_nonce(workload, pem, replica, tenant))
    if as_json:
        show_json(found)
        return
    names = ("nonce", "report_data", "card_nonce", "key_sha256", "unit", "expires_at")
    show_table([t("column.what"), t("column.value")], [(t(f"column.{name}"), found[name]) for name in names])
    say(t("attest.next"))


@ATTEST.command(help=t("attest.submit"))
def submit(
    workload: Name,
    evidence: Annotated[Path, typer.Option(help=t("attest.evidence"))],
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    from gpuyard.cli.evidence_files import read_evidence

    wanted, pieces = read_evidence(evidence)
    with connect() as client:
        found = client.send(calls.submit_evidence(workload, wanted, pieces, tenant))
    if as_json:
        show_json(found)
        return
    say(t("attest.verified", until=found["until"]))


@ATTEST.command(help=t("attest.show"))
def show(workload: Name, tenant: Tenant = None, as_json: AsJson = False) -> None:
    with connect() as client:
        found = client.send(calls.attestation(workload, tenant))
    if as_json:
        show_json(found)
        return
    print(found["confidentiality"]["text"])
    if not found["attestations"]:
        return
    print()
    columns = ["unit", "processor", "cards_proven", "verified_at", "until", "ended", "because", "claims"]
    rows = [
        (
            one["unit"],
            one["processor"],
            one["cards"],
            one["verified_at"],
            one["until"],
            one["ended_at"],
            one["ended_because"] and t(f"attest.because.{one['ended_because']}"),
            "\n".join(f"{name} {value}" for claim in one["claims"] for name, value in claim.items()),
        )
        for one in found["attestations"]
    ]
    show_table([t(f"column.{name}") for name in columns], rows)


@POLICY.command("show", help=t("attest.policy_show"))
def show_policy() -> None:
    with connect() as client:
        show_json(client.send(calls.attestation_policy()))


@POLICY.command("set", help=t("attest.policy_set"))
def set_policy(file: Annotated[Path, typer.Argument(help=t("attest.policy_file"))]) -> None:
    from gpuyard.cli.evidence_files import read_policy

    document = read_policy(file)
    with connect() as client:
        show_json({"fingerprint": client.send(calls.put_attestation_policy(document))["fingerprint"]})


@POLICY.command("off", help=t("attest.policy_off"))
def switch_off() -> None:
    with connect() as client:
        client.send(calls.put_attestation_policy({}))
