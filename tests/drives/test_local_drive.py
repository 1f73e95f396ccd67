"""What a LocalDrive does beyond the contract: locks, guards, bad media, full file systems, crashes, leftovers."""

import errno
import shutil
import threading

import apsw
import attrs
import pytest
import trio

from cluster.drives.drive import (
    DriveError,
    DriveFullError,
    DriveState,
    ShardCorruptError,
    ShardMissingError,
)
from cluster.drives.group_commit import MAX_OPERATIONS
from cluster.drives.index import FILE, PAGE_BYTES
from cluster.drives.shard_files import list_shards, shard_path
from cluster.drives.trouble import Trouble, judge
from cluster.errors import ConfigError
from cluster.ids import UploadId
from cluster.register.keys import object_row, part_row
from cluster.register.messages import Accepted, Done, Failed, Page, Promise, Scan, Value
from cluster.register.records import BodyId, KeyState
from tests.contracts.benches import (
    BLOCK,
    BUCKET,
    Answers,
    LocalBench,
    accept,
    ask,
    at,
    expect,
    header,
    inline,
    learn,
    live,
    prepare,
    query,
    stage,
    stored,
    tombstone,
    uploading,
)

LARGE = [bytes(BLOCK), b"the rest"]
OUT = {DriveState.FAULTY, DriveState.MISSING, DriveState.WRONG}


@pytest.fixture
def bench(tmp_path):
    return LocalBench(tmp_path)


async def until(condition):
    with trio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - what happens in a thread sets no event
            await trio.sleep(0.005)


def files_of(bench):
    return {path.name for _, _, path in list_shards(bench.root)}


async def test_a_folder_belongs_to_one_process(bench):
    async with bench.open():
        with pytest.raises(ConfigError, match="in use"):
            async with bench.open():
                pass
    async with bench.open() as drive:
        assert drive.was_clean


