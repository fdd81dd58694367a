"""The engine against an independent one, on random policies: GPUYARD_POLICY_CASES says on how many."""

from __future__ import annotations

import json
import os
import random
from collections import Counter

import pytest

import policy_oracle
from gpuyard.access.policies.document import Policy, parse
from gpuyard.access.policies.engine import Because, Policies, Request, Rules, context, decide
from policy_cases import Case, case

CASES = int(os.environ.get("GPUYARD_POLICY_CASES", "400"))
SEED = int(os.environ.get("GPUYARD_POLICY_SEED", "1"))


def ours(one: Case) -> str:
    def compiled(policies: list[dict[str, object]]) -> Policies:
        return Policies([_parsed(n, policy) for n, policy in enumerate(policies)])

    rules = Rules(
        compiled(one.identity),
        tuple(compiled([policy]) for policy in one.organisation),
        None if one.boundary is None else compiled([one.boundary]),
    )
    verdict = decide(rules, Request(one.action, one.resource, context(one.context)))
    if verdict.allowed:
        return "Allowed"
    return "ExplicitlyDenied" if verdict.because is Because.EXPLICIT_DENY else "ImplicitlyDenied"


def _parsed(n: int, policy: dict[str, object]) -> Policy:
    return parse(f"p{n}", json.dumps(policy))


@pytest.mark.slow
def test_the_engine_decides_as_an_independent_one_does() -> None:
    if why := policy_oracle.missing():
        pytest.skip(why)
    chance = random.Random(SEED)
    seen: Counter[str] = Counter()
    for begun in range(0, CASES, 5000):
        cases = [case(chance) for _ in range(min(5000, CASES - begun))]
        theirs = policy_oracle.verdicts([one.simulation() for one in cases])
        assert len(theirs) == len(cases)
        differing = [(one, told, ours(one)) for one, told in zip(cases, theirs, strict=True) if told != ours(one)]
        assert not differing, f"{len(differing)} of {len(cases)}: {differing[0]}"
        seen.update(theirs)
    assert {"Allowed", "ExplicitlyDenied", "ImplicitlyDenied"} == set(seen)
