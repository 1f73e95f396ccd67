"""Tombstones that every drive of a set holds, and that are old enough, are forgotten everywhere."""

from collections.abc import Sequence

import attrs
import msgspec

from cluster.clock import Ballot
from cluster.drives.drive import ANSWERING, Drive
from cluster.healing.copying import Copier, for_each
from cluster.healing.settings import ANY_BUCKET_EPOCH, is_settled, span_of
from cluster.ids import RowKey
from cluster.layout import Layout
from cluster.register.anti_entropy import Have, Held, Purge, RowAt
from cluster.register.messages import Done, Learn, Page, Scan, ScanRow
from cluster.register.records import decode_state


@attrs.frozen
class Purged:
    """What a round came to."""

    rows: int = 0
    next: RowKey | None = None  # where the next round goes on; None: from the start


def candidates(rows: Sequence[ScanRow], now_hlc: int, after_ms: int) -> list[RowAt]:
    """Tombstones of a page that are known to be chosen and are older than that. Pure."""
    found = []
    for row in rows:
        if row.ballot is None or row.live or not row.chosen:
            continue
        ballot = Ballot.unpack(row.ballot)
        if now_hlc <= ballot.hlc + after_ms:
            continue
        try:
            state = decode_state(row.encoded)
        except msgspec.DecodeError:
            continue  # another drive may read it
        if state.is_tombstone:
            found.append(RowAt(row.row, ballot))
    return found


def held_by_all(named: Sequence[RowAt], answers: Sequence[Held]) -> list[RowAt]:
    """Those that every drive holds, or something newer. A corrupt row is held by nobody. Pure."""
    return [
        tombstone
        for place, tombstone in enumerate(named)
        if all(
            (ballot := held.ballots[place]) is not None and ballot >= tombstone.ballot
            for held in answers
        )
    ]


def lacking(named: Sequence[RowAt], answers: Sequence[Held]) -> list[tuple[int, RowKey]]:
    """Which drives, by their place, hold something older than a tombstone, or nothing. Pure."""
    return [
        (index, tombstone.row)
        for index, held in enumerate(answers)
        for place, tombstone in enumerate(named)
        if (ballot := held.ballots[place]) is not None and ballot < tombstone.ballot
    ]


async def purge(
    copier: Copier, layout: Layout, own: Drive, start: RowKey | None = None, *, after_ms: int
) -> Purged:
    """One round: the next rows of one drive, nothing unless all n members of the set answer.

    A tombstone that some drive lacks is given to it, and waits for a later round: the drive may hold what the tombstone
    buried; or it has forgotten both, when the end of an earlier round did not reach all.
    """
    first, stop = span_of(copier.set_id)
    members = copier.table.members_of(copier.set_id)
    if layout.epoch != members.epoch or not is_settled(layout, copier.set_id):
        return Purged(next=start)
    if any(drive.state not in ANSWERING for drive in members.drives):
        return Purged(next=start)  # for months, perhaps
    settings = copier.settings
    page = await copier.ask(
        own,
        Scan(
            start=first if start is None else start, stop=stop, limit=settings.rows,
            epoch=members.epoch, bucket_epoch=ANY_BUCKET_EPOCH,
        ),
    )  # fmt: skip
    if not isinstance(page, Page):
        return Purged(next=start)
    named = candidates(page.rows, copier.table.clock.tick().hlc, after_ms)
    if not named:
        return Purged(next=page.next)
    have = Have(rows=named, epoch=members.epoch)
    answers = []
    for held in await copier.ask_each([(drive, have) for drive in members.drives]):
        if not isinstance(held, Held) or len(held.ballots) != len(named):
            return Purged(next=page.next)
        answers.append(held)

    async def give(place: tuple[int, RowKey]) -> bool:
        index, row = place
        return await copier.pass_on(own, members.drives[index], row)

    await for_each(lacking(named, answers), settings.at_once, give)
    ready = held_by_all(named, answers)
    if not ready:
        return Purged(next=page.next)
    gone = await _forget(copier, members.drives, ready, members.epoch)
    return Purged(len(ready) if gone else 0, page.next)


async def _forget(
    copier: Copier, drives: Sequence[Drive], named: Sequence[RowAt], epoch: int
) -> bool:
    for drive in drives:
        for tombstone in named:  # it may not know yet that it is chosen
            drive.submit(Learn(row=tombstone.row, ballot=tombstone.ballot), _ignore)
    request = Purge(rows=named, epoch=epoch)
    replies = await copier.ask_each([(drive, request) for drive in drives])
    return all(isinstance(reply, Done) for reply in replies)


def _ignore(_: object) -> None:
    """Without it the drive keeps the row, and the next round tries again."""
