"""What every drive promises about data that only looks superfluous: it stays while a chosen state refers to it."""

import attrs
import pytest
import trio
import xxhash
from msgspec.structs import replace

from cluster.drives import unlearnt
from cluster.ids import BucketId, RowKey, UploadId
from cluster.register.anti_entropy import (
    Hints,
    RowAt,
    RowPage,
    StrayParts,
    Unneeded,
    Want,
    Wanted,
    Wants,
)
from cluster.register.keys import object_row, part_row
from cluster.register.messages import Accepted, Done, Fence, Learn, StaleBucket, Value
from cluster.register.records import (
    BOTTOM,
    BodyId,
    BodyRef,
    Done as Completed,
    KeyState,
    encode_parts,
)
from tests.contracts.benches import (
    BUCKET,
    GRACE_MS,
    ROW,
    MemoryBench,
    accept,
    ask,
    at,
    expect,
    header,
    learn,
    live,
    prepare,
    query,
    stage,
    stored,
    tombstone,
    uploading,
    version,
)

UPLOAD = UploadId(b"u" * 16)
OTHER = object_row(BUCKET, b"other")
PART_ROW = part_row(BUCKET, UPLOAD, 1, b"key")
DATA = [b"d" * 5000]


def listed(ballot, *parts):
    """A version whose part list lies beside the record, and that list."""
    data = encode_parts(parts)
    digest = xxhash.xxh3_128_digest(data)
    body = BodyRef(id=BodyId(digest), size=len(data), digest=digest, count=len(parts))
    return replace(version(ballot, body=body), upload_id=UPLOAD), {body.id: data}


async def uploaded(bench, drive):
    """An open upload with one part, chosen; the part."""
    first = at(bench, 1)
    shard = header(1, first)
    await stage(drive, shard, DATA)
    await expect(drive, accept(first, uploading(first, UPLOAD)), Accepted)
    await expect(drive, accept(first, stored(first, shard), PART_ROW), Accepted)
    await expect(drive, learn(first), Done)
    await expect(drive, learn(first, PART_ROW), Done)
    return shard, stored(first, shard).versions[0].parts[0]


async def is_left(drive, shard):
    """Whether the shard is there after the grace."""
    for _ in range(3):  # what LEARN finds superfluous is looked up, noted, and then due
        await trio.sleep(0.05 + GRACE_MS / 1000)
        await drive.collect()
    return await drive.stat_shard(shard.data_id, 0) is not None


async def test_a_completed_version_keeps_its_data_when_another_is_put_beside_it_at_once(bench):
    second, third = at(bench, 2), at(bench, 3)
    async with bench.open() as drive:
        shard, part = await uploaded(bench, drive)
        made, bodies = listed(second, part)
        message = accept(second, KeyState(versions=(made,)), bodies=bodies, base=at(bench, 1))
        await expect(drive, message, Accepted)
        done = (Completed(UPLOAD, second, made.validator),)
        both = KeyState(versions=(*live(third).versions, made), done=done)
        await expect(drive, accept(third, both, base=second), Accepted)
        await expect(drive, learn(third), Done)
        assert await is_left(drive, shard)
        assert (await expect(drive, query(PART_ROW), Value)).register == BOTTOM


async def test_a_part_list_that_was_left_out_by_a_buried_state_keeps_its_data(bench):
    second, third, fourth = at(bench, 2), at(bench, 3), at(bench, 4)
    async with bench.open() as drive:
        shard, part = await uploaded(bench, drive)
        made, bodies = listed(second, part)
        kept = KeyState(versions=(made,))
        await expect(drive, accept(second, kept, bodies=bodies, base=at(bench, 1)), Accepted)
        await expect(drive, learn(second), Done)
        await expect(drive, accept(third, tombstone(third), base=second), Accepted)
        await expect(drive, accept(fourth, kept, bodies=bodies, base=second), Accepted)
        await expect(drive, learn(fourth), Done)
        assert await is_left(drive, shard)


async def test_an_upload_that_a_buried_state_closed_keeps_its_parts(bench):
    second, third = at(bench, 2), at(bench, 3)
    async with bench.open() as drive:
        shard, part = await uploaded(bench, drive)
        made, bodies = listed(second, part)
        message = accept(second, KeyState(versions=(made,)), bodies=bodies, base=at(bench, 1))
        await expect(drive, message, Accepted)
        still_open = uploading(at(bench, 1), UPLOAD)
        await expect(drive, accept(third, still_open, base=at(bench, 1)), Accepted)
        await expect(drive, learn(third), Done)
        assert await is_left(drive, shard)
        assert (await expect(drive, query(PART_ROW), Value)).register != BOTTOM


