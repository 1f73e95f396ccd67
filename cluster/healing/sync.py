"""A drive takes all rows of its set from others: before it votes, or because it was away for long.

A drive that rebuilds itself holds nothing, and the one before it may have been among those that chose a value. So it takes
the highest ballot of every row from a read quorum of the others, chosen or not: every accept quorum of an earlier epoch
had Qw - 1 of these, which meets Qr of them, and a value that only the lost drive and they had accepted was chosen all the
same. Its sources serve the epoch in which it came, and refuse accepts of earlier ones (PROTOCOL 1.11). The highest floor and
all fences come along, and the sources' ceilings as a floor: what the lost drive promised is forgotten, and a
proposal that was prepared with its promise, and accepted by few, would outrank a value that the new drive helped to choose
at a lower ballot. With the ceilings of Qw drives, one of which gave that promise too, it refuses such a ballot. Rows whose copy at a source is corrupt are repaired there first: they are not absent.
"""

from collections.abc import Sequence

import attrs

from cluster.clock import BALLOT_ZERO, Ballot, floor_at
from cluster.drives.drive import Drive
from cluster.healing.copying import Copier, for_each, make_install
from cluster.healing.settings import span_of
from cluster.ids import DriveId, RowKey
from cluster.register.anti_entropy import RaiseFloor, Sync, SyncPage, SyncRow
from cluster.register.messages import Done, Fence

_TRIES = 3  # for a row that changes while it is copied


@attrs.define
class Progress:
    """How far a drive has come. Whoever keeps it can go on where it stopped; without it the drive begins again."""

    since: int  # the epoch in which the drive came to its place
    cursors: dict[DriveId, RowKey] = attrs.field(
        factory=dict
    )  # source -> where its next page begins
    synced: set[DriveId] = attrs.field(factory=set)  # all of whose rows it has: topology's evidence
    floor: Ballot = BALLOT_ZERO


async def sync(
    copier: Copier, drive: Drive, sources: Sequence[Drive], progress: Progress, *, pages: int
) -> None:
    """At most so many pages, source after source. `progress.synced` says what is complete.

    The sources are other voting drives of the set, and the one that had the place before. Rows need Qr of them; the
    floor Qw, or all that are not gone for good.
    """
    for source in sources:
        if source.drive_id in progress.synced:
            continue
        while pages > 0:
            pages -= 1
            if not await _take_page(copier, drive, source, progress):
                break  # another source may be better
            if source.drive_id in progress.synced:
                break


async def _take_page(copier: Copier, drive: Drive, source: Drive, progress: Progress) -> bool:
    """Whether all of the page is on the drive."""
    start, stop = span_of(copier.set_id)
    cursor = progress.cursors.get(source.drive_id, start)
    is_first = cursor == start
    found = await _pull(copier, drive, source, cursor, stop, progress, fences=is_first)
    if found is None:
        return False
    page, version, epoch = found
    if not await _take_fences(copier, drive, page, progress, epoch, is_first=is_first):
        return False

    async def take(row: SyncRow) -> bool:
        return await _take_row(copier, drive, source, row, version, epoch, progress)

    if await for_each(page.rows, copier.settings.at_once, take):
        return False
    if page.next is None:
        progress.synced.add(source.drive_id)
    else:
        progress.cursors[source.drive_id] = page.next
    return True


async def _pull(
    copier: Copier, drive: Drive, source: Drive, start: RowKey, stop: RowKey | None, progress: Progress,
    *, fences: bool = False, limit: int = 0,
) -> tuple[SyncPage, int, int] | None:  # fmt: skip
    """A page, the drive's version from before it was read, and the epoch of both."""
    epoch, settings = copier.epoch, copier.settings
    if epoch < progress.since:
        return None  # a source that has not adopted that epoch may still accept what we do not see
    wants = await copier.wants(drive, 0)
    if wants is None:
        return None
    request = Sync(
        start=start, stop=stop, limit=limit or settings.rows, max_bytes=settings.page_bytes,
        epoch=epoch, fences=fences,
    )  # fmt: skip
    page = await copier.ask(source, request)
    return (page, wants.version, epoch) if isinstance(page, SyncPage) else None


async def _take_fences(
    copier: Copier, drive: Drive, page: SyncPage, progress: Progress, epoch: int, *, is_first: bool
) -> bool:
    floor = max(page.gc_floor, floor_at(page.ceiling_ms)) if is_first else page.gc_floor
    if floor > progress.floor:
        reply = await copier.ask(drive, RaiseFloor(floor=floor, epoch=epoch))
        if not isinstance(reply, Done):
            return False
        progress.floor = floor
    for bucket, bucket_epoch, dead in page.fences:
        fence = Fence(bucket=bucket, bucket_epoch=bucket_epoch, dead=dead)
        if not isinstance(await copier.ask(drive, fence), Done):
            return False
    return True


async def _take_row(
    copier: Copier,
    drive: Drive,
    source: Drive,
    row: SyncRow,
    version: int,
    epoch: int,
    progress: Progress,
) -> bool:
    for _ in range(_TRIES):
        if row.ballot is None:
            await copier.repair(source, row.row)
        else:
            message = make_install(row, version, epoch)
            if message is None:
                return False  # not even a state: the source's index is none that we know
            if await copier.install(drive, message):
                return True
            # One that votes takes only what is known to be chosen.
            if not message.chosen and await copier.install_chosen(drive, row.row):
                return True
        after = RowKey(row.row + b"\0")
        found = await _pull(copier, drive, source, row.row, after, progress, limit=1)
        if found is None:
            return False
        page, version, epoch = found
        if not page.rows:
            return True  # purged meanwhile, after all had it
        (row,) = page.rows
    return False
