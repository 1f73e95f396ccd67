"""Shards that nothing refers to, nor ever will, are collected; no other."""

import trio

from cluster.clock import Ballot
from cluster.healing.judgement import Verdict, judge
from cluster.healing.orphans import Collected, collect_orphans
from cluster.ids import DataId, UploadId
from cluster.register.acceptor import Limits
from cluster.register.records import Register, encode_parts
from tests.contracts.benches import at, header, live, stored, tombstone, uploading
from tests.healing.world import world

DAY = 25 * 3600


async def run(w):
    found = [await collect_orphans(w.copier, drive) for drive in w.drives]
    await trio.sleep(2)
    await w.collect()
    return [one.shards for one in found]


async def test_a_body_that_was_staged_and_never_committed_goes_after_a_day(autojump_clock):
    async with world() as w:
        part = await w.stage()
        kept = await w.stage(b"kept")
        await w.put(b"kept", parts=(kept,))
        await trio.sleep(DAY / 2)
        assert await run(w) == [0] * 4
        await trio.sleep(DAY / 2 + 600)
        before = w.clock.tick()
        assert await run(w) == [1] * 4
        assert not any(w.has_shard(position, part.data_id) for position in range(4))
        assert all(w.has_shard(position, kept.data_id) for position in range(4))
        # The owner was fenced: no proposal from before can introduce the body any more.
        assert (await w.table.read(w.ref())).ballot > before


async def test_a_body_whose_commit_is_open_is_kept_or_fenced_out(autojump_clock):
    """An ACCEPT that reached one drive alone: the fence finds it and completes it, or does not and rules it out."""
    async with world() as w:
        part = await w.stage()
        with w.hung(1, 2, 3):
            with trio.move_on_after(1):
                await w.put(parts=(part,))
        await trio.sleep(DAY)
        await run(w)
        is_there = bool((await w.table.read(w.ref())).state.versions)
        assert all(w.has_shard(position, part.data_id) == is_there for position in range(4))


async def test_parts_of_open_uploads_and_of_long_lists_are_kept(autojump_clock):
    async with world() as w:
        await w.open_upload()
        part = await w.stage()
        listed = await w.stage(b"long")
        await w.put(b"long", listed=encode_parts((listed,)))
        await trio.sleep(DAY)
        assert await run(w) == [0] * 4
        assert all(
            w.has_shard(position, p.data_id) for position in range(4) for p in (part, listed)
        )


async def test_without_a_quorum_nothing_goes(autojump_clock):
    async with world() as w:
        part = await w.stage()
        await trio.sleep(DAY)
        with w.hung(1, 2):
            assert await collect_orphans(w.copier, w.drives[0]) == Collected()
        assert w.has_shard(0, part.data_id)


async def test_rounds_go_on_where_they_stopped(autojump_clock):
    async with world(rows=2) as w:
        for number in range(5):
            await w.stage(b"%d" % number)
        await trio.sleep(DAY)
        after, rounds, shards = None, 0, 0
        while rounds == 0 or after is not None:
            done = await collect_orphans(w.copier, w.drives[0], after)
            after, rounds, shards = done.next, rounds + 1, shards + done.shards
        assert (rounds, shards) == (3, 5)


class Clock:
    started_ms = 10_000_000


def chosen(ballot, state):
    return Register(ballot=ballot, state=state, chosen=True)


def test_the_verdict_is_that_of_the_protocol():
    limits = Limits(op_ttl_ms=1000, max_put_ms=60_000)
    early, late = at(Clock, 1), at(Clock, 3)
    shard = header(1, early)
    data = shard.data_id
    horizon = Ballot(early.hlc + limits.max_put_ms + limits.op_ttl_ms, 0, 0)
    assert judge(chosen(late, stored(late, shard)), (), data, limits) is Verdict.KEEP
    assert judge(chosen(late, live(late)), (data,), data, limits) is Verdict.KEEP
    assert judge(chosen(horizon, live(late)), (), data, limits) is Verdict.FENCE
    assert judge(chosen(late, live(late)), (), data, limits) is Verdict.COLLECT
    # The state's ring says that it was removed, however young it is.
    assert judge(chosen(early, tombstone(early, (data,))), (), data, limits) is Verdict.COLLECT
    # An upload that was opened before the body was drawn may own it.
    upload = UploadId(b"u" * 16)
    assert judge(chosen(late, uploading(early, upload)), (), data, limits) is Verdict.KEEP
    assert judge(chosen(late, uploading(late, upload)), (), data, limits) is Verdict.COLLECT
    assert judge(chosen(late, live(late)), (DataId(b"x" * 16),), data, limits) is Verdict.COLLECT
