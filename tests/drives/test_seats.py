"""Drives that go and come back; those that must not."""

import random
import shutil
from pathlib import Path

import apsw
import attrs
import pytest
import trio

from cluster.drives.drive import DriveState
from cluster.drives.file_ops import FileOps
from cluster.drives.format import carry_out, decide, finish, inspect
from cluster.drives.index import Index
from cluster.drives.local_drive import DriveTakenOut, LocalDrive
from cluster.drives.seats import DriveNotOpened, DriveReturned, Seats, open_seats
from cluster.drives.settings import DriveSettings
from cluster.errors import ConfigError
from cluster.ids import BucketId
from cluster.register.messages import Failed, Fence
from tests.objects.local_store import ThreadRuntime

SETTINGS = DriveSettings(
    min_free_bytes=0, min_free_ratio=0.0, ballast_bytes=0, free_seconds=0.02, guard_seconds=0.02
)


@attrs.define
class Machine:
    """Three folders of one node; `open` plans anew each time, as a start does."""

    root: Path
    runtime: ThreadRuntime = attrs.field(factory=ThreadRuntime)

    def folder(self, index: int) -> Path:
        return self.root / f"d{index}"

    def open(self):
        rng = random.Random(1)
        plan = decide(
            [inspect(self.folder(index)) for index in range(3)],
            code=None,
            arrange=lambda count: ("2+1", [(0, index) for index in range(count)]),
            new_id=lambda: rng.randbytes(16),
        )
        carry_out(plan, FileOps())
        finish(plan, FileOps())
        return open_seats(plan, self.runtime, settings=SETTINGS, files=FileOps(), look_seconds=0.02)

    def count(self, kind) -> int:
        return sum(isinstance(event, kind) for event in self.runtime.events)


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


async def until(seats: Seats, *states: str) -> None:
    with trio.fail_after(10):
        while [drive.state.value for drive in seats.drives] != list(states):  # noqa: ASYNC110 - drives tell nobody
            await trio.sleep(0.01)


async def test_a_drive_that_is_away_comes_back_with_its_seat(machine):
    async with machine.open() as seats:
        first = seats.drives
        await until(seats, "active", "active", "active")
        machine.folder(1).rename(machine.root / "away")
        await until(seats, "active", "missing", "active")
        assert "mount the drive" in (await seats.drives[1].status()).reason
        assert [d.drive_id for d in seats.drives] == [d.drive_id for d in first]
        machine.folder(1).mkdir()
        await trio.sleep(0.1)
        assert not any(machine.folder(1).iterdir()), "an empty folder is an unmounted drive"
        machine.folder(1).rmdir()
        (machine.root / "away").rename(machine.folder(1))
        await until(seats, "active", "active", "active")
        assert machine.count(DriveTakenOut) == machine.count(DriveReturned) == 1
    assert all(isinstance(drive, LocalDrive) for drive in first)


async def test_a_drive_that_was_away_at_the_start_comes_in_at_another_place(machine):
    async with machine.open():
        pass
    machine.folder(0).rename(machine.root / "away")
    async with machine.open() as seats:
        await until(seats, "missing", "active", "active")
        assert machine.count(DriveNotOpened) == 1
        shutil.copytree(machine.folder(1), machine.folder(0))  # a clone of another drive is not it
        await trio.sleep(0.1)
        await until(seats, "missing", "active", "active")
        shutil.rmtree(machine.folder(0))
        (machine.root / "away").rename(machine.folder(0))
        await until(seats, "active", "active", "active")


async def test_a_drive_without_room_for_its_index_comes_back_when_there_is_some(
    machine, monkeypatch
):
    """All drives of a set fill up together: were that the end of them, it would be the end of the data."""
    apply, is_full = Index.apply, True

    def out_of_room(self, batch):
        if is_full and Path(self._db.filename).parent == machine.folder(1):
            raise apsw.FullError("database or disk is full")
        apply(self, batch)

    async with machine.open() as seats:
        await until(seats, "active", "active", "active")
        monkeypatch.setattr(Index, "apply", out_of_room)
        replies = []
        seats.drives[1].submit(Fence(bucket=BucketId(bytes(16)), bucket_epoch=2), replies.append)
        await until(seats, "active", "missing", "active")
        assert isinstance(replies[0], Failed)
        assert "no room even for deletions" in (await seats.drives[1].status()).reason
        await trio.sleep(0.1)
        await until(seats, "active", "missing", "active")
        is_full = False
        await until(seats, "active", "active", "active")
        is_full = True
        seats.drives[1].submit(Fence(bucket=BucketId(bytes(16)), bucket_epoch=2), replies.append)
        await until(seats, "active", "missing", "active")
    async with machine.open() as seats:  # nor does the next start hold it against the drive
        await until(seats, "active", "missing", "active")
        is_full = False
        await until(seats, "active", "active", "active")


async def test_a_failed_drive_stays_out_and_the_others_remember_it(machine):
    async with machine.open() as seats:
        seats.drives[2]._fault("a write failed: EIO")
        await until(seats, "active", "active", "faulty")
        await trio.sleep(0.1)
        await until(seats, "active", "active", "faulty")
    async with machine.open() as seats:
        await until(seats, "active", "active", "faulty")
        assert "a write failed: EIO" in (await seats.drives[2].status()).reason


async def test_drives_that_fail_at_once_are_all_remembered(machine):
    async with machine.open() as seats:
        for drive in seats.drives:
            drive._fault("the controller is gone")
        await until(seats, "faulty", "faulty", "faulty")
    async with machine.open() as seats:
        await until(seats, "faulty", "faulty", "faulty")


async def test_a_drive_of_another_process_is_an_error_of_the_start_only(machine):
    async with machine.open() as seats:
        with pytest.raises(BaseExceptionGroup) as refused:
            async with machine.open():
                pass
        assert refused.group_contains(ConfigError, match="in use by another", depth=1)
        await until(seats, "active", "active", "active")


async def test_an_index_that_cannot_be_opened_is_the_end_of_the_drive(machine):
    async with machine.open():
        pass
    for name in ("meta.db-wal", "meta.db-shm"):
        (machine.folder(1) / name).unlink()
    (machine.folder(1) / "meta.db").write_bytes(b"no database" * 1000)
    async with machine.open() as seats:
        await until(seats, "active", "faulty", "active")
        assert "cannot be opened" in (await seats.drives[1].status()).reason
        assert seats.drives[1].state is DriveState.FAULTY
