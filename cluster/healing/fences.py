"""Fences that a drive missed: of a bucket above all that is gone, whose rows and shards it would keep for ever.

That a bucket is gone is told to the drives once, by whoever deleted it. Where that one died, no drive may know, and nobody has the bucket's
name any more; but its fence stands, and no record has its id.
"""

from collections.abc import Collection, Sequence

from cluster.drives.drive import Drive
from cluster.healing.copying import Copier
from cluster.healing.settings import span_of
from cluster.ids import BucketId
from cluster.register.anti_entropy import FenceAt, Sync, SyncPage
from cluster.register.messages import Done, Fence


async def take_fences(copier: Copier, drive: Drive, peers: Sequence[Drive]) -> int:
    """Give a drive the fences that its peers have and it lacks. How many."""
    mine, *theirs = await _fences_of(copier, (drive, *peers))
    if mine is None:
        return 0
    noted = {fence for fences in theirs for fence in fences or ()}
    return await _fence(copier, drive, noted.difference(mine))


async def standing_fences(copier: Copier, drive: Drive) -> list[FenceAt]:
    """Of buckets that the drive does not know to be gone."""
    (fences,) = await _fences_of(copier, (drive,))
    return [fence for fence in fences or () if not fence.dead]


async def bury(
    copier: Copier, drive: Drive, standing: Sequence[FenceAt], recorded: Collection[BucketId]
) -> int:
    """Tell a drive which of these are gone; `recorded` was asked for after `standing`. How many."""
    gone = [fence for fence in standing if fence.bucket not in recorded]
    return await _fence(copier, drive, [fence._replace(dead=True) for fence in gone])


async def _fences_of(copier: Copier, drives: Sequence[Drive]) -> list[Sequence[FenceAt] | None]:
    start, stop = span_of(copier.set_id)
    request = Sync(start=start, stop=stop, limit=1, max_bytes=1, epoch=copier.epoch, fences=True)
    pages = await copier.ask_each([(drive, request) for drive in drives])
    return [page.fences if isinstance(page, SyncPage) else None for page in pages]


async def _fence(copier: Copier, drive: Drive, fences: Collection[FenceAt]) -> int:
    taken = 0
    for bucket, epoch, dead in sorted(fences):
        reply = await copier.ask(drive, Fence(bucket=bucket, bucket_epoch=epoch, dead=dead))
        taken += isinstance(reply, Done)
    return taken
