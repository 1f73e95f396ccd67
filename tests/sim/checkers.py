"""Does a history make sense? Linearizability per key, and listings against what was there meanwhile.

The linearizability checker is Wing and Gong's search with Lowe's memo on (operations done, value). Operations whose outcome
is unknown may take effect at any later time, or never. Keys are independent, so each is checked by itself.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import attrs

FOREVER = float("inf")


class ViolationError(AssertionError):
    """A promise of the store was broken."""


@attrs.define
class Op:
    """One client operation. `outcome`: ok, refused (a definite no without effect), unknown, or failed (no effect)."""

    kind: str  # put, delete, get, create (If-None-Match: *), replace (If-Match: expected)
    key: bytes
    value: Any = None  # written, or read
    expected: Any = None  # of replace
    start: float = 0.0
    end: float = FOREVER
    outcome: str = "unknown"


def step(value: Any, op: Op) -> tuple[bool, Any]:
    """Whether op, as it ended, is legal on `value`, and the value afterwards."""
    known = op.outcome != "unknown"
    if op.kind == "get":
        return op.value == value, value
    if op.kind == "put":
        return True, op.value
    if op.kind == "delete":
        return True, None
    if op.kind == "create":
        holds = value is None
    elif op.kind == "replace":
        holds = value is not None and value == op.expected
    else:
        raise ValueError(op.kind)
    if known:
        return holds == (op.outcome == "ok"), op.value if holds else value
    return True, op.value if holds else value


def check_key(history: Sequence[Op]) -> bool:
    """Whether the history of one key is linearizable, starting from absent."""
    ops = [
        op
        for op in history
        if op.outcome != "failed" and not (op.kind == "get" and op.outcome != "ok")
    ]
    ends = [op.end if op.outcome in {"ok", "refused"} else FOREVER for op in ops]
    must = sum(1 << i for i, end in enumerate(ends) if end < FOREVER)
    seen: set[tuple[int, Any]] = set()
    stack: list[tuple[int, Any]] = [(0, None)]
    while stack:
        done, value = stack.pop()
        if done & must == must:
            return True
        if (done, value) in seen:
            continue
        seen.add((done, value))
        horizon = min((ends[i] for i in range(len(ops)) if not done >> i & 1), default=FOREVER)
        for i, op in enumerate(ops):
            if not done >> i & 1 and op.start <= horizon:
                legal, after = step(value, op)
                if legal:
                    stack.append((done | 1 << i, after))
    return False


def check_linearizable(history: Iterable[Op]) -> None:
    """Every key's history is linearizable. Raises ViolationError with the history of the first that is not."""
    by_key: dict[bytes, list[Op]] = {}
    for op in history:
        by_key.setdefault(op.key, []).append(op)
    for key, ops in by_key.items():
        if not check_key(ops):
            lines = "\n".join(f"  {op}" for op in sorted(ops, key=lambda op: op.start))
            raise ViolationError(f"history of {key!r} is not linearizable:\n{lines}")


@attrs.define
class ListPage:
    """One page as a client saw it: keys from `start` on, up to and including the last key it covers."""

    start: bytes
    stop: bytes | None  # the page says everything about start <= key < stop; None: to the end
    keys: list[bytes]
    begun: float
    ended: float


def check_page(page: ListPage, history: Sequence[Op]) -> None:
    """A key that was surely there during the page is on it; one that surely was not is absent; order, no duplicates."""
    if sorted(set(page.keys)) != page.keys:
        raise ViolationError(f"page is out of order or has duplicates: {page.keys}")
    by_key: dict[bytes, list[Op]] = {}
    for op in history:
        if op.kind != "get" and op.outcome not in {"failed", "refused"}:
            by_key.setdefault(op.key, []).append(op)
    shown = set(page.keys)
    for key in shown - by_key.keys():
        raise ViolationError(f"listed {key!r}, which nobody ever wrote")
    for key, writes in by_key.items():
        if key < page.start or (page.stop is not None and key >= page.stop):
            continue
        if all(op.end < page.begun for op in writes) and all(op.outcome == "ok" for op in writes):
            last = max(writes, key=lambda op: op.end)
            if any(op is not last and op.end > last.start for op in writes):
                continue  # the last writes overlap: either may be the final one
            if (last.kind != "delete") != (key in shown):
                raise ViolationError(
                    f"page at {page.begun}..{page.ended} {'lacks' if last.kind != 'delete' else 'shows'} {key!r}"
                )
        elif all(op.start > page.ended for op in writes) and key in shown:
            raise ViolationError(f"listed {key!r} before anybody wrote it")
