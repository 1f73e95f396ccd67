"""What every drive promises about shards: there when closed, gone when not, never wrong bytes."""

import random

import attrs
import pytest
import trio

from cluster.drives.drive import (
    VOTING,
    DriveError,
    DriveFullError,
    DriveState,
    ShardCorruptError,
    ShardMissingError,
)
from cluster.ids import BucketId, RowKey
from cluster.register.keys import object_row
from cluster.register.messages import Accepted, Done, Fence, Page, Scan, StaleBucket, Value
from tests.contracts.benches import (
    BLOCK,
    BUCKET,
    ROW,
    accept,
    at,
    expect,
    header,
    learn,
    query,
    stage,
    stored,
    tombstone,
)

SMALL = [random.Random(1).randbytes(5000)]  # an index row in a LocalDrive
LARGE = [random.Random(2).randbytes(BLOCK), random.Random(3).randbytes(BLOCK), b"the rest"]
SIZES = pytest.mark.parametrize("blocks", [SMALL, LARGE], ids=["small", "large"])


async def read(drive, shard, blocks, first=0):
    lengths = [len(block) for block in blocks[first:]]
    return [bytes(view) for view in await drive.read_blocks(shard, first, lengths)]


async def until(condition):
    with trio.fail_after(5):
        while not await condition():  # noqa: ASYNC110 - a drive tells nobody when it has noted something
            await trio.sleep(0.01)


@SIZES
async def test_a_closed_shard_can_be_read_also_after_a_crash(bench, blocks):
    shard = header()
    async with bench.open() as drive:
        assert await drive.stat_shard(shard.data_id, 0) is None
        digests = await stage(drive, shard, blocks)
        bench.crash()
    async with bench.open() as drive:
        assert await read(drive, shard, blocks) == blocks
        assert await read(drive, shard, blocks, len(blocks) - 1) == blocks[-1:]
        assert await drive.read_digests(shard, len(blocks)) == digests
        assert await drive.stat_shard(shard.data_id, 0) == sum(map(len, blocks))
        assert await drive.stat_shard(shard.data_id, 1) is None
        assert (await drive.status()).heal_debt == 0


@SIZES
async def test_what_was_not_closed_is_not_there(bench, blocks):
    shard, other = header(1), header(2)
    async with bench.open() as drive:
        aborted = drive.open_stage(shard, 0)
        await aborted.write(blocks)
        aborted.abort()
        aborted.abort()
        left = drive.open_stage(other, 0)
        await left.write(blocks)
        for gone in (shard, other):
            assert await drive.stat_shard(gone.data_id, 0) is None
            with pytest.raises(ShardMissingError):
                await drive.read_blocks(gone, 0, [10])
        bench.crash()
    async with bench.open() as drive:
        assert await drive.stat_shard(other.data_id, 0) is None
        with pytest.raises(ShardMissingError):
            await drive.read_blocks(other, 0, [10])


async def test_a_shard_that_the_drive_never_had_is_no_debt(bench):
    async with bench.open() as drive:
        with pytest.raises(ShardMissingError):
            await drive.read_blocks(header(), 0, [BLOCK])
        with pytest.raises(ShardMissingError):
            await drive.read_digests(header(), 1)
        assert (await drive.status()).heal_debt == 0


async def test_abort_after_close_changes_nothing(bench):
    shard = header()
    async with bench.open() as drive:
        writing = drive.open_stage(shard, 0)
        await writing.write(LARGE)
        await writing.close(bytes(48))
        writing.abort()
        assert await read(drive, shard, LARGE) == LARGE
        bench.crash()
    async with bench.open() as drive:
        assert await read(drive, shard, LARGE) == LARGE


async def test_a_damaged_block_is_never_returned_and_becomes_debt(bench):
    shard = header()
    async with bench.open() as drive:
        await stage(drive, shard, LARGE)
        bench.rot_shard(shard)
        with pytest.raises(ShardCorruptError):
            await read_all_blocks(drive, shard)
        assert (await drive.status()).state in VOTING
        await until(lambda: has_debt(drive))


async def read_all_blocks(drive, shard):
    for number, block in enumerate(LARGE):
        await drive.read_blocks(shard, number, [len(block)])


async def has_debt(drive):
    return (await drive.status()).heal_debt == 1


async def test_a_lost_shard_is_missing_and_becomes_debt(bench):
    shard = header()
    async with bench.open() as drive:
        await stage(drive, shard, LARGE)
        bench.lose_shard(shard)
        with pytest.raises(ShardMissingError):
            await read(drive, shard, LARGE)


async def test_debt_is_durable_and_paid_by_a_new_shard(bench):
    shard = header()
    async with bench.open() as drive:
        drive.note_bad_shard(shard, "its content is another's")
        await until(lambda: has_debt(drive))
        bench.crash()
    async with bench.open() as drive:
        assert (await drive.status()).heal_debt == 1
        await stage(drive, shard, SMALL)
        assert (await drive.status()).heal_debt == 0


