"""Bodies in other sets than their registers: the hints of this node's drives are delivered, and its drives' looks are taken.

What a data drive removes, it removes because the state of the owner that is known to be chosen says so, never because of a hint.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol

import attrs
import msgspec
import trio

from cluster.clock import Ballot, HybridClock
from cluster.drives.away_notes import NOTES_AT_A_TIME, AwayNotes, DueNote
from cluster.drives.drive import Drive, DriveError
from cluster.drives.index_rows import NoteKind
from cluster.errors import ClusterError, StaleBucketError, UnavailableError
from cluster.ids import DataId, DriveId, RowKey
from cluster.layout import Layout
from cluster.metadata.table import RegisterRef, Table
from cluster.objects.introduce import Introducer
from cluster.register.acceptor import Limits
from cluster.register.away import Note, Verdict, judge
from cluster.register.mutations import record_data
from cluster.register.records import KeyState, Register, decode_parts
from cluster.runtime import Runtime

# Above every fence: what becomes of a body does not depend on what its bucket is going through.
_ANY_BUCKET_EPOCH = 1 << 62
_LOOKS_AT_ONCE = 16
_PAUSE_SECONDS = 0.1  # between two pages: what came of the first is durable by then, as a rule
_DRIVE_SECONDS = 10.0  # a drive that takes longer is left for the next time


@attrs.frozen(kw_only=True)
class AwaySettings:
    """Periods, and the age rule of the drives' acceptors."""

    period_seconds: float = 5.0
    again_ms: int = 10_000  # a drive that could not be told, and a register that could not be asked
    later_ms: int = 60_000  # a register that cannot tell yet
    open_ms: int = 300_000  # an upload that is still open
    limits: Limits = attrs.field(factory=Limits)


class NoteKeeper(Protocol):
    """A drive of this node."""

    @property
    def notes(self) -> AwayNotes | None:
        """None: the drive does not work."""
        ...


@attrs.define
class _Body:
    """The notes of several drives on one body; `note` says the most."""

    note: Note
    found: list[tuple[AwayNotes, DueNote]] = attrs.field(factory=list)

    def add(self, keeper: AwayNotes, due: DueNote) -> None:
        self.found.append((keeper, due))
        best = max(self.note, due.note, key=lambda note: note.rank)
        positions = self.note.positions | due.note.positions
        self.note = msgspec.structs.replace(best, positions=positions)