async def test_a_damaged_index_takes_the_drive_out_and_never_votes_absent(bench):
    ballot = at(bench, 1)
    rows = [object_row(BUCKET, b"%04d" % number) for number in range(300)]
    async with bench.open() as drive:
        for row in rows:
            await expect(drive, accept(ballot, live(ballot), row), Accepted)
        drive.folder.checkpointer.checkpoint()
    path = bench.root / FILE
    (bench.root / f"{FILE}-wal").unlink()
    data = bytearray(path.read_bytes())
    for page in range(len(data) // PAGE_BYTES - 3, len(data) // PAGE_BYTES):
        data[page * PAGE_BYTES + 2000] ^= 1  # pages of rows: the drive still opens
    path.write_bytes(data)
    async with bench.open() as drive:
        replies = [await ask(drive, query(row)) for row in rows]
        for reply in replies:
            assert not isinstance(reply, Value) or reply.register.ballot == ballot
        assert drive.state is DriveState.FAULTY
        assert bench.runtime.events[-1].state is DriveState.FAULTY


async def test_a_failed_sync_takes_the_drive_out_and_tells(bench):
    async with bench.open() as drive:
        assert not drive.left.is_set()
        bench.tools.failing = "sync"
        with pytest.raises(DriveError):
            await stage(drive, header(), LARGE)
        assert drive.state is DriveState.FAULTY
        assert drive.left.is_set()
        bench.tools.failing = ""
        with pytest.raises(DriveError):
            await stage(drive, header(2), LARGE)
        assert not isinstance(await ask(drive, query()), Value)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
async def test_what_the_process_lacks_is_not_the_drives_end(bench, number):
    async with bench.open() as drive:
        await stage(drive, header(2), LARGE)
        bench.tools.error = OSError(number, "lacking")
        bench.tools.failing = "append"
        with pytest.raises(DriveError):
            await stage(drive, header(), LARGE)
        bench.tools.failing = "read"
        for _ in range(5):
            with pytest.raises(DriveError):
                await drive.read_blocks(header(2), 0, [BLOCK])
        bench.tools.failing = ""
        assert drive.state is DriveState.ACTIVE
        await stage(drive, header(3), LARGE)
        await drive.read_blocks(header(2), 0, [BLOCK])
        assert (await drive.status()).heal_debt == 0


def test_errors_that_are_not_known_to_be_harmless_are_the_end():
    assert judge(OSError(errno.EIO, "")) is Trouble.BROKEN
    assert judge(OSError(errno.EROFS, "")) is Trouble.BROKEN
    assert judge(OSError(12345, "")) is Trouble.BROKEN
    assert judge(OSError(errno.ENOSPC, "")) is Trouble.FULL


async def test_a_few_unreadable_shards_are_debt_and_more_are_the_end(bench):
    async with bench.open() as drive:
        for number in (1, 2, 3):
            await stage(drive, header(number), LARGE)
        bench.tools.failing = "read"
        for number in (1, 1, 1, 2):
            with pytest.raises(ShardCorruptError):
                await drive.read_blocks(header(number), 0, [BLOCK])
        assert drive.state is DriveState.ACTIVE
        await drive._commits.drain()
        assert (await drive.status()).heal_debt == 2
        with pytest.raises(DriveError):
            await drive.read_blocks(header(3), 0, [BLOCK])
        assert drive.state is DriveState.FAULTY


@pytest.mark.parametrize("loss", ["gone", "exchanged", "emptied"])
async def test_a_folder_that_is_not_the_one_that_was_opened_is_missing(bench, loss):
    bench.settings = attrs.evolve(bench.settings, guard_seconds=0.02)
    async with bench.open() as drive:
        match loss:
            case "gone":
                bench.root.rename(bench.root.with_name("away"))
            case "exchanged":
                bench.root.rename(bench.root.with_name("away"))
                bench.root.mkdir()
            case _:
                for name in bench.root.glob("format.json*"):
                    name.unlink()
        await until(lambda: drive.state is DriveState.MISSING)
        assert drive.reason
        assert not isinstance(await ask(drive, query()), Value)


async def test_a_commit_that_hangs_takes_the_drive_out_and_lets_everybody_go(bench):
    bench.settings = attrs.evolve(bench.settings, guard_seconds=0.02, hung_seconds=0.05)
    ballot, gate = at(bench, 1), threading.Event()
    async with bench.open() as drive:
        apply = drive.folder.writer.apply

        def hanging(batch):
            gate.wait(5)
            apply(batch)

        drive.folder.writer.apply = hanging
        waiting, shard = Answers(), []
        drive.submit(accept(ballot, live(ballot)), waiting)

        async def staging():
            with pytest.raises(DriveError):
                await stage(drive, header(), [b"small"])
            shard.append("told")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(staging)
            assert isinstance(await waiting.first(), Failed)
        assert shard == ["told"]
        assert drive.state is DriveState.FAULTY
        gate.set()
        await trio.sleep(0.05)
        assert len(waiting.replies) == 1


async def test_a_folder_is_not_opened_again_while_an_old_commit_may_land(bench):
    """Landing late, it would put old promises over new ones."""
    bench.settings = attrs.evolve(bench.settings, guard_seconds=0.02, hung_seconds=0.05)
    gate = threading.Event()
    async with bench.open() as drive:
        drive.folder.writer.apply = lambda _: gate.wait(30)
        ballot = at(bench, 1)
        drive.submit(accept(ballot, live(ballot)), Answers())
        await drive.left.wait()
    with pytest.raises(ConfigError):
        async with bench.open():
            pass
    gate.set()
    await until(lambda: drive.folder._lock._fd < 0)
    async with bench.open() as drive:
        assert drive.state is DriveState.ACTIVE


async def test_a_read_of_a_shard_that_is_being_collected_leaves_no_debt(bench):
    """Its file goes before its row."""
    first, second = at(bench, 1), at(bench, 2)
    shard = header(1, first)
    unlink, gate = bench.tools.unlink, threading.Event()

    def slow(path):
        unlink(path)
        gate.wait(5)

    async with bench.open() as drive:
        await stage(drive, shard, LARGE)
        await ask(drive, accept(first, stored(first, shard)))
        await ask(drive, learn(first))
        await ask(drive, accept(second, tombstone(second, (shard.data_id,)), base=first))
        await ask(drive, learn(second))
        await trio.sleep(0.02)
        bench.tools.unlink = slow
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drive.collect)
            await until(lambda: drive._rows.is_collecting)
            await trio.sleep(0.05)
            with pytest.raises(DriveError):
                await drive.read_blocks(shard, 0, [len(block) for block in LARGE])
            await drive._commits.drain()
            assert (await drive.status()).heal_debt == 0, "noted while it went"
            gate.set()
        await until(lambda: not drive._rows.is_collecting)
        assert (await drive.status()).heal_debt == 0


async def test_files_that_hang_take_the_drive_out_and_hold_nobody(bench):
    """More of them than a drive has threads; another drive does not notice, and the stop does not wait."""
    hung, other, gate = bench.fresh(), bench.fresh(), threading.Event()
    hung.settings = attrs.evolve(bench.settings, guard_seconds=0.02, hung_seconds=0.1)
    hung.tools.sync_file = lambda _: gate.wait(30)

    async def staging(drive, number):
        with pytest.raises(DriveError):
            await stage(drive, header(number), LARGE)

    try:
        with trio.fail_after(15):
            async with other.open() as healthy, hung.open() as drive:
                async with trio.open_nursery() as nursery:
                    for number in range(50):
                        nursery.start_soon(staging, drive, number)
                    await stage(healthy, header(), LARGE)
                assert drive.state is DriveState.FAULTY
                assert "hung" in drive.reason
                assert healthy.state is DriveState.ACTIVE
    finally:
        gate.set()


