"""Fences that a drive missed: of a bucket above all that is gone, whose rows and shards it would keep for ever."""

from collections.abc import Sequence

from cluster.drives.drive import Drive
from cluster.healing.copying import Copier
from cluster.healing.settings import span_of
from cluster.register.anti_entropy import FenceAt, Sync, SyncPage
from cluster.register.messages import Done, Fence


async def take_fences(copier: Copier, drive: Drive, peer: Drive) -> int:
    """Give a drive the fences that a peer has and it lacks. How many."""
    theirs, mine = await _fences_of(copier, peer), await _fences_of(copier, drive)
    if theirs is None or mine is None:
        return 0
    taken = 0
    for bucket, epoch, dead in sorted(set(theirs) - set(mine)):
        reply = await copier.ask(drive, Fence(bucket=bucket, bucket_epoch=epoch, dead=dead))
        taken += isinstance(reply, Done)
    return taken


async def _fences_of(copier: Copier, drive: Drive) -> Sequence[FenceAt] | None:
    start, stop = span_of(copier.set_id)
    request = Sync(start=start, stop=stop, limit=1, max_bytes=1, epoch=copier.epoch, fences=True)
    page = await copier.ask(drive, request)
    return page.fences if isinstance(page, SyncPage) else None
