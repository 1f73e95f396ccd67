"""Versions of a key as clients saw them: is there one order of the operations that explains everything (PROTOCOL 4.3, 3)?

The state of a key is its list of versions, newest first, of which each has an id, what it holds, and whether it is the null
version. Every acknowledged operation takes effect once, between its call and its answer; one whose outcome is unknown, at some
time or never. Beside that: stamps fall within a listing, an id is the stamp, and what holds a value never changes either.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import attrs

from cluster.objects.model import NULL_VERSION, Version, Versioning
from tests.sim.checkers import FOREVER, ViolationError

MARKER = "marker"


class Entry(NamedTuple):
    """One version in the model."""

    version_id: bytes | None  # NULL_VERSION for the null one; None: named, but nobody saw how
    holds: Any  # a value, or MARKER


State: TypeAlias = tuple[Entry, ...]


@attrs.define(eq=False)
class VersionOp:
    """One client operation.

    kind: put, create (If-None-Match: *), delete (without an id), remove (one version by id), get, get-version, list.
    """

    kind: str
    key: bytes
    value: Any = None  # written
    version_id: bytes | None = None  # asked for; or, of a put or delete, what it was named
    seen: Any = None  # get: value, MARKER or None; list: [(id, value or MARKER)]; remove: whether something was there
    start: float = 0.0
    end: float = FOREVER
    outcome: str = "unknown"
    modes: frozenset[Versioning] = frozenset()  # in which it may have taken effect


@attrs.define
class ModeChange:
    """The bucket's mode: asked for, and acknowledged (FOREVER: it was not)."""

    mode: Versioning
    called: float
    acknowledged: float = FOREVER


def modes_of(op: VersionOp, changes: Sequence[ModeChange]) -> frozenset[Versioning]:
    """The modes that a write may follow: none that a later change had ended before the write began.

    A write whose outcome is unknown follows the bucket for as long as it may still take effect.
    """
    end = op.end if op.outcome in {"ok", "refused"} else FOREVER
    return frozenset(
        change.mode
        for at, change in enumerate(changes)
        if change.called <= end
        and not any(later.acknowledged < op.start for later in changes[at + 1 :])
    )


class KeyChecker:
    """Explains the history of one key, or fails to."""

    def __init__(self, history: Iterable[VersionOp]) -> None:
        self.ops = [
            op
            for op in history
            if op.outcome != "failed"
            and (op.outcome == "ok" or op.kind not in {"get", "get-version", "list"})
        ]
        writes = ("put", "create", "delete")
        self.claimed = {op.version_id for op in self.ops if op.kind in writes} | {NULL_VERSION}

    def explain(self) -> bool:
        """Wing and Gong's search, with Lowe's memo on (operations done, state)."""
        ops = self.ops
        ends = [op.end if op.outcome in {"ok", "refused"} else FOREVER for op in ops]
        must = sum(1 << at for at, end in enumerate(ends) if end < FOREVER)
        seen: set[tuple[int, State]] = set()
        stack: list[tuple[int, State]] = [(0, ())]
        while stack:
            done, state = stack.pop()
            if done & must == must:
                return True
            if (done, state) in seen:
                continue
            seen.add((done, state))
            left = [at for at in range(len(ops)) if not done >> at & 1]
            horizon = min(ends[at] for at in left)
            for at in left:
                if ops[at].start <= horizon:
                    stack += [(done | 1 << at, after) for after in self.step(state, ops[at])]
        return False

    def step(self, state: State, op: VersionOp) -> Iterator[State]:
        """The states that op, as it ended, can leave behind `state`; none: it cannot have happened there."""
        match op.kind:
            case "put":
                yield from self._put(state, op, op.value)
            case "create":
                is_free = not state or state[0].holds == MARKER
                if op.outcome != "unknown" and is_free != (op.outcome == "ok"):
                    return
                yield from self._put(state, op, op.value) if is_free else (state,)
            case "delete":
                if op.modes & {Versioning.ENABLED, Versioning.SUSPENDED}:
                    yield from self._put(state, op, MARKER)
                if Versioning.UNVERSIONED in op.modes and op.version_id is None:
                    yield without(state, NULL_VERSION)
            case "remove":
                found = [entry for entry in state if self.is_named(entry, op.version_id)]
                if not op.seen and all(entry.version_id is None for entry in found):
                    yield state  # nothing was there, or a marker of another name
                for entry in found:
                    yield tuple(e for e in state if e is not entry)
            case _:
                if self.shows(state, op):
                    yield state

    def _put(self, state: State, op: VersionOp, holds: Any) -> Iterator[State]:
        is_null = op.version_id == NULL_VERSION
        if op.modes & {Versioning.UNVERSIONED, Versioning.SUSPENDED} and (
            is_null or op.version_id is None
        ):
            yield (Entry(NULL_VERSION, holds), *without(state, NULL_VERSION))
        if Versioning.ENABLED in op.modes and not is_null:
            yield (Entry(op.version_id, holds), *state)

    def is_named(self, entry: Entry, version_id: bytes | None) -> bool:
        """Whether the entry may be what goes by that id: a marker whose answer was lost may be any unclaimed one."""
        if entry.version_id is not None:
            return entry.version_id == version_id
        return entry.holds == MARKER and version_id not in self.claimed

    def shows(self, state: State, op: VersionOp) -> bool:
        """Whether a read of `state` sees what op saw."""
        if op.kind == "list":
            return len(state) == len(op.seen) and all(
                self.is_named(entry, version_id) and entry.holds == holds
                for entry, (version_id, holds) in zip(state, op.seen, strict=True)
            )
        if op.kind == "get":
            return (state[0].holds if state else None) == op.seen
        found = [entry for entry in state if self.is_named(entry, op.version_id)]
        if op.seen is None:
            return all(entry.version_id is None for entry in found)
        return any(entry.holds == op.seen for entry in found)


