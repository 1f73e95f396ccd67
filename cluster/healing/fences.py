"""Fences that a drive missed: of a bucket above all that is gone, whose rows and shards it would keep for ever."""

from collections.abc import Sequence

from cluster.drives.drive import Drive
from cluster.healing.copying import Copier
from cluster.healing.settings import span_of
from cluster.register.anti_entropy import FenceAt, Sync, SyncPage
from cluster.register.messages import Done, Fence


async def take_fences(copier: Copier, drive: Drive, peers: Sequence[Drive]) -> int:
    """Give a drive the fences that its peers have and it lacks. How many."""
    mine = await _fences_of(copier, drive)
    if mine is None:
        return 0
    known, taken = set(mine), 0
    for peer in peers:
        for fence in sorted(set(await _fences_of(copier, peer) or ()) - known):
            bucket, epoch, dead = fence
            reply = await copier.ask(drive, Fence(bucket=bucket, bucket_epoch=epoch, dead=dead))
            if isinstance(reply, Done):
                known.add(fence)
                taken += 1
    return taken


async def _fences_of(copier: Copier, drive: Drive) -> Sequence[FenceAt] | None:
    start, stop = span_of(copier.set_id)
    request = Sync(start=start, stop=stop, limit=1, max_bytes=1, epoch=copier.epoch, fences=True)
    page = await copier.ask(drive, request)
    return page.fences if isinstance(page, SyncPage) else None