async def test_a_drive_is_full_below_its_reserve_and_takes_shards_again_above(bench):
    gib = 1 << 30
    room = {"free": 100 * gib}
    bench.settings = attrs.evolve(bench.settings, min_free_bytes=gib, min_free_ratio=0.02)
    bench.tools.free_bytes = lambda _: (100 * gib, room["free"])
    async with bench.open() as drive:
        room["free"] = gib
        await until(lambda: drive.state is DriveState.READONLY)
        assert "full" in (await drive.status()).reason
        with pytest.raises(DriveFullError):
            drive.open_stage(header(), 0)
        assert await ask(drive, prepare(at(bench, 1))) is not None
        room["free"] = gib - gib // 8
        await until(lambda: drive.state is DriveState.CROWDED)
        with pytest.raises(DriveFullError):
            drive.open_stage(header(), 0)
        ballot = at(bench, 2)
        await expect(drive, accept(ballot, live(ballot)), Accepted)
        room["free"] = 2 * gib + gib // 16
        await until(lambda: drive.state is DriveState.READONLY)
        room["free"] = 2 * gib + gib // 2  # above the reserve, but not by half
        await trio.sleep(0.2)
        assert drive.state is DriveState.READONLY
        room["free"] = 4 * gib
        await until(lambda: drive.state is DriveState.ACTIVE)
        with pytest.raises(DriveFullError, match="does not fit"):
            drive.open_stage(header(), 3 * gib)


