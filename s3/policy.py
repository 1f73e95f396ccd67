"""Policies in AWS's JSON ("Policies and permissions in IAM", IAM User Guide), as far as it goes here. Pure.

Version, Statement, Effect, Action, Resource, with * and ?. An explicit Deny wins, what no statement allows is denied.
A document with anything else (Condition, NotAction, Principal, variables) is refused when it is written: a condition that
was ignored would allow too much, or deny too little.
"""

import functools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

ARN = "arn:aws:s3:::"
_VERSION = "2012-10-17"
_ACTION = re.compile(r"\*|s3:[A-Za-z0-9*?]+")
_DOCUMENT_FIELDS = frozenset({"Version", "Statement"})
_STATEMENT_FIELDS = frozenset({"Sid", "Effect", "Action", "Resource"})


class PolicyError(Exception):
    """The document cannot be used; the message says where and why."""


@attrs.frozen
class Pattern:
    """Text with * for any characters and ? for one. Made by compile_pattern."""

    text: str
    regex: re.Pattern[str]

    def matches(self, text: str) -> bool:
        """Whether it stands for the whole of a text."""
        return self.regex.fullmatch(text) is not None


@attrs.frozen
class Statement:
    """Allows or denies any of these actions on any of these resources."""

    allow: bool
    actions: tuple[Pattern, ...]
    resources: tuple[Pattern, ...]

    def names(self, action: str) -> bool:
        """Whether the action is one of those."""
        return any(pattern.matches(action) for pattern in self.actions)

    @property
    def everywhere(self) -> bool:
        """Whether it speaks of all resources."""
        return any(pattern.text in {"*", f"{ARN}*"} for pattern in self.resources)

    def covers(self, action: str, resource: str) -> bool:
        """Whether it speaks of this action on this resource."""
        return self.names(action) and any(p.matches(resource) for p in self.resources)


@attrs.frozen
class Grants:
    """What an identity may do."""

    statements: tuple[Statement, ...] = ()
    everything: bool = False

    def may(self, action: str, resource: str) -> bool:
        """Whether the action is allowed on the resource, an ARN."""
        if self.everything:
            return True
        allowed = False
        for statement in self.statements:
            if statement.covers(action, resource):
                if not statement.allow:
                    return False
                allowed = True
        return allowed

    def may_somewhere(self, action: str) -> bool:
        """Whether the action is allowed on some resource, as far as can be said without looking at one."""
        if self.everything:
            return True
        denied = any(not s.allow and s.names(action) and s.everywhere for s in self.statements)
        return not denied and any(s.allow and s.names(action) for s in self.statements)


EVERYTHING = Grants(everything=True)
NOTHING = Grants()


@functools.lru_cache(maxsize=256)
def grants_of(documents: tuple[str, ...]) -> Grants:
    """What all these policies together allow: nothing, where one cannot be read, for it may deny."""
    try:
        return Grants(tuple(s for document in documents for s in parse_policy(document)))
    except PolicyError:
        return NOTHING


def bucket_arn(bucket: str) -> str:
    """The resource that a bucket is."""
    return ARN + bucket


def object_arn(bucket: str, key: bytes) -> str:
    """The resource that an object is."""
    return f"{ARN}{bucket}/{key.decode()}"


def parse_policy(text: str) -> tuple[Statement, ...]:
    """The statements of a document. Raises PolicyError."""
    try:
        document = json.loads(text, object_pairs_hook=_no_doubles)
    except (ValueError, RecursionError) as error:
        raise PolicyError(f"not JSON: {error}") from error
    fields = _fields(document, "the policy", _DOCUMENT_FIELDS)
    if fields.get("Version") != _VERSION:
        raise PolicyError(f'Version must be "{_VERSION}"')
    statements = fields.get("Statement")
    if isinstance(statements, dict):
        statements = [statements]
    if not isinstance(statements, list) or not statements:
        raise PolicyError("Statement must be a list of statements")
    return tuple(_statement(s, f"statement {n}") for n, s in enumerate(statements, 1))


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a name is given twice in one object")
    return fields


def _fields(value: Any, where: str, known: frozenset[str]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise PolicyError(f"{where} must be a JSON object")
    strange = sorted(set(value) - known)
    if strange:
        raise PolicyError(f"{where}: {', '.join(strange)} is not supported")
    return value


def _statement(value: Any, where: str) -> Statement:
    fields = _fields(value, where, _STATEMENT_FIELDS)
    if not isinstance(fields.get("Sid", ""), str):
        raise PolicyError(f"{where}: Sid must be text")
    if fields.get("Effect") not in {"Allow", "Deny"}:
        raise PolicyError(f'{where}: Effect must be "Allow" or "Deny"')
    actions = _texts(fields, "Action", where)
    resources = _texts(fields, "Resource", where)
    for action in actions:
        if not _ACTION.fullmatch(action):
            raise PolicyError(f'{where}: Action {action!r} must be "*" or "s3:Name"')
    for resource in resources:
        if resource != "*" and not (resource.startswith(ARN) and len(resource) > len(ARN)):
            raise PolicyError(f'{where}: Resource {resource!r} must be "*" or begin with {ARN}')
        if "${" in resource:
            raise PolicyError(f"{where}: variables, as in {resource!r}, are not supported")
    return Statement(
        allow=fields["Effect"] == "Allow",
        actions=tuple(compile_pattern(action, re.IGNORECASE) for action in actions),
        resources=tuple(compile_pattern(resource) for resource in resources),
    )


def _texts(fields: Mapping[str, Any], name: str, where: str) -> Sequence[str]:
    value = fields.get(name)
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise PolicyError(f"{where}: {name} must be text, or a list of texts")
    return texts


def compile_pattern(pattern: str, flags: int = 0) -> Pattern:
    """The pattern, ready to match.

    Each piece between stars is taken where it first fits and never moved again (an atomic group), which finds a match
    where there is one, in time linear in the text: a pattern of many stars must not cost a request seconds.
    """
    first, *rest = [
        "".join("." if c == "?" else re.escape(c) for c in p) for p in pattern.split("*")
    ]
    regex = first
    if rest:
        regex += "".join(f"(?>.*?{piece})" for piece in rest[:-1] if piece) + f".*{rest[-1]}"
    return Pattern(pattern, re.compile(regex, flags | re.DOTALL))


def without_effect(statements: Sequence[Statement], actions: Iterable[str]) -> Sequence[str]:
    """The action patterns that stand for none of `actions`: typing errors, or what is not there yet."""
    patterns = {pattern.text: pattern for s in statements for pattern in s.actions}
    known = list(actions)
    return [text for text, p in sorted(patterns.items()) if not any(map(p.matches, known))]
