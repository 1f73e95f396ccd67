"""Rows of parts that stayed when their upload was closed are dropped; no other."""

import contextlib

import trio

from cluster.clock import BALLOT_ZERO
from cluster.healing.stray_parts import Dropped, drop_stray_parts
from cluster.ids import UploadId
from cluster.metadata.table import RegisterRef
from cluster.register.keys import part_row
from cluster.register.messages import Accepted, Learn, Query
from cluster.register.mutations import AbortUpload, PutVersion
from cluster.register.records import BOTTOM, Version
from tests.contracts.benches import accept, live
from tests.healing.world import BUCKET, world

UPLOAD = UploadId(b"u" * 16)


async def put_part(w, number=1, key=b"key", parts=()):
    """A part, as if its upload had been read as open; the row."""
    row = part_row(BUCKET, UPLOAD, number, key)
    version = Version(
        version_id=None, delete_marker=False, stamp=BALLOT_ZERO, op_hlc=0, size=1, validator="v",
        attributes=b"", mtime_ms=0, parts=parts,
    )  # fmt: skip
    await w.table.commit(RegisterRef(row, 0, 1), PutVersion(version=version))
    return row


async def abort(w, key=b"key"):
    await w.table.commit(w.ref(key), AbortUpload(upload_id=UPLOAD))


async def holders(w, row):
    """Which drives hold a row."""
    found = []
    for position in range(len(w.drives)):
        reply = await w.ask(position, Query(row=row, epoch=1, bucket_epoch=1))
        if reply.register != BOTTOM:
            found.append(position)
    return found


async def drop(w):
    return [(await drop_stray_parts(w.copier, drive)).rows for drive in w.drives]


async def test_a_part_that_came_after_its_upload_was_closed_goes(autojump_clock):
    async with world() as w:
        await w.open_upload()
        await abort(w)
        row = await put_part(w)
        assert await holders(w, row) == [0, 1, 2, 3]
        assert await drop(w) == [1, 1, 1, 1]
        assert await holders(w, row) == []
        assert await drop(w) == [0, 0, 0, 0]


async def test_parts_of_an_open_upload_stay_on_a_drive_that_missed_its_opening(autojump_clock):
    async with world() as w:
        with w.hung(3):
            await w.open_upload()
        row = await put_part(w)
        assert await drop(w) == [0, 0, 0, 0]
        assert await holders(w, row) == [0, 1, 2, 3]


@contextlib.contextmanager
def deaf_to_learn(drive):
    """What is chosen it does not hear."""
    submit = drive.submit

    def listen(request, reply):
        if not isinstance(request, Learn):
            submit(request, reply)

    drive.submit = listen
    yield
    drive.submit = submit


async def test_a_drive_that_does_not_know_of_the_closing_yet_deals_with_the_parts_itself(
    autojump_clock,
):
    """By their rows it finds their data: dropped before that, these would wait for the age of orphans."""
    async with world() as w:
        await w.open_upload()
        part = await w.stage()
        row = await put_part(w, parts=(part,))
        await trio.sleep(1)
        with deaf_to_learn(w.drives[0]):
            await abort(w)
            await trio.sleep(1)
        assert await holders(w, row) == [0]
        assert await drop(w) == [0, 0, 0, 0]
        for _ in range(2):
            await trio.sleep(2)
            await w.collect()
        assert await holders(w, row) == []
        assert not any(w.has_shard(position, part.data_id) for position in range(4))


async def test_a_part_that_is_about_to_be_chosen_is_not_dropped_by_a_drives_sync(autojump_clock):
    """A quorum that does not know a row says nothing against it while it is not known to have been chosen."""
    async with world() as w:
        await w.open_upload()
        row, ballot = part_row(BUCKET, UPLOAD, 1, b"key"), w.clock.tick()
        assert isinstance(await w.ask(0, accept(ballot, live(ballot), row)), Accepted)
        w.drives[0].cost = 1.0  # asked last
        assert await w.copier.install_chosen(w.drives[0], row)
        assert await holders(w, row) == [0]


async def test_without_a_quorum_nothing_goes(autojump_clock):
    async with world() as w:
        row = await put_part(w)
        with w.hung(1, 2, 3):
            assert await drop_stray_parts(w.copier, w.drives[0]) == Dropped()
        assert await holders(w, row) == [0, 1, 2, 3]


async def test_rounds_go_on_where_they_stopped(autojump_clock):
    async with world(rows=2) as w:
        for number in range(1, 6):
            await put_part(w, number, b"%d" % number)
        after, rounds, rows = None, 0, 0
        while rounds == 0 or after is not None:
            done = await drop_stray_parts(w.copier, w.drives[0], after)
            after, rounds, rows = done.next, rounds + 1, rows + done.rows
        assert (rounds, rows) == (3, 5)


async def test_a_drive_that_does_not_answer_is_asked_again_from_there(autojump_clock):
    async with world() as w:
        row = await put_part(w)
        w.drives[0].faults.hung = True
        assert await drop_stray_parts(w.copier, w.drives[0], row) == Dropped(next=row)
