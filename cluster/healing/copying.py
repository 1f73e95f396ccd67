"""One row brought to one drive: installed as it stands elsewhere, or, where the copy is corrupt, written anew."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import attrs
import msgspec
import trio

from cluster.clock import BALLOT_ZERO, Ballot
from cluster.drives.drive import Drive
from cluster.errors import ClusterError, CorruptError
from cluster.healing.settings import HealingSettings, healing_ref, span_of
from cluster.ids import RowKey
from cluster.metadata.inquiry import ask_each, ask_one
from cluster.metadata.table import Reading, Table
from cluster.register.anti_entropy import (
    Install,
    RowAt,
    Sync,
    SyncPage,
    SyncRow,
    Unneeded,
    Wanted,
    Wants,
)
from cluster.register.messages import (
    CHOSEN,
    Accept,
    Accepted,
    Done,
    Learn,
    Nack,
    NeedBodies,
    NotVoting,
    Reply,
    Request,
    StaleBucket,
)
from cluster.register.records import BodyId, KeyState, decode_state

T = TypeVar("T")


@attrs.frozen
class Copier:
    """Copies rows of one set."""

    table: Table
    set_id: int
    settings: HealingSettings

    @property
    def epoch(self) -> int:
        """Of the layout in force."""
        return self.table.members_of(self.set_id).epoch

    async def ask(self, drive: Drive, request: Request) -> Reply | None:
        """One drive's answer; None: it did not answer in time."""
        return await ask_one(drive, request, self.table.watch, self.settings.round_seconds)

    async def ask_each(self, questions: Sequence[tuple[Drive, Request]]) -> list[Reply | None]:
        """The answers of several drives, asked at once; None: it did not answer in time."""
        seconds = self.settings.round_seconds
        return await ask_each(questions, self.table.watch, seconds)

    async def wants(self, drive: Drive, limit: int) -> Wants | None:
        """What a drive wants, and the version that an Install needs; None: it does not say."""
        start, stop = span_of(self.set_id)
        request = Wanted(limit=limit, epoch=self.epoch, start=start, stop=stop)
        reply = await self.ask(drive, request)
        return reply if isinstance(reply, Wants) else None

    async def install(self, target: Drive, message: Install) -> bool:
        """Whether the drive now holds that state, or a newer one, or wants none of it. Raises ClusterError."""
        reply = await self.ask(target, message)
        if isinstance(reply, NeedBodies):
            bodies = await self._bodies(message.row, message.state, message.bodies)
            if bodies is None:
                return False
            reply = await self.ask(target, attrs.evolve(message, bodies=bodies))
        if isinstance(reply, Nack):
            return reply.low >= message.ballot
        return isinstance(reply, Done | StaleBucket)

    async def install_chosen(
        self, target: Drive, row: RowKey, *, was_chosen: Ballot | None = None
    ) -> bool:
        """Give a drive the state that is chosen now. Raises ClusterError.

        Where a quorum does not know the row, but something was chosen at `was_chosen`, it was forgotten since, and the
        drive wants it no more. Without that nothing may follow from it: the row may be about to be chosen.
        """
        found = await self._find_chosen(target, row)
        if found is None:
            return False
        if found.ballot == BALLOT_ZERO:
            if was_chosen is None:
                return True
            unneeded = Unneeded(rows=[RowAt(row, was_chosen)], epoch=found.epoch)
            return isinstance(await self.ask(target, unneeded), Done)
        return await self.install(target, found)

    async def settle(self, target: Drive, row: RowKey, ballot: Ballot) -> None:
        """What a drive accepted at that ballot, and was told no more of, is chosen or buried. Raises ClusterError.

        A drive that does not hear of it asks again.
        """
        found = await self._find_chosen(target, row)
        if found is not None and found.ballot >= ballot:
            await self.install(target, found)
        elif found is not None:  # a fresh ballot finds it, or outranks it
            await self.table.confirm(healing_ref(row, self.set_id), rewrite=True)

    async def _find_chosen(self, target: Drive, row: RowKey) -> Install | None:
        """What is chosen now, for a drive to install; None: the drive does not say how it stands. Raises ClusterError."""
        # In this order: what the drive purges after the first answer makes it refuse what came with the second.
        wants = await self.wants(target, 0)
        if wants is None:
            return None
        epoch = self.epoch
        reading = await self.table.read(healing_ref(row, self.set_id), bodies=True)
        return _chosen(row, reading, wants.version, epoch)

    async def pass_on(self, source: Drive, target: Drive, row: RowKey) -> bool:
        """Give a drive what another knows to be chosen, though a quorum may have forgotten it. Raises ClusterError."""
        wants = await self.wants(target, 0)
        if wants is None:
            return False
        epoch = self.epoch
        request = Sync(
            start=row, stop=RowKey(row + b"\0"), limit=1, max_bytes=self.settings.page_bytes, epoch=epoch
        )  # fmt: skip
        page = await self.ask(source, request)
        if not isinstance(page, SyncPage) or not page.rows:
            return False
        message = make_install(page.rows[0], wants.version, epoch)
        return message is not None and message.chosen and await self.install(target, message)

    async def repair(self, target: Drive, row: RowKey) -> bool:
        """Replace a corrupt copy. Whether that is done; a later ballot may be needed. Raises ClusterError.

        The row is written back at a fresh ballot, above all that the lost copy can have held; the very same ACCEPT then
        goes to the drive with all bodies, which the others did not need.
        """
        epoch, ref = self.epoch, healing_ref(row, self.set_id)
        register = await self.table.confirm(ref, rewrite=True)
        bodies = await self._bodies(row, register.state, {})
        if bodies is None or self.epoch != epoch:
            return False  # an ACCEPT must not leave the epoch of its PREPARE
        again = Accept(
            row=row,
            ballot=register.ballot,
            epoch=epoch,
            bucket_epoch=ref.bucket_epoch,
            base=BALLOT_ZERO,
            state=register.state,
            bodies=bodies,
        )
        reply = await self.ask(target, again)
        await self.ask(target, Learn(row=row, ballot=register.ballot))
        if isinstance(reply, NotVoting):  # a drive that rebuilds itself answers so, too
            wants = await self.wants(target, self.settings.rows)
            return wants is not None and all(want.row != row for want in wants.rows)
        return isinstance(reply, Accepted)

    async def _bodies(
        self, row: RowKey, state: KeyState, have: Mapping[BodyId, bytes]
    ) -> Mapping[BodyId, bytes] | None:
        """All body rows of a state; None: one cannot be had."""
        ref, bodies = healing_ref(row, self.set_id), dict(have)
        for version in state.versions:
            if version.body is not None and version.body.id not in bodies:
                try:
                    data = await self.table.read_body(ref, version.body)
                except CorruptError:
                    return None
                if data is None:
                    return None
                bodies[version.body.id] = data
        return bodies


