"""Fences that a drive missed: of a bucket above all that is gone, whose rows and shards it would keep for ever."""

from collections.abc import Sequence

from cluster.drives.drive import Drive
from cluster.healing.copying import Copier
from cluster.healing.settings import span_of
from cluster.register.anti_entropy import Sync, SyncPage
from cluster.register.messages import Done, Fence


async def take_fences(copier: Copier, drive: Drive, peers: Sequence[Drive]) -> int:
    """Give a drive the fences that its peers have and it lacks. How many."""
    start, stop = span_of(copier.set_id)
    request = Sync(start=start, stop=stop, limit=1, max_bytes=1, epoch=copier.epoch, fences=True)
    mine, *theirs = await copier.ask_each([(one, request) for one in (drive, *peers)])
    if not isinstance(mine, SyncPage):
        return 0
    noted = {fence for page in theirs if isinstance(page, SyncPage) for fence in page.fences}
    taken = 0
    for bucket, epoch, dead in sorted(noted.difference(mine.fences)):
        reply = await copier.ask(drive, Fence(bucket=bucket, bucket_epoch=epoch, dead=dead))
        taken += isinstance(reply, Done)
    return taken