async def test_a_drive_that_small_objects_have_filled_has_room_again_when_they_are_deleted(bench):
    """Though its file system shows none: the index keeps what it took."""
    gib, reserve = 1 << 30, 256 * 1024
    bench.settings = attrs.evolve(bench.settings, min_free_bytes=reserve, min_free_ratio=0.0)
    bench.tools.free_bytes = lambda _: (gib, reserve // 4)
    rows = [object_row(BUCKET, b"%d" % number) for number in range(150)]
    async with bench.open() as drive:
        await until(lambda: drive.state is DriveState.CROWDED)
        ballot, later = at(bench, 1), at(bench, 2)
        for number, row in enumerate(rows):
            body = BodyId(number.to_bytes(16, "big"))
            state = inline(ballot, body, bytes(4096))
            message = accept(ballot, state, row, bodies={body: bytes(4096)})
            await expect(drive, message, Accepted)
        await trio.sleep(0.2)
        assert drive.state is DriveState.CROWDED
        for row in rows:
            await expect(drive, accept(later, tombstone(later), row, base=ballot), Accepted)
        await until(lambda: drive.state is DriveState.ACTIVE)
        await stage(drive, header(1), [b"of an index row"])
        with pytest.raises(DriveFullError, match="does not fit"):
            drive.open_stage(header(2), BLOCK)


async def test_an_index_without_room_uses_the_ballast(bench):
    bench.settings = attrs.evolve(bench.settings, ballast_bytes=1 << 20)
    ballot = at(bench, 1)
    async with bench.open() as drive:
        assert (bench.root / "ballast").stat().st_size == 1 << 20
        apply, tries = drive.folder.writer.apply, []

        def full_once(batch):
            tries.append((bench.root / "ballast").exists())
            if len(tries) == 1:
                raise apsw.FullError("database or disk is full")
            apply(batch)

        drive.folder.writer.apply = full_once
        await expect(drive, accept(ballot, live(ballot)), Accepted)
        assert tries == [True, False]
        assert drive.state not in OUT


async def test_too_many_waiting_operations_are_refused_at_once(bench):
    gate = threading.Event()
    async with bench.open() as drive:
        await ask(drive, prepare(at(bench, 1)))
        apply = drive.folder.writer.apply

        def slow(batch):
            gate.wait(5)
            apply(batch)

        drive.folder.writer.apply = slow
        answers = Answers()
        drive.submit(accept(at(bench, 2), live(at(bench, 2))), answers)
        await trio.sleep(0.02)
        for _ in range(MAX_OPERATIONS):
            drive._commits.touch()
        assert isinstance(await ask(drive, query()), Failed)
        gate.set()
        await until(lambda: not drive._commits.is_full)
        await expect(drive, query(), Value)
        assert drive.state is DriveState.ACTIVE


# -- what is left behind


@pytest.mark.parametrize("how", ["abort", "error", "cancel"])
async def test_a_stage_that_comes_to_nothing_leaves_no_file_and_no_row(bench, how):
    shard = header()
    async with bench.open() as drive:
        writing = drive.open_stage(shard, 0)
        await writing.write(LARGE)
        assert files_of(bench) == {shard_path(bench.root, shard.data_id, 0).name}
        match how:
            case "abort":
                writing.abort()
            case "error":
                bench.tools.failing, bench.tools.error = "append", OSError(errno.ENOSPC, "full")
                with pytest.raises(DriveFullError):
                    await writing.close(bytes(32))
                bench.tools.failing = ""
            case _:
                gate, apply = threading.Event(), drive.folder.writer.apply

                def slow(batch):
                    gate.wait(5)
                    apply(batch)

                drive.folder.writer.apply = slow
                with trio.move_on_after(0.1) as scope:
                    await writing.close(bytes(32))
                assert scope.cancelled_caught
                gate.set()
                writing.abort()
        await until(lambda: not files_of(bench))
        assert await drive.stat_shard(shard.data_id, 0) is None
        with pytest.raises(ShardMissingError):
            await drive.read_blocks(shard, 0, [BLOCK])


async def test_after_a_crash_torn_files_go_and_whole_ones_stay(bench):
    torn, whole, orphan = header(1), header(2), header(3)
    async with bench.open() as drive:
        left = drive.open_stage(torn, 0)
        await left.write(LARGE)
        await stage(drive, whole, LARGE)
        # Written to its end, its row lost: absence in the index proves nothing about such a file.
        await stage(drive, orphan, LARGE)
        drive._commits.batch.drop_shards.append((orphan.data_id, 0))
        drive._commits.touch()
        await drive._commits.drain()
        bench.crash()
        left.abort()
    async with bench.open() as drive:
        assert not drive.was_clean
        begun = drive.open_stage(header(4), 0)
        await begun.write(LARGE)
        await until(lambda: drive._upkeep.begun is None)
        await until(lambda: len(files_of(bench)) == 3)
        await begun.close(bytes(32))
        for shard in (whole, header(4)):
            assert len(await drive.read_blocks(shard, 0, [BLOCK])) == 1


async def test_a_closed_upload_takes_its_part_rows_and_their_data_with_it(bench):
    upload = UploadId(b"u" * 16)
    first, second, third = (at(bench, step) for step in (1, 2, 3))
    shard = header(1, second)
    row = part_row(BUCKET, upload, 1, b"key")
    async with bench.open() as drive:
        await expect(drive, accept(first, uploading(first, upload)), Accepted)
        await expect(drive, learn(first), Done)
        await stage(drive, shard, LARGE)
        await expect(drive, accept(second, stored(second, shard), row), Accepted)
        await expect(drive, learn(second, row), Done)
        await expect(drive, accept(third, KeyState(), base=first), Accepted)
        await expect(drive, learn(third), Done)
        start = object_row(BUCKET, b"")[:16]
        everything = Scan(start=start, stop=None, limit=10, epoch=1, bucket_epoch=1)

        with trio.fail_after(5):
            while True:
                await drive.collect()
                page = await expect(drive, everything, Page)
                if len(page.rows) == 1 and await drive.stat_shard(shard.data_id, 0) is None:
                    break
                await trio.sleep(0.01)
        assert isinstance(await ask(drive, prepare(at(bench, 4), row)), Promise)


async def test_errors_of_a_drives_own_tasks_do_not_leave_the_drive(bench):
    bench.settings = attrs.evolve(bench.settings, guard_seconds=0.02, checkpoint_bytes=0)
    async with bench.open() as drive:
        drive.folder.checkpointer.checkpoint = _raise(apsw.IOError("disk I/O error"))
        await expect(drive, accept(at(bench, 1), live(at(bench, 1))), Accepted)
        await until(lambda: drive.state is DriveState.FAULTY)


def _raise(error):
    def broken():
        raise error

    return broken


async def test_a_copy_of_the_folder_is_a_drive_like_the_first(bench, tmp_path):
    ballot = at(bench, 1)
    async with bench.open() as drive:
        await expect(drive, accept(ballot, live(ballot)), Accepted)
    shutil.copytree(bench.root, tmp_path / "copy")
    shutil.rmtree(bench.root)
    bench.root = tmp_path / "copy"
    async with bench.open() as drive:
        assert drive.was_clean
        assert (await expect(drive, query(), Value)).register.ballot == ballot