def make_install(row: SyncRow, version: int, epoch: int) -> Install | None:
    """The row of a page as it is installed; None: it is corrupt, or its state is none that we know."""
    if row.ballot is None:
        return None
    try:
        state = decode_state(row.encoded)
    except msgspec.DecodeError:
        return None
    return Install(
        row=row.row, ballot=Ballot.unpack(row.ballot), epoch=epoch, version=version, state=state,
        chosen=bool(row.flags & CHOSEN), bodies=row.bodies,
    )  # fmt: skip


def _chosen(row: RowKey, reading: Reading, version: int, epoch: int) -> Install:
    return Install(
        row=row, ballot=reading.ballot, epoch=epoch, version=version, state=reading.state, chosen=True,
        bodies=reading.bodies,
    )  # fmt: skip


async def for_each(items: Sequence[T], at_once: int, work: Callable[[T], Awaitable[bool]]) -> int:
    """Do the work for every item, so many at a time. How many it failed for (False, or ClusterError).

    What failed is tried again by itself, until one fails so, too: a drive that is busy refuses some of many, and may be
    always the same ones.
    """
    failed: list[T] = []
    waiting = iter(items)

    async def go() -> None:
        failed.extend([item for item in waiting if not await _succeeds(work, item)])

    async with trio.open_nursery() as nursery:
        for _ in range(min(at_once, len(items))):
            nursery.start_soon(go)
    for tried, item in enumerate(failed):
        if not await _succeeds(work, item):
            return len(failed) - tried
    return 0


async def _succeeds(work: Callable[[T], Awaitable[bool]], item: T) -> bool:
    try:
        return await work(item)
    except ClusterError:
        return False