async def test_what_others_missed_of_a_row_is_forgotten_with_the_row(bench):
    """Of a part when its upload is closed, and of everything in a bucket that is dead."""
    first, second = at(bench, 1), at(bench, 2)

    async def is_hinted(drive):
        some = Hints(position=2, after=RowKey(b""), stop=None, limit=1, epoch=1)
        return (await expect(drive, some, RowPage)).next is not None

    async def until_hinted(drive, *, expected):
        with trio.fail_after(20):
            while await is_hinted(drive) is not expected:
                await trio.sleep(0.01)
                await drive.collect()

    async with bench.open() as drive:
        _, part = await uploaded(bench, drive)
        await expect(drive, Learn(row=PART_ROW, ballot=first, acceptors=0b011), Done)
        made, bodies = listed(second, part)
        done = (Completed(UPLOAD, second, made.validator),)
        completed = KeyState(versions=(made,), done=done)
        await expect(drive, accept(second, completed, bodies=bodies, base=first), Accepted)
        assert await is_hinted(drive)
        await expect(drive, learn(second), Done)
        await until_hinted(drive, expected=False)
        await expect(drive, Learn(row=ROW, ballot=second, acceptors=0b011), Done)
        await until_hinted(drive, expected=True)
        await expect(drive, Fence(bucket=BUCKET, bucket_epoch=2, dead=True), Done)
        await until_hinted(drive, expected=False)


async def test_rows_that_go_with_their_upload_are_not_asked_about(bench, monkeypatch):
    """They were accepted and not learnt; whoever settled them would bring them back, empty."""
    first, second = at(bench, 1), at(bench, 2)
    async with bench.open() as drive:
        await expect(drive, accept(first, uploading(first, UPLOAD)), Accepted)
        await expect(drive, learn(first), Done)
        shard = header(1, first)
        await expect(drive, accept(first, stored(first, shard), PART_ROW), Accepted)
        done = KeyState(done=(Completed(UPLOAD, second, "v"),))
        await expect(drive, accept(second, done, base=first), Accepted)
        await expect(drive, learn(second), Done)
        with trio.fail_after(20):
            while (await expect(drive, query(PART_ROW), Value)).register != BOTTOM:
                await trio.sleep(0.01)
                await drive.collect()
        monkeypatch.setattr(unlearnt, "PATIENCE_SECONDS", 0.0)
        assert (await expect(drive, Wanted(limit=10, epoch=1), Wants)).rows == []


async def test_a_bucket_that_is_gone_takes_nothing_at_whatever_epoch(bench):
    """Whoever settles or repairs a row names no epoch of its bucket; once swept, nobody would sweep it again."""
    ballot = at(bench, 1)
    async with bench.open() as drive:
        await expect(drive, Fence(bucket=BUCKET, bucket_epoch=2, dead=True), Done)
        late = attrs.evolve(accept(ballot, live(ballot)), bucket_epoch=1 << 62)
        assert await ask(drive, late) == StaleBucket(2)
        assert await ask(drive, prepare(ballot, bucket_epoch=1 << 62)) == StaleBucket(2)


@pytest.mark.parametrize("crashes", [False, True])
async def test_a_part_list_goes_with_the_state_that_had_it(crashes):
    """Also when the drive restarts between ACCEPT and LEARN; its data then are an orphan's, for an upload may be open again."""
    bench = MemoryBench()
    first, second = at(bench, 1), at(bench, 2)
    async with bench.open() as drive:
        made, bodies = listed(first, stored(first, header(1, first)).versions[0].parts[0])
        await expect(drive, accept(first, KeyState(versions=(made,)), bodies=bodies), Accepted)
        await expect(drive, learn(first), Done)
        await expect(drive, accept(second, tombstone(second), base=first), Accepted)
        assert drive.platter.index._bodies
        if crashes:
            bench.crash()
        await expect(drive, learn(second), Done)
        with trio.fail_after(20):
            while drive.platter.index._bodies:
                await trio.sleep(0.01)
                await drive.collect()