async def test_a_record_without_a_shard_here_is_debt_and_one_with_is_not(bench):
    ballot = at(bench, 1)
    missed, late = header(1, ballot), header(2, ballot)
    async with bench.open() as drive:
        # The straggler's shard arrived although the record, made before, does not count it.
        await stage(drive, late, SMALL)
        later = at(bench, 2)
        await expect(drive, accept(ballot, stored(ballot, missed, staged=0)), Accepted)
        await expect(drive, accept(later, stored(later, late, staged=0)), Accepted)
        assert (await drive.status()).heal_debt == 1


async def test_what_a_record_says_of_the_drive_before_is_not_taken_for_true(bench):
    """A state that few had accepted is proposed again when another drive has the place: its bits are those of the old one."""
    ballot, later = at(bench, 1), at(bench, 2)
    gone, here = header(1, ballot), header(2, ballot)
    other_row = RowKey(ROW + b"other")
    async with bench.open() as drive:
        await stage(drive, here, SMALL)
        again = accept(later, stored(ballot, gone), base=ballot)
        await expect(drive, again, Accepted)
        await expect(drive, accept(later, stored(ballot, here), other_row, base=ballot), Accepted)
        assert (await drive.status()).heal_debt == 1


async def test_a_full_drive_takes_no_shards_but_votes_and_deletes(bench):
    shard, ballot = header(), at(bench, 1)
    async with bench.open() as drive:
        await stage(drive, header(2), LARGE)
        bench.fill()
        with pytest.raises(DriveFullError):
            await stage(drive, shard, LARGE)
        assert drive.state is DriveState.READONLY
        with pytest.raises(DriveFullError):
            drive.open_stage(shard, 0)
        await expect(drive, accept(ballot, tombstone(ballot)), Accepted)
        assert await read(drive, header(2), LARGE) == LARGE


async def test_a_failed_commit_fails_the_stage(bench):
    async with bench.open() as drive:
        bench.fail_commits()
        with pytest.raises(DriveError):
            await stage(drive, header(), SMALL)
        assert drive.state is DriveState.FAULTY
        with pytest.raises(DriveError):
            drive.open_stage(header(2), 0)
        with pytest.raises(DriveError):
            await drive.read_blocks(header(), 0, [10])


@SIZES
async def test_superseded_data_goes_when_the_new_state_is_chosen_and_not_before(bench, blocks):
    first, second = at(bench, 1), at(bench, 2)
    shard = header(1, first)
    async with bench.open() as drive:
        await stage(drive, shard, blocks)
        await expect(drive, accept(first, stored(first, shard)), Accepted)
        await expect(drive, learn(first), Done)
        await drive.collect()
        await expect(
            drive, accept(second, tombstone(second, (shard.data_id,)), base=first), Accepted
        )
        await trio.sleep(0.02)
        await drive.collect()
        assert await read(drive, shard, blocks) == blocks
        await expect(drive, learn(second), Done)

        async def is_gone():
            await drive.collect()
            return await drive.stat_shard(shard.data_id, 0) is None

        await until(is_gone)
        with pytest.raises(ShardMissingError):
            await read(drive, shard, blocks)
        assert (await drive.status()).heal_debt == 0


async def test_data_of_every_write_that_this_drive_missed_goes_too(bench):
    """The ring remembers what each operation removed; a drive that was away learns only the last state."""
    first, third = at(bench, 1), at(bench, 3)
    shard = header(1, first)
    async with bench.open() as drive:
        await stage(drive, shard, LARGE)
        await expect(drive, accept(first, stored(first, shard)), Accepted)
        # The second state, elsewhere, removed the shard; the third is what comes here.
        state = tombstone(at(bench, 2), (shard.data_id,))
        ring = (*state.ring, *tombstone(third).ring)
        await expect(drive, accept(third, type(state)(ring=ring), base=at(bench, 2)), Accepted)
        await expect(drive, learn(third), Done)

        async def is_gone():
            await drive.collect()
            return await drive.stat_shard(shard.data_id, 0) is None

        await until(is_gone)


async def test_a_dead_bucket_takes_its_rows_and_data_along(bench):
    ballot, other = at(bench, 1), object_row(BucketId(b"z" * 16), b"key")
    shard = header(1, ballot)
    fence = Fence(bucket=BUCKET, bucket_epoch=2)
    async with bench.open() as drive:
        await stage(drive, shard, LARGE)
        await expect(drive, accept(ballot, stored(ballot, shard)), Accepted)
        await expect(drive, accept(ballot, stored(ballot, header(2, ballot)), other), Accepted)
        await expect(drive, fence, Done)
        await drive.collect()
        assert await drive.stat_shard(shard.data_id, 0) is not None
        await expect(drive, attrs.evolve(fence, dead=True), Done)
        bench.crash()
    async with bench.open() as drive:
        everything = Scan(start=RowKey(b""), stop=None, limit=10, epoch=1, bucket_epoch=2)

        async def is_gone():
            await drive.collect()
            page = await expect(drive, everything, Page)
            is_shard_gone = await drive.stat_shard(shard.data_id, 0) is None
            return [row.row for row in page.rows] == [other] and is_shard_gone

        await until(is_gone)
        await expect(drive, query(bucket_epoch=1), StaleBucket)
        await expect(drive, query(other), Value)