def without(state: State, version_id: bytes) -> State:
    """The state without the version of that id."""
    return tuple(entry for entry in state if entry.version_id != version_id)


@attrs.define
class Observations:
    """What every sight of a version says of it, for good: the stamp and the id of a value."""

    known: dict[tuple[bytes, Any], tuple[object, bytes]] = attrs.field(factory=dict)

    def note(self, key: bytes, value: Any, version: Version) -> bytes:
        """The version's id. Raises ViolationError where it was seen under another, or with another stamp."""
        version_id = version.version_id if version.version_id is not None else NULL_VERSION
        if version_id not in {NULL_VERSION, version.stamp.pack()}:
            raise ViolationError(f"{key!r}: {version_id.hex()} is not its stamp")
        name = (key, value if value != MARKER else version.stamp)
        known = self.known.setdefault(name, (version.stamp, version_id))
        if known != (version.stamp, version_id):
            raise ViolationError(f"{key!r}: {value} has become another version: {known}")
        return version_id

    def note_all(self, key: bytes, rows: Sequence[tuple[Any, Version, bool]]) -> list[Any]:
        """A listing of one key: (value, version, is latest), newest first. Raises ViolationError."""
        stamps = [version.stamp for _, version, _ in rows]
        if stamps != sorted(set(stamps), reverse=True):
            raise ViolationError(f"{key!r}: versions out of order: {stamps}")
        if [latest for _, _, latest in rows] != [at == 0 for at in range(len(rows))]:
            raise ViolationError(f"{key!r}: the wrong version is called the latest")
        return [(self.note(key, value, version), value) for value, version, _ in rows]


def check_versions(
    history: Sequence[VersionOp], changes: Sequence[ModeChange], observed: Observations
) -> None:
    """Raises ViolationError with the history of the first key that no order explains."""
    by_key: dict[bytes, list[VersionOp]] = {}
    for op in history:
        op.modes = modes_of(op, changes)
        if op.version_id is None and op.kind in {"put", "create"}:
            _, op.version_id = observed.known.get((op.key, op.value), (None, None))
        by_key.setdefault(op.key, []).append(op)
    for key, ops in by_key.items():
        if not KeyChecker(ops).explain():
            lines = "\n".join(f"  {op}" for op in sorted(ops, key=lambda op: op.start))
            raise ViolationError(f"no order explains the versions of {key!r}:\n{lines}")
