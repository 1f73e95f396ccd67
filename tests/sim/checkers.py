"""Does a history make sense? Linearizability per key and per bucket name, and pages of listings against the keys' histories.

The linearizability checker is Wing and Gong's search with Lowe's memo on (operations done, value). Operations whose outcome
is unknown may take effect at any later time, or never. Registers are independent, so each is checked by itself.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import attrs

FOREVER = float("inf")
WATCHERS = {"get", "lacks"}  # kinds that never change anything
SEALED = "sealed"  # the value of a key whose bucket is gone: absent for ever


class ViolationError(AssertionError):
    """A promise of the store was broken."""


@attrs.define
class Op:
    """One client operation. `outcome`: ok, refused (a definite no without effect), unknown, or failed (no effect)."""

    # put, delete, get, create (If-None-Match: *), replace (If-Match: expected), remove (delete If-Match: expected);
    # seal: the bucket went, with the key in it
    kind: str
    key: Hashable
    value: Any = None  # written, or read
    expected: Any = None  # of replace and remove
    start: float = 0.0
    end: float = FOREVER
    outcome: str = "unknown"


Step = Callable[[Any, Op], tuple[bool, Any]]


def step(value: Any, op: Op) -> tuple[bool, Any]:
    """Whether op, as it ended, is legal on `value`, and the value afterwards."""
    known = op.outcome != "unknown"
    held = None if value == SEALED else value
    if op.kind == "get":
        return op.value == held, value
    if op.kind == "delete":
        return True, SEALED if value == SEALED else None
    if op.kind == "seal":
        return held is None, SEALED
    if op.kind == "remove":
        refused = held not in {None, op.expected}
        return not known or refused == (op.outcome == "refused"), value if refused else (
            SEALED if value == SEALED else None
        )
    if op.kind == "put":
        holds = True
    elif op.kind == "create":
        holds = held is None
    elif op.kind == "replace":
        holds = held is not None and held == op.expected
    else:
        raise ValueError(op.kind)
    if value == SEALED and holds:
        return not known, value  # whoever still writes has no effect, and is not told that it had
    if known:
        return holds == (op.outcome == "ok"), op.value if holds else value
    return True, op.value if holds else value


def check_key(history: Sequence[Op], step: Step = step) -> bool:
    """Whether the history of one register is linearizable, starting from absent."""
    ops = [
        op
        for op in history
        if op.outcome != "failed" and not (op.kind == "get" and op.outcome != "ok")
    ]
    ends = [op.end if op.outcome in {"ok", "refused"} else FOREVER for op in ops]
    must = sum(1 << i for i, end in enumerate(ends) if end < FOREVER)
    order = sorted(range(len(ops)), key=lambda i: ends[i])
    watchers = [i for i in order if ops[i].outcome == "refused" or ops[i].kind in WATCHERS]
    writers = [
        i for i in reversed(order) if i not in watchers
    ]  # the last that is put in comes first
    seen: set[tuple[int, Any]] = set()
    stack: list[tuple[int, Any]] = [(0, None)]
    while stack:
        done, value = stack.pop()
        while True:  # what changes nothing and is legal now is never better off later
            horizon = next((ends[i] for i in order if not done >> i & 1), FOREVER)
            ready = sum(
                1 << i
                for i in watchers
                if not done >> i & 1 and ops[i].start <= horizon and step(value, ops[i])[0]
            )
            if not ready:
                break
            done |= ready
        if done & must == must:
            return True
        if (done, value) in seen:
            continue
        seen.add((done, value))
        for i in writers:
            if not done >> i & 1 and ops[i].start <= horizon:
                legal, after = step(value, ops[i])
                # What may never take effect is not worth a branch in which it has none.
                if legal and (after != value or must >> i & 1):
                    stack.append((done | 1 << i, after))
    return False


def check_linearizable(history: Iterable[Op], step: Step = step) -> None:
    """Every register's history is linearizable. Raises ViolationError with the history of the first that is not."""
    for key, ops in by_key(history).items():
        if not check_key(ops, step):
            lines = "\n".join(f"  {op}" for op in sorted(ops, key=lambda op: op.start))
            raise ViolationError(f"history of {key!r} is not linearizable:\n{lines}")


def by_key(history: Iterable[Op]) -> dict[Any, list[Op]]:
    """The histories of the registers."""
    found: dict[Any, list[Op]] = {}
    for op in history:
        found.setdefault(op.key, []).append(op)
    return found


def surely(history: Sequence[Op], begun: float, ended: float) -> bool | None:
    """Whether the key was there from `begun` to `ended`, whatever the open questions; None: that cannot be said."""
    writes = [
        op
        for op in history
        if op.kind != "get" and op.outcome not in {"failed", "refused"} and op.start <= ended
    ]
    if not writes:
        return False
    if any(op.outcome != "ok" or op.end >= begun for op in writes):
        return None
    last = max(writes, key=lambda op: op.end)
    if last.kind == "remove" or any(op is not last and op.end > last.start for op in writes):
        return None  # the last writes overlap: either may be the final one
    return last.kind not in {"delete", "seal"}


@attrs.define(kw_only=True)
class ListPage:
    """One page as a client saw it, with what was asked for. It says everything about start <= key < resume."""

    bucket: Hashable
    prefix: bytes = b""
    delimiter: bytes = b""
    start: bytes = b""
    limit: int = 1000
    resume: bytes | None = None  # None: to the end
    shown: dict[
        bytes, Any
    ]  # by key, in the order of the page: its value, or PREFIX for a common prefix
    begun: float
    ended: float

    def group(self, key: bytes) -> bytes | None:
        """The common prefix that the key is rolled up in."""
        cut = key.find(self.delimiter, len(self.prefix)) if self.delimiter else -1
        return None if cut < 0 else key[: cut + len(self.delimiter)]

    def covers(self, key: bytes) -> bool:
        """Whether the page says something about the key."""
        return (
            key.startswith(self.prefix)
            and key >= self.start
            and (self.resume is None or key < self.resume)
        )


PREFIX = "prefix"


def check_page(page: ListPage, history: dict[bytes, list[Op]]) -> list[Op]:
    """A page is in order, without duplicates, and shows nothing that cannot be there. `history` by key.

    Returns what it says of each key, as reads of that key: for the linearizability checker, which knows more.
    """
    if list(page.shown) != sorted(page.shown) or len(page.shown) > page.limit:
        raise ViolationError(f"out of order, or longer than was asked for: {page}")
    seen = []
    for name, value in page.shown.items():
        if not name.startswith(page.prefix):
            raise ViolationError(f"{name!r} lacks the prefix: {page}")
        if value == PREFIX:
            inside = [key for key in history if page.group(key) == name and key >= page.start]
            if all(surely(history[key], page.begun, page.ended) is False for key in inside):
                raise ViolationError(f"nothing was under {name!r}: {page}")
        elif name not in history or name < page.start:
            raise ViolationError(f"listed {name!r}, which nobody wrote or asked for: {page}")
        elif page.group(name) is not None:
            raise ViolationError(f"{name!r} is not rolled up: {page}")
    for key in history:
        group = page.group(key)
        if page.covers(key) and group not in page.shown:
            seen.append(_read(page, key, page.shown.get(key)))
        elif key in page.shown and group is None:
            raise ViolationError(f"{key!r} lies beyond the page's end: {page}")
    return seen


def _read(page: ListPage, key: bytes, value: Any) -> Op:
    return Op(
        kind="get", key=(page.bucket, key), value=value, start=page.begun, end=page.ended,
        outcome="ok",
    )  # fmt: skip
