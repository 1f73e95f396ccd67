"""The policy language: what is refused when it is written, what matches, and the rule against a slow reference."""

import json
import time

import pytest
from hypothesis import given, strategies as st

from cluster.access.builtin import BUILT_IN
from s3.policy import (
    EVERYTHING,
    NOTHING,
    Grants,
    PolicyError,
    compile_pattern,
    grants_of,
    object_arn,
    parse_policy,
    without_effect,
)

STATEMENT = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/*"}


def policy(*statements, **more):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements), **more})


def changed(**fields):
    return policy({k: v for k, v in {**STATEMENT, **fields}.items() if v is not None})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "must be a JSON object"),
        ('{"Version": "2012-10-17", "Statement": [1]}', "must be a JSON object"),
        (json.dumps({"Statement": [STATEMENT]}), "Version"),
        (json.dumps({"Version": "2008-10-17", "Statement": [STATEMENT]}), "Version"),
        (policy(), "list of statements"),
        (policy(STATEMENT, Id="x"), "Id is not supported"),
        (changed(Condition={"Bool": {}}), "statement 1: Condition is not supported"),
        (changed(NotAction="s3:*", Action=None), "NotAction is not supported"),
        (changed(Principal="*"), "Principal is not supported"),
        (changed(NotResource="*"), "NotResource is not supported"),
        (changed(effect="Allow"), "effect is not supported"),
        (changed(Sid=5), "Sid"),
        (changed(Effect="allow"), "Effect"),
        (changed(Effect=None), "Effect"),
        (changed(Action=None), "Action"),
        (changed(Action=[]), "Action"),
        (changed(Action=["s3:GetObject", 1]), "Action"),
        (changed(Action="GetObject"), "Action"),
        (changed(Action="ec2:*"), "Action"),
        (changed(Action="s3*"), "Action"),
        (changed(Action="s3:"), "Action"),
        (changed(Resource=None), "Resource"),
        (changed(Resource="b/*"), "Resource"),
        (changed(Resource="arn:aws:s3:::"), "Resource"),
        (changed(Resource="arn:aws:ec2:::b"), "Resource"),
        (changed(Resource="arn:aws:s3:::${aws:username}/*"), "variables"),
        (changed()[:-1] + ', "Version": "2012-10-17"}', "twice"),
        (changed().replace('"Effect"', '"Effect": "Deny", "Effect"'), "twice"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_to_is_refused_with_its_place(text, why):
    with pytest.raises(PolicyError, match=why):
        parse_policy(text)
    assert grants_of((changed(), text)) == NOTHING


@pytest.mark.parametrize(
    "text",
    [
        changed(),
        changed(Sid="reads"),
        changed(Action=["s3:Get*", "*"], Resource=["*", "arn:aws:s3:::b"]),
        json.dumps({"Version": "2012-10-17", "Statement": STATEMENT}),
        *BUILT_IN.values(),
    ],
)
def test_what_can_be_kept_to_is_taken(text):
    assert parse_policy(text)


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("a*", "a", True), ("a*", "ba", False), ("*a", "bca", True), ("*a", "ab", False),
        ("a*b*c", "axxbyyc", True), ("a*b*c", "acb", False), ("a?c", "abc", True), ("a?c", "ac", False),
        ("*ab*ab", "ab", False), ("*ab*ab", "abab", True), ("**", "", True), ("", "", True), ("", "a", False),
        ("a.c", "abc", False), ("[ab]", "a", False), ("a*", "a\nb", True), ("?", "\n", True), ("a", "a\n", False),
        ("*aab*", "aaab", True), ("a*", "a*", True), ("?", "é", True),
    ],
)  # fmt: skip
def test_patterns(pattern, text, matches):
    assert compile_pattern(pattern).matches(text) is matches


def test_many_stars_cost_no_more_than_the_text_is_long():
    pattern = compile_pattern("*a" * 40 + "b")
    began = time.perf_counter()
    assert not pattern.matches("a" * 1024)
    assert time.perf_counter() - began < 0.5


# -- the rule, against an evaluator that is obviously right and slow


def slow_match(pattern, text):
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(slow_match(pattern[1:], text[i:]) for i in range(len(text) + 1))
    return bool(text) and pattern[0] in ("?", text[0]) and slow_match(pattern[1:], text[1:])


def slow_decide(statements, action, resource):
    def texts(value):
        return [value] if isinstance(value, str) else value

    effects = {
        s["Effect"]
        for s in statements
        if any(slow_match(a.lower(), action.lower()) for a in texts(s["Action"]))
        and any(slow_match(r, resource) for r in texts(s["Resource"]))
    }
    return "Deny" not in effects and "Allow" in effects


def one_or_many(texts):
    return texts | st.lists(texts, min_size=1, max_size=3)


LETTERS = "abAB*?"
ACTIONS = st.text(LETTERS, min_size=1, max_size=4).map("s3:{}".format) | st.just("*")
RESOURCES = st.text("ab/*?", min_size=1, max_size=5).map("arn:aws:s3:::{}".format) | st.just("*")
STATEMENTS = st.lists(
    st.fixed_dictionaries(
        {
            "Effect": st.sampled_from(["Allow", "Deny"]),
            "Action": one_or_many(ACTIONS),
            "Resource": one_or_many(RESOURCES),
        }
    ),
    min_size=1,
    max_size=4,
)


@given(
    STATEMENTS,
    STATEMENTS,
    st.text("abAB", min_size=1, max_size=4).map("s3:{}".format),
    st.text("ab/*?", min_size=1, max_size=5).map("arn:aws:s3:::{}".format),
)
def test_the_evaluator_agrees_with_the_reference(one, two, action, resource):
    grants = grants_of((policy(*one), policy(*two)))
    wanted = slow_decide(one + two, action, resource)
    assert grants.may(action, resource) is wanted
    if wanted:
        assert grants.may_somewhere(action)


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
def test_patterns_agree_with_the_reference(pattern, text):
    assert compile_pattern(pattern).matches(text) is slow_match(pattern, text)


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["Version", "Statement", "Effect", "Action", "Resource", "x"]), inner, max_size=5),
))  # fmt: skip
def test_any_json_is_a_policy_or_one_error(value):
    with pytest.raises(PolicyError):
        parse_policy(json.dumps(value))


def test_the_order_of_statements_and_policies_does_not_matter():
    deny = policy({"Effect": "Deny", "Action": "s3:*", "Resource": "arn:aws:s3:::b/secret/*"})
    for documents in ((changed(), deny), (deny, changed())):
        grants = grants_of(documents)
        assert grants.may("s3:GetObject", object_arn("b", b"x"))
        assert not grants.may("s3:GetObject", object_arn("b", b"secret/x"))


def test_a_denial_everywhere_leaves_nowhere():
    deny = policy({"Effect": "Deny", "Action": "s3:List*", "Resource": "*"})
    allow = policy({"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::b"})
    assert grants_of((allow,)).may_somewhere("s3:ListAllMyBuckets")
    assert not grants_of((allow, deny)).may_somewhere("s3:ListAllMyBuckets")
    assert not Grants().may_somewhere("s3:ListAllMyBuckets")
    assert EVERYTHING.may("anything", "anywhere")
    assert not NOTHING.may("s3:GetObject", "arn:aws:s3:::b/k")


def test_actions_are_matched_whatever_their_case_and_resources_are_not():
    grants = grants_of((changed(Action="s3:getOBJECT"),))
    assert grants.may("s3:GetObject", "arn:aws:s3:::b/k")
    assert not grants.may("s3:GetObject", "arn:aws:s3:::B/k")


def test_actions_without_effect_are_named():
    statements = parse_policy(changed(Action=["s3:GetObjct", "s3:Get*", "s3:getobject"]))
    assert without_effect(statements, ["s3:GetObject"]) == ["s3:GetObjct"]


def test_the_built_in_policies_say_what_their_names_do():
    readonly, readwrite = (grants_of((BUILT_IN[n],)) for n in ("readonly", "readwrite"))
    for action in ("s3:GetObject", "s3:ListBucket", "s3:ListAllMyBuckets"):
        assert readonly.may(action, "arn:aws:s3:::b/k")
    for action in ("s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:CreateBucket"):
        assert not readonly.may(action, "arn:aws:s3:::b/k")
        assert readwrite.may(action, "arn:aws:s3:::b/k")