async def test_parts_whose_list_cannot_be_read_are_taken_for_used():
    """What the object consists of is not known: nothing of the upload goes on this drive's word."""
    bench = MemoryBench()
    first, second = at(bench, 1), at(bench, 2)
    async with bench.open() as drive:
        shard, part = await uploaded(bench, drive)
        made, bodies = listed(second, part)
        done = (Completed(UPLOAD, second, made.validator),)
        completed = KeyState(versions=(made,), done=done)
        await expect(drive, accept(second, completed, bodies=bodies, base=first), Accepted)
        bench.crash()
        drive.platter.index._bodies.clear()
        await expect(drive, learn(second), Done)
        assert await is_left(drive, shard)


# -- parts whose upload is closed, and that stayed


async def strays(drive, after=b"", limit=10):
    page = await expect(drive, StrayParts(after=RowKey(after), limit=limit, epoch=1), RowPage)
    return page.rows, page.next


async def test_a_part_is_stray_where_its_upload_is_not_open_in_the_owners_row(bench):
    first, second = at(bench, 1), at(bench, 2)
    other = part_row(BUCKET, UploadId(b"v" * 16), 1, b"key")
    lone = part_row(BUCKET, UPLOAD, 1, b"nobody's")
    async with bench.open() as drive:
        await uploaded(bench, drive)
        assert await strays(drive) == ([], None)
        for row in (lone, other):
            await expect(drive, accept(second, stored(second, header(2, second)), row), Accepted)
        assert await strays(drive) == ([RowAt(lone, second), RowAt(other, second)], None)
        assert (await expect(drive, query(PART_ROW), Value)).register.ballot == first


async def test_strays_are_shown_page_by_page_bucket_by_bucket(bench):
    ballot = at(bench, 1)
    buckets = [BucketId(bytes([n]) * 16) for n in range(1, 4)]
    rows = [part_row(b, UPLOAD, number, b"key") for b in buckets for number in (1, 2)]
    async with bench.open() as drive:
        for bucket in buckets:
            await expect(drive, accept(ballot, live(ballot), object_row(bucket, b"x")), Accepted)
        for row in rows:
            await expect(drive, accept(ballot, stored(ballot, header(1, ballot)), row), Accepted)
        shown, after = [], b""
        while after is not None:
            page, after = await strays(drive, after, limit=3)
            assert len(page) <= 3
            shown += [stray.row for stray in page]
        assert shown == rows
        await expect(drive, Fence(bucket=buckets[1], bucket_epoch=2, dead=True), Done)
        assert [stray.row for stray in (await strays(drive))[0]] == rows[:2] + rows[4:]


async def test_a_row_that_is_not_needed_is_dropped_if_it_is_a_part(bench):
    ballot = at(bench, 1)
    async with bench.open() as drive:
        await uploaded(bench, drive)
        await expect(drive, Learn(row=PART_ROW, ballot=ballot, acceptors=0b011), Done)
        named = [RowAt(PART_ROW, ballot), RowAt(ROW, ballot)]
        await expect(drive, Unneeded(rows=named, epoch=1), Done)
        bench.crash()
    async with bench.open() as drive:
        assert (await expect(drive, query(PART_ROW), Value)).register == BOTTOM
        assert (await expect(drive, query(), Value)).register.ballot == ballot
        some = Hints(position=2, after=RowKey(b""), stop=None, limit=1, epoch=1)
        assert (await expect(drive, some, RowPage)).next is None


async def test_a_part_that_was_written_since_stays(bench):
    second = at(bench, 2)
    async with bench.open() as drive:
        await uploaded(bench, drive)
        await expect(drive, accept(second, stored(second, header(2, second)), PART_ROW), Accepted)
        await expect(drive, Unneeded(rows=[RowAt(PART_ROW, at(bench, 1))], epoch=1), Done)
        assert (await expect(drive, query(PART_ROW), Value)).register.ballot == second


async def test_what_is_not_needed_is_wanted_no_more_unless_it_is_newer_or_corrupt(bench):
    first, second = at(bench, 1), at(bench, 2)
    async with bench.open() as drive:
        await expect(drive, accept(first, live(first), OTHER), Accepted)
        bench.crash()
    bench.rot_row(OTHER)
    async with bench.open() as drive:
        await ask(drive, query(OTHER))
        await expect(drive, learn(first, PART_ROW), Done)
        await expect(drive, learn(second), Done)
        named = [RowAt(PART_ROW, first), RowAt(ROW, first), RowAt(OTHER, first)]
        await expect(drive, Unneeded(rows=named, epoch=1), Done)
        wants = (await expect(drive, Wanted(limit=10, epoch=1), Wants)).rows
        assert sorted(wants) == sorted([Want(OTHER, None), Want(ROW, second)])
