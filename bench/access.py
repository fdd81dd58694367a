"""Decisions of policies: how many a second, and whether an independent engine decides the same."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path

from bench.figures import Figure, at_least, at_most

SECONDS = 2.0
CASES = int(os.environ.get("GPUYARD_POLICY_CASES", "2000"))


def measure() -> list[Figure]:
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    import policy_oracle
    from policy_cases import case

    chance = random.Random(1)
    cases = [case(chance) for _ in range(CASES)]
    ours, rate = _decide(cases)
    figures = []
    why = policy_oracle.missing()
    peer = f"not measured: {why}"
    if not why:
        begun = time.perf_counter()
        theirs = policy_oracle.verdicts([one.simulation() for one in cases])
        peer = f"{policy_oracle.PACKAGE}: {CASES / (time.perf_counter() - begun):.0f} decisions/s"
        differing = sum(a != b for a, b in zip(ours, theirs, strict=True))
        figures.append(at_most("access.disagreements", differing, "decisions", 0, peer, f"{CASES} random cases"))
    how = "two policies of six statements with conditions, compiled once; one core"
    return [at_least("access.decisions", rate, "per s", 50_000, peer, how), *figures]


def _decide(cases: list) -> tuple[list[str], float]:
    from gpuyard.access.policies.document import parse
    from gpuyard.access.policies.engine import Because, Policies, Request, Rules, context, decide

    def compiled(policies: list) -> Policies:
        return Policies([parse("p", json.dumps(policy)) for policy in policies])

    told = []
    for one in cases:
        boundary = None if one.boundary is None else compiled([one.boundary])
        rules = Rules(compiled(one.identity), tuple(compiled([level]) for level in one.organisation), boundary)
        verdict = decide(rules, Request(one.action, one.resource, context(one.context)))
        denied = "ExplicitlyDenied" if verdict.because is Because.EXPLICIT_DENY else "ImplicitlyDenied"
        told.append("Allowed" if verdict.allowed else denied)
    rules = Rules(compiled([_POLICY, _FENCE]))
    requests = [Request(one.action, one.resource, context(one.context)) for one in cases]
    count, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < SECONDS:
        for request in requests:
            decide(rules, request)
        count += len(requests)
    return told, count / (time.perf_counter() - begun)


_POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*"},
        {"Effect": "Allow", "Action": ["ec2:RunInstances", "ec2:StartInstances"], "Resource": "arn:aws:ec2:eu-*:*:instance/*",
         "Condition": {"StringLike": {"aws:UserAgent": ["boto3/*", "Boto3/*"]}, "Bool": {"aws:SecureTransport": "true"}}},
        {"Effect": "Allow", "Action": "ec2:*Instances", "Resource": "arn:aws:ec2:*:*:instance/${aws:PrincipalTag/home}"},
        {"Effect": "Deny", "Action": "ec2:TerminateInstances", "Resource": "*", "Condition": {"StringEquals": {"aws:username": "bob"}}},
    ],
}  # fmt: skip
_FENCE = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Deny", "Action": "ec2:RunInstances", "Resource": "arn:aws:ec2:*:*:instance/*",
         "Condition": {"NotIpAddress": {"aws:SourceIp": ["10.0.0.0/8", "2001:db8::/32"]}}},
        {"Effect": "Deny", "NotAction": "ec2:Describe*", "Resource": "*", "Condition": {"ForAnyValue:StringEquals": {"aws:TagKeys": "env"}}},
    ],
}  # fmt: skip
