"""Two broken drives of six do not show, damaged files give the right bytes, and what fails leaves nothing behind."""

import contextlib
import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from cluster.drives.drive import Drive
from cluster.erasure.shard_format import block_crc, block_offset
from cluster.errors import (
    CorruptError,
    NotEmptyError,
    NotFoundError,
    StorageFullError,
    UnavailableError,
)
from cluster.objects.context import ObjectSettings
from cluster.objects.model import Bucket, Versioning, VersionPlace
from tests.objects.faulty_drive import FaultyDrive, Mode
from tests.objects.local_store import LocalStore, noise, open_store, put_request, read_all

MI = 1 << 20
# Patient enough for a busy machine's fsyncs, also those of the last shard: a test that damages two needs all the others.
# Where drives hang, every second of patience is waited for.
PATIENT = ObjectSettings(
    retry_seconds=10.0, overflow_seconds=5.0, stage_seconds=20.0, stall_seconds=5.0,
    straggler_min_seconds=10.0, straggler_max_seconds=10.0,
)  # fmt: skip
QUICK = ObjectSettings(
    retry_seconds=1.0, overflow_seconds=0.5, stage_seconds=10.0, stall_seconds=0.5,
    straggler_max_seconds=0.1, straggler_feed_seconds=0.3,
)  # fmt: skip
SIZES = [100, 50_000, 300_000, 5 * MI]


@attrs.frozen
class Faulty:
    local: LocalStore
    drives: list[FaultyDrive]
    bucket: Bucket

    def set(self, mode: Mode, *positions: int) -> None:
        for drive in self.drives:
            drive.mode = "fine"
        for position in positions:
            self.drives[position].mode = mode


@asynccontextmanager
async def open_faulty(root: Path, settings: ObjectSettings = PATIENT) -> AsyncIterator[Faulty]:
    drives: list[FaultyDrive] = []

    def wrap(_: int, drive: Drive) -> Drive:
        drives.append(FaultyDrive(drive))
        return drives[-1]

    async with open_store(root, settings=settings, wrap=wrap) as local:
        bucket = await local.store.create_bucket("bucket", "me", b"")
        yield Faulty(local, drives, bucket)


@pytest.mark.parametrize("mode", ["faulty", "gone", "full", "filling", "broken-stages"])
async def test_two_broken_drives_do_not_show(tmp_path: Path, mode: Mode) -> None:
    async with open_faulty(tmp_path) as faulty:
        store = faulty.local.store
        for number, lost in enumerate(itertools.combinations(range(6), 2)):
            size = SIZES[number % len(SIZES)]
            key = b"%d" % number
            faulty.set("fine")
            await store.put(faulty.bucket, b"before" + key, put_request(noise(size)))
            faulty.set(mode, *lost)
            await store.put(faulty.bucket, key, put_request(noise(size, 2)))
            assert await read_all(store, faulty.bucket, key) == noise(size, 2)
            assert await read_all(store, faulty.bucket, b"before" + key) == noise(size)
            faulty.set("faulty", *((p + 1) % 6 for p in lost[:1]))
            assert await read_all(store, faulty.bucket, key) == noise(size, 2)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["hung", "hung-stages", "hung-reads"])
async def test_two_hung_drives_do_not_show(tmp_path: Path, mode: Mode) -> None:
    async with open_faulty(tmp_path, QUICK) as faulty:
        store = faulty.local.store
        for size in SIZES:
            for lost in [(0, 1), (2, 5)]:
                faulty.set(mode, *lost)
                await store.put(faulty.bucket, b"key", put_request(noise(size, 2)))
                assert await read_all(store, faulty.bucket, b"key") == noise(size, 2)


async def test_three_broken_drives_fail_the_put_and_show_nothing(tmp_path: Path) -> None:
    async with open_faulty(tmp_path) as faulty:
        store = faulty.local.store
        await store.put(faulty.bucket, b"old", put_request(b"old"))
        for size in SIZES:
            for mode in ("faulty", "gone", "broken-stages"):
                if size <= 4096 and mode != "faulty":
                    continue  # no shards; and what some drives accepted may yet be chosen
                faulty.set(mode, 0, 2, 4)
                with pytest.raises(UnavailableError):
                    await store.put(faulty.bucket, b"new", put_request(noise(size)))
                with pytest.raises(UnavailableError):
                    await store.put(faulty.bucket, b"old", put_request(noise(size)))
            faulty.set("fine")
            with pytest.raises(NotFoundError):
                await store.get(faulty.bucket, b"new")
            assert await read_all(store, faulty.bucket, b"old") == b"old"