class AwayData:
    """`run` it beside the store. On one set there is nothing to do."""

    def __init__(
        self,
        *,
        table: Table,
        drives_of: Callable[[int], Sequence[Drive]],
        own: Callable[[], Mapping[DriveId, NoteKeeper]],
        layout: Callable[[], Layout],
        clock: HybridClock,
        runtime: Runtime,
        settings: AwaySettings | None = None,
    ) -> None:
        self._table, self._drives_of, self._own, self._layout = table, drives_of, own, layout
        self._clock, self._runtime = clock, runtime
        self._settings = settings if settings is not None else AwaySettings()
        self._introducer = Introducer(drives_of, layout)

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._every_period, self.deliver)
            nursery.start_soon(self._every_period, self.look)
            nursery.start_soon(self._every_period, self.introduce)

    async def _every_period(self, work: Callable[[], Awaitable[bool]]) -> None:
        period, more = self._settings.period_seconds, False
        while True:
            # Spread over the period, so that the nodes do not ask all at once.
            spread = period * (0.75 + self._runtime.rng.random() / 2)
            await trio.sleep(_PAUSE_SECONDS if more else spread)
            more = len(self._layout().sets) > 1 and await work()

    async def _due(self, kind: NoteKind) -> tuple[list[_Body], bool]:
        """And whether more may be due than fit on a page of some drive."""
        bodies: dict[tuple[int, bytes], _Body] = {}
        more = False
        for drive in self._own().values():
            if drive.notes is None:
                continue
            found: list[DueNote] = []
            with suppress(DriveError), trio.move_on_after(_DRIVE_SECONDS):
                found = await drive.notes.due(kind)  # else it is out, or busy: its notes stay
            for due in found:
                key = due.note.set_id, due.note.data_id
                bodies.setdefault(key, _Body(due.note)).add(drive.notes, due)
            more = more or len(found) == NOTES_AT_A_TIME
        return list(bodies.values()), more

    async def introduce(self) -> bool:
        """Tell drives that are new in their sets of what belongs there. Whether more is to be told."""
        own = self._own().items()
        notes = {drive: keeper.notes for drive, keeper in own if keeper.notes is not None}
        return await self._introducer.step(notes)

    # -- hints

    async def deliver(self) -> bool:
        """Tell the drives what concerns them; a hint stays until all of them have it durably. Whether more may be due."""
        bodies, more = await self._due(NoteKind.HINT)
        letters: dict[tuple[int, int], list[_Body]] = {}
        for body in bodies:
            for position in range(body.note.positions.bit_length()):
                if body.note.positions >> position & 1:
                    letters.setdefault((body.note.set_id, position), []).append(body)
        told: dict[int, int] = {}  # by id of the body: positions
        async with trio.open_nursery() as nursery:
            for (set_id, position), to_tell in letters.items():
                nursery.start_soon(self._tell, set_id, position, to_tell, told)
        for body in bodies:
            for keeper, due in body.found:
                keeper.told(due, told.get(id(body), 0), self._settings.again_ms)
        return more

    async def _tell(
        self, set_id: int, position: int, bodies: Sequence[_Body], told: dict[int, int]
    ) -> None:
        try:
            drive = self._drives_of(set_id)[position]
        except (UnavailableError, IndexError):
            return  # a layout that this node has not heard of yet
        for start in range(0, len(bodies), NOTES_AT_A_TIME):
            some = bodies[start : start + NOTES_AT_A_TIME]
            with suppress(DriveError), trio.move_on_after(_DRIVE_SECONDS):
                await drive.look([body.note for body in some])
                for body in some:
                    told[id(body)] = told.get(id(body), 0) | 1 << position

    # -- looks

    async def look(self) -> bool:
        """Ask the registers, and have the drives act on what they say. Whether more may be due."""
        bodies, more = await self._due(NoteKind.LOOK)
        waiting = iter(bodies)  # one that cannot be asked for some time must not hold up the others
        async with trio.open_nursery() as nursery:
            for _ in range(min(_LOOKS_AT_ONCE, len(bodies))):
                nursery.start_soon(self._look_at, waiting)
        return more

    async def _look_at(self, bodies: Iterator[_Body]) -> None:
        settings = self._settings
        again = {Verdict.OPEN: settings.open_ms, Verdict.LATER: settings.later_ms}
        for body in bodies:
            try:
                verdict = await self._judge(body.note)
                again_ms = again.get(verdict, 0)
            except StaleBucketError:
                # At an epoch above every fence only the registers of a bucket that is gone refuse.
                verdict, again_ms = Verdict.COLLECT, 0
            except ClusterError:
                verdict, again_ms = Verdict.LATER, settings.again_ms
            for keeper, due in body.found:
                keeper.settle(due, verdict, again_ms)

    async def _judge(self, note: Note) -> Verdict:
        if note.dead:
            return Verdict.COLLECT
        if all(erasure_set.set_id != note.home for erasure_set in self._layout().sets):
            return Verdict.LATER  # a layout that this node has not heard of yet
        ref = RegisterRef(RowKey(note.owner), note.home, _ANY_BUCKET_EPOCH)
        decide = partial(judge, note, limits=self._settings.limits, now_ms=self._runtime.wall_ms())
        reading = await self._table.read(ref)
        chosen = Register(ballot=reading.ballot, state=reading.state, chosen=True)
        verdict = decide(chosen, await self._referred(ref, chosen.state))
        if verdict is Verdict.FENCE:
            self._clock.see(Ballot.unpack(note.ballot))
            chosen = await self._table.confirm(ref, rewrite=True)
            verdict = decide(chosen, await self._referred(ref, chosen.state))
        return Verdict.LATER if verdict is Verdict.FENCE else verdict

    async def _referred(self, ref: RegisterRef, state: KeyState) -> set[DataId]:
        """All data that a state refers to. Raises UnavailableError where a part list cannot be read."""
        referred = set(record_data(state))
        for version in state.versions:
            if version.body is not None and version.body.count:
                data = await self._table.read_body(ref, version.body)
                if data is None:
                    raise UnavailableError("a part list cannot be read")
                referred.update(part.data_id for part in decode_parts(data))
        return referred
