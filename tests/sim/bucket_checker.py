"""The histories of bucket names. A bucket is named by its incarnation, the number of the operation that created it.

A deletion sees every key of its incarnation absent, and nothing takes effect in it afterwards: that becomes an operation of
each key ("seal"), which the keys' own histories must bear.
"""

from collections.abc import Sequence
from typing import Any

from tests.sim.checkers import FOREVER, Op, ViolationError, by_key, check_linearizable, surely


def step_bucket(value: Any, op: Op) -> tuple[bool, Any]:
    """See checkers.step; kinds: create, get, delete (expected), lacks (expected): another incarnation or none."""
    known = op.outcome != "unknown"
    if op.kind == "get":
        return op.value == value, value
    if op.kind == "lacks":
        return value != op.expected, value
    if op.kind == "create":
        free = value is None
        return not known or free == (op.outcome == "ok"), op.value if free else value
    assert op.kind == "delete", op.kind
    ours = value == op.expected
    if op.outcome == "refused":
        return ours, value
    return ours or op.outcome == "unknown", None if ours else value


def check_buckets(history: Sequence[Op]) -> None:
    """Raises ViolationError."""
    check_linearizable(history, step_bucket)


def seals(history: Sequence[Op], keys: Sequence[tuple[int, bytes]]) -> list[Op]:
    """For each key of a bucket that is known to have gone: when it went, at the earliest and at the latest."""
    found = []
    for ops in by_key(history).values():
        for incarnation in {op.expected for op in ops if op.kind == "delete"}:
            span = _going(ops, incarnation)
            if span is not None:
                found += [
                    Op(kind="seal", key=key, start=span[0], end=span[1], outcome="ok")
                    for key in keys
                    if key[0] == incarnation
                ]
    return found


def _going(ops: Sequence[Op], incarnation: int) -> tuple[float, float] | None:
    deletes = [op for op in ops if op.kind == "delete" and op.expected == incarnation]
    start = min((op.start for op in deletes if op.outcome != "refused"), default=FOREVER)
    known = min(
        (
            op.end
            for op in ops
            if op.outcome == "ok"
            and ((op.kind == "create" and op.value == incarnation)
                 or (op.kind == "get" and op.value == incarnation))
        ),
        default=FOREVER,
    )  # fmt: skip
    ends = [op.end for op in deletes if op.outcome == "ok"]
    ends += [op.end for op in ops if op.kind == "lacks" and op.expected == incarnation]
    ends += [
        op.end
        for op in ops
        if op.outcome == "ok"
        and op.kind in {"get", "create"}
        and op.value != incarnation
        and op.start > known
    ]
    end = min((end for end in ends if end > start), default=FOREVER)
    return (start, end) if end < FOREVER else None


def check_refusals(history: Sequence[Op], keys: dict[tuple[int, bytes], list[Op]]) -> None:
    """A bucket is not called full while it is empty. `keys`: the histories of all keys."""
    for op in history:
        if op.kind != "delete" or op.outcome != "refused":
            continue
        inside = [ops for key, ops in keys.items() if key[0] == op.expected]
        if all(surely(ops, op.start, op.end) is False for ops in inside):
            raise ViolationError(f"the bucket was empty: {op}")