@pytest.mark.parametrize("mode", ["full", "filling"])
async def test_full_drives_are_told_from_broken_ones(tmp_path: Path, mode: Mode) -> None:
    async with open_faulty(tmp_path) as faulty:
        store = faulty.local.store
        await store.put(faulty.bucket, b"old", put_request(b"old"))
        faulty.set(mode, 0, 2, 4)
        for size in SIZES:
            if mode == "full" or size > 4096:
                with pytest.raises(StorageFullError):
                    await store.put(faulty.bucket, b"new", put_request(noise(size)))
        assert await read_all(store, faulty.bucket, b"old") == b"old"
        await store.delete(faulty.bucket, b"old")
        with pytest.raises(NotFoundError):
            await store.get(faulty.bucket, b"old")


def shard_files(local: LocalStore, position: int) -> list[Path]:
    return sorted(path for path in (local.paths[position] / "shards").glob("*/*") if path.is_file())


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0xFF]))


async def debts(local: LocalStore) -> list[int]:
    return [(await drive.status()).heal_debt for drive in local.drives]


@pytest.mark.parametrize("damage", ["delete", "flip-block", "flip-footer", "cut"])
async def test_damaged_files_give_the_right_bytes_and_heal_debt(
    tmp_path: Path, damage: str
) -> None:
    async with open_faulty(tmp_path) as faulty:
        local, data = faulty.local, noise(5 * MI + 3)
        await local.store.put(faulty.bucket, b"key", put_request(data))
        assert await debts(local) == [0] * 6
        for position in (0, 3):
            (path,) = shard_files(local, position)
            match damage:
                case "delete":
                    path.unlink()
                case "flip-block":
                    flip(path, 70_000)
                case "flip-footer":
                    flip(path, path.stat().st_size - 30)
                case _:
                    os.truncate(path, 100_000)
        assert await read_all(local.store, faulty.bucket, b"key") == data
        found = await debts(local)
        assert found[0] == 1
        if damage != "flip-footer":  # nobody had to read the footer at 3
            assert found == [1, 0, 0, 1, 0, 0]


