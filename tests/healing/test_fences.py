"""A drive that was away when a bucket was deleted learns it from the others, and drops what it has of it."""

from cluster.healing.fences import take_fences
from cluster.register.anti_entropy import Sync
from cluster.register.messages import Fence, StaleBucket
from tests.healing.world import BUCKET, world


async def test_a_missed_fence_is_taken_and_a_dead_bucket_dropped(autojump_clock):
    async with world() as w:
        await w.put(inline=b"data")
        for position in (0, 1, 2):
            await w.ask(position, Fence(bucket=BUCKET, bucket_epoch=5))
        assert await take_fences(w.copier, w.drives[3], w.drives[:1]) == 1
        assert await w.held(3) == StaleBucket(5)
        await w.ask(0, Fence(bucket=BUCKET, bucket_epoch=5, dead=True))
        assert w.drives[3].platter.index.rows
        assert await take_fences(w.copier, w.drives[3], w.drives[:1]) == 1
        await w.collect()
        assert not w.drives[3].platter.index.rows
        assert await take_fences(w.copier, w.drives[3], w.drives[:1]) == 0


async def test_a_peer_that_does_not_answer_changes_nothing(autojump_clock):
    async with world() as w:
        with w.hung(0):
            assert await take_fences(w.copier, w.drives[3], w.drives[:1]) == 0
        request = Sync(start=b"", stop=None, limit=1, max_bytes=1, epoch=1, fences=True)
        assert not (await w.ask(3, request)).fences