@pytest.mark.parametrize("mode", ["fine", "hung-read"])
@pytest.mark.parametrize("size", [200_000, MI, 5 * MI])
async def test_wrong_bytes_with_right_checksums_are_found_out(
    tmp_path: Path, size: int, mode: Mode
) -> None:
    async with open_faulty(tmp_path) as faulty:
        local, data = faulty.local, noise(size)
        version = await local.store.put(faulty.bucket, b"key", put_request(data))
        part = version.parts[0]
        for position in (1, 4):
            path = shard_files(local, position)[0]
            length = min(part.block, -(-size // part.k))
            forged = noise(length, position)
            with path.open("r+b") as file:
                file.seek(block_offset(0, part.block))
                file.write(forged + block_crc(part.data_id, position, 0, forged))
        faulty.set(mode, 1)  # one that was late is asked again when the search needs it
        assert await read_all(local.store, faulty.bucket, b"key") == data
        assert await debts(local) == [0, 1, 0, 0, 1, 0]


async def test_three_damaged_shards_are_an_error_and_never_wrong_bytes(tmp_path: Path) -> None:
    async with open_faulty(tmp_path) as faulty:
        local = faulty.local
        await local.store.put(faulty.bucket, b"key", put_request(noise(MI)))
        for position in (0, 1, 5):
            flip(shard_files(local, position)[0], 70_000)
        with pytest.raises((CorruptError, UnavailableError)):
            await read_all(local.store, faulty.bucket, b"key")


async def test_a_superseded_shard_set_is_not_an_endless_read(tmp_path: Path) -> None:
    async with open_faulty(tmp_path) as faulty:
        local = faulty.local
        await local.store.put(faulty.bucket, b"key", put_request(noise(MI)))
        found = await local.store.get(faulty.bucket, b"key")
        await local.store.put(faulty.bucket, b"key", put_request(b"new"))
        for position in range(6):
            for path in shard_files(local, position):
                path.unlink()
        with pytest.raises(UnavailableError, match="replaced or deleted"):
            await found.open(0, MI)


async def test_buffers_of_a_body_are_gone_before_the_next_are_waited_for(tmp_path: Path) -> None:
    """Or readers that wait for their turn would hold, together, far more than the budget."""
    async with open_faulty(tmp_path) as faulty:
        local = faulty.local
        data = noise(12 * MI)
        await local.store.put(faulty.bucket, b"key", put_request(data))
        reader = await (await local.store.get(faulty.bucket, b"key")).open(0, len(data))
        given = await reader.next()
        assert given is not None
        assert b"".join(given) == data[: 4 * MI]
        assert await reader.next() is not None
        assert not given
        await reader.aclose()
        assert local.used == 0


@pytest.mark.parametrize("share", [0.03, 0.0])
async def test_a_hedged_read_does_not_wait_for_a_stalled_drive(
    tmp_path: Path, share: float
) -> None:
    settings = attrs.evolve(QUICK, stall_seconds=0.6, hedge_share=share)
    async with open_faulty(tmp_path, settings) as faulty:
        data = noise(MI)
        await faulty.local.store.put(faulty.bucket, b"key", put_request(data))
        for position in (0, 2):
            faulty.set("hung-reads", position)
            began = trio.current_time()
            assert await read_all(faulty.local.store, faulty.bucket, b"key") == data
            assert (trio.current_time() - began < 0.5) == (share > 0)


async def test_a_slow_drive_is_left_out_and_owed_its_shard(tmp_path: Path) -> None:
    async with open_faulty(tmp_path, QUICK) as faulty:
        faulty.set("hung-stages", 2)
        data = noise(40 * MI)
        version = await faulty.local.store.put(faulty.bucket, b"key", put_request(data))
        assert version.parts[0].staged == 0b111011
        assert await read_all(faulty.local.store, faulty.bucket, b"key") == data
        assert (await debts(faulty.local))[2] == 1


@pytest.mark.parametrize("mode", ["faulty", "gone", "hung"])
async def test_a_bucket_goes_without_two_drives_and_not_without_three(
    tmp_path: Path, mode: Mode
) -> None:
    async with open_faulty(tmp_path) as faulty:
        store = faulty.local.store
        await store.put(faulty.bucket, b"key", put_request(b"data"))
        faulty.set(mode, 0, 3)
        with pytest.raises(NotEmptyError):
            await store.delete_bucket(faulty.bucket)
        bucket = await store.get_bucket("bucket")
        await store.delete(bucket, b"key")
        if mode != "hung":  # a quorum that stays silent is waited for longer than a test may take
            faulty.set(mode, 0, 3, 5)
            with pytest.raises(UnavailableError):
                await store.delete_bucket(bucket)
        faulty.set(mode, 1, 2)  # these were fenced, those at 0 and 3 were not
        with contextlib.suppress(NotFoundError):  # whoever looks first finishes a deletion
            await store.delete_bucket(bucket)
        with pytest.raises(NotFoundError):
            await store.get_bucket("bucket")
        faulty.set("fine")
        with pytest.raises(NotFoundError):
            await store.put(bucket, b"key", put_request(b"data"))
        assert [found.name for found in await store.list_buckets()] == []


async def test_a_change_of_mode_that_was_not_fenced_is_completed_by_its_repetition(
    tmp_path: Path,
) -> None:
    async with open_faulty(tmp_path) as faulty:
        store, old = faulty.local.store, faulty.bucket
        faulty.set("broken-fences", *range(6))
        with pytest.raises(UnavailableError):
            await store.set_versioning(old, Versioning.ENABLED)
        assert (await store.get_bucket("bucket")).versioning is Versioning.ENABLED
        # Not acknowledged: whoever looked before may still write in the old mode.
        assert (await store.put(old, b"key", put_request(b"null"))).version_id is None
        faulty.set("fine")
        await store.set_versioning(old, Versioning.ENABLED)
        assert (await store.put(old, b"key", put_request(b"named"))).version_id is not None
        page = await store.list_versions(
            old, prefix=b"", delimiter=b"", start=VersionPlace(b""), limit=10
        )
        assert len(page.entries) == 2
