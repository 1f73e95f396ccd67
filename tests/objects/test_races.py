"""Who wins where several want the same, and that exactly one does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from cluster.errors import (
    ClusterError,
    NotEmptyError,
    NotFoundError,
    OutcomeUnknownError,
    PreconditionError,
    QuorumError,
)
from cluster.objects import buckets
from cluster.objects.model import Bucket, PartChoice, Seal
from cluster.objects.standing import while_standing
from cluster.register.mutations import Absent, ValidatorIn
from cluster.register.proposer import Committed
from cluster.register.records import Part, Upload
from tests.objects.local_store import noise, open_store, put_request, read_all


async def test_of_32_that_want_the_absent_key_one_gets_it(tmp_path: Path) -> None:
    async with open_store(tmp_path) as local:
        store = local.store
        bucket = await store.create_bucket("bucket", "me", b"")
        for size in (500, 20_000):
            key = b"%d" % size
            winners: list[int] = []
            others: list[type[ClusterError]] = []

            async def write(number: int, size: int = size, key: bytes = key) -> None:
                request = put_request(noise(size, number), expect=(Absent(),))
                try:
                    await store.put(bucket, key, request)
                except ClusterError as error:
                    others.append(type(error))  # noqa: B023 - the nursery ends within the loop
                else:
                    winners.append(number)  # noqa: B023

            async with trio.open_nursery() as nursery:
                for number in range(32):
                    nursery.start_soon(write, number)
            # A duel of 32 may leave some of them, even the one that won, without an answer on a busy machine.
            assert len(winners) <= 1
            assert set(others) <= {PreconditionError, OutcomeUnknownError}
            assert len(winners) + len(others) == 32
            possible = winners or range(32)
            data = await read_all(store, bucket, key)
            assert data in [noise(size, number) for number in possible]


async def test_a_bucket_whose_deletion_was_refused_goes_on_for_who_knew_it(tmp_path: Path) -> None:
    """A refused deletion has fenced the bucket; requests that had looked it up before look again, also with half a body."""
    async with open_store(tmp_path) as local:
        store = local.store
        bucket = await store.create_bucket("bucket", "me", b"")
        await store.put(bucket, b"key", put_request(b"kept"))
        upload = await store.create_upload(bucket, b"up", b"")
        with pytest.raises(NotEmptyError):
            await store.delete_bucket(bucket)
        assert (await store.get_bucket("bucket")).epoch > bucket.epoch
        for size in (10, 1_000_000):
            await store.put(bucket, b"%d" % size, put_request(noise(size)))
            assert await read_all(store, bucket, b"%d" % size) == noise(size)
        part = await store.put_part(bucket, b"up", upload, 1, put_request(noise(70_000)))
        assert (await store.get_upload(bucket, b"up", upload)).upload_id == upload
        assert len((await store.list_parts(bucket, b"up", upload, after=0, limit=9))[0]) == 1
        assert len((await store.list_uploads(bucket, prefix=b"", start=b"", limit=9))[0]) == 1
        await store.complete_upload(
            bucket, b"up", upload, [PartChoice(number=1, validator=part.validator)],
            lambda _, __: Seal(validator="v", attributes=b""),
        )  # fmt: skip
        await store.abort_upload(bucket, b"x", await store.create_upload(bucket, b"x", b""))
        await store.delete(bucket, b"key")
        listing = await store.list(bucket, prefix=b"", delimiter=b"", start=b"", limit=9)
        assert [entry.key for entry in listing.entries] == [b"10", b"1000000", b"up"]


async def test_a_bucket_that_was_made_anew_is_not_the_one_that_was_looked_up(
    tmp_path: Path,
) -> None:
    async with open_store(tmp_path) as local:
        store = local.store
        old = await store.create_bucket("bucket", "me", b"")
        await store.delete_bucket(old)
        await store.create_bucket("bucket", "me", b"")
        with pytest.raises(NotFoundError):
            await store.put(old, b"key", put_request(b"lost"))
        with pytest.raises(NotFoundError):
            await store.get(old, b"key")


async def test_writers_of_one_key_get_their_own_version_and_the_last_stays(tmp_path: Path) -> None:
    async with open_store(tmp_path) as local:
        store = local.store
        bucket = await store.create_bucket("bucket", "me", b"")
        versions = {}

        async def write(number: int) -> None:
            version = await store.put(bucket, b"key", put_request(b"%d" % number))
            versions[version.stamp] = b"%d" % number

        async with trio.open_nursery() as nursery:
            for number in range(16):
                nursery.start_soon(write, number)
        assert len(versions) == 16
        assert await read_all(store, bucket, b"key") == versions[max(versions)]


async def test_conditional_deletes_of_a_vanishing_key_succeed(tmp_path: Path) -> None:
    async with open_store(tmp_path) as local:
        store = local.store
        bucket = await store.create_bucket("bucket", "me", b"")
        version = await store.put(bucket, b"key", put_request(b"data"))
        expect = (ValidatorIn(validators=(version.validator,)),)
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(store.delete, bucket, b"key", expect)
        with pytest.raises(NotFoundError):
            await store.get(bucket, b"key")


def _judge(_: Upload, parts: Sequence[Part]) -> Seal:
    return Seal(validator=f"multi-{len(parts)}", attributes=b"")


async def test_an_upload_is_either_completed_or_aborted(tmp_path: Path) -> None:
    async with open_store(tmp_path) as local:
        store = local.store
        bucket = await store.create_bucket("bucket", "me", b"")
        for number in range(12):
            key = b"%d" % number
            upload = await store.create_upload(bucket, key, b"")
            data = noise(70_000, number)
            part = await store.put_part(bucket, key, upload, 1, put_request(data))
            choices = [PartChoice(number=1, validator=part.validator)]
            done: list[str] = []

            async def complete() -> None:
                try:
                    version = await store.complete_upload(bucket, key, upload, choices, _judge)  # noqa: B023
                    assert version.size == 70_000
                    done.append("complete")  # noqa: B023
                except NotFoundError:
                    pass

            async def abort() -> None:
                try:
                    await store.abort_upload(bucket, key, upload)  # noqa: B023
                    done.append("abort")  # noqa: B023
                except NotFoundError:
                    pass

            async with trio.open_nursery() as nursery:
                for job in [complete, abort, complete] if number % 2 else [abort, complete, abort]:
                    nursery.start_soon(job)
            assert len(set(done)) == 1
            if "complete" in done:
                assert await read_all(store, bucket, key) == data
            else:
                with pytest.raises(NotFoundError):
                    await store.get(bucket, key)


async def test_a_repeated_complete_after_an_overwrite_says_what_the_first_said(
    tmp_path: Path,
) -> None:
    async with open_store(tmp_path) as local:
        store = local.store
        bucket = await store.create_bucket("bucket", "me", b"")
        upload = await store.create_upload(bucket, b"key", b"")
        part = await store.put_part(bucket, b"key", upload, 1, put_request(b"data"))
        choices = [PartChoice(number=1, validator=part.validator)]
        first = await store.complete_upload(bucket, b"key", upload, choices, _judge)
        await store.put(bucket, b"key", put_request(b"newer"))
        again = await store.complete_upload(bucket, b"key", upload, choices, _judge)
        assert (again.validator, again.stamp) == (first.validator, first.stamp)
        assert await read_all(store, bucket, b"key") == b"newer"


async def test_an_acknowledged_object_is_never_in_a_deleted_bucket(tmp_path: Path) -> None:
    async with open_store(tmp_path) as local:
        store = local.store
        for number in range(15):
            bucket = await store.create_bucket(f"bucket-{number}", "me", b"")
            outcome: list[str] = []

            async def put(size: int, wait: float) -> None:
                await trio.sleep(wait)
                try:
                    await store.put(bucket, b"key", put_request(noise(size)))  # noqa: B023
                    outcome.append("put")  # noqa: B023
                except ClusterError:
                    pass

            async def delete(wait: float) -> None:
                await trio.sleep(wait)
                try:
                    await store.delete_bucket(bucket)  # noqa: B023
                    outcome.append("deleted")  # noqa: B023
                except NotEmptyError:
                    pass
                except NotFoundError:
                    pass

            async with trio.open_nursery() as nursery:
                nursery.start_soon(put, 10 if number % 2 else 9000, number % 5 / 1000)
                nursery.start_soon(delete, number % 3 / 1000)
                nursery.start_soon(delete, number % 4 / 1000)
            assert "put" not in outcome or "deleted" not in outcome
            if "put" in outcome:
                again = await store.get_bucket(bucket.name)
                assert (await store.get(again, b"key")).version.size
            elif "deleted" in outcome:
                with pytest.raises(NotFoundError):
                    await store.get_bucket(bucket.name)


async def test_a_part_that_lands_before_a_fence_is_answered_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last look at the upload meets the fence of a deletion that was refused: the bucket is there all the same."""
    async with open_store(tmp_path) as local:
        store, commit = local.store, local.table.commit
        bucket = await store.create_bucket("bucket", "me", b"")
        await store.put(bucket, b"key", put_request(b"kept"))
        upload = await store.create_upload(bucket, b"up", b"")

        async def commit_before_a_fence(*args: Any, **kwargs: Any) -> Committed:
            done = await commit(*args, **kwargs)
            monkeypatch.undo()
            with pytest.raises(NotEmptyError):
                await store.delete_bucket(bucket)
            return done

        monkeypatch.setattr(local.table, "commit", commit_before_a_fence)
        part = await store.put_part(bucket, b"up", upload, 1, put_request(noise(70_000)))
        listed, _ = await store.list_parts(bucket, b"up", upload, after=0, limit=9)
        assert [info.part for info in listed] == [part]


async def test_a_bucket_whose_deletion_is_refused_again_and_again_is_there(tmp_path: Path) -> None:
    """Between the second look at the bucket and its use another deletion is refused."""
    async with open_store(tmp_path) as local:
        store = local.store
        bucket = await store.create_bucket("bucket", "me", b"")
        await store.put(bucket, b"key", put_request(b"kept"))
        refused = 0

        async def renew(known: Bucket) -> Bucket:
            nonlocal refused
            found = await store.get_bucket(known.name)
            if refused < 3:
                refused += 1
                with pytest.raises(NotEmptyError):
                    await store.delete_bucket(found)
            return found

        async def read(standing: Bucket) -> int:
            reading = await local.table.read(store._context.key_ref(standing, b"key"))
            assert reading.state.live is not None
            return reading.state.live.size

        with pytest.raises(NotEmptyError):
            await store.delete_bucket(bucket)
        assert await while_standing(bucket, read, renew) == len(b"kept")
        assert refused == 3


async def test_who_finishes_a_deletion_that_others_have_finished_and_begun_anew_finds_the_bucket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_store(tmp_path) as local:
        store, fence_set = local.store, buckets.fence_set
        bucket = await store.create_bucket("bucket", "me", b"")
        await store.put(bucket, b"key", put_request(b"kept"))

        async def out_of_reach(*args: Any) -> Any:
            raise QuorumError(4, 0)

        async def overtaken(*args: Any) -> Any:
            monkeypatch.undo()
            fenced = await fence_set(*args)
            for _ in range(2):
                with pytest.raises(NotEmptyError):
                    await store.delete_bucket(bucket)
            return fenced

        monkeypatch.setattr(buckets, "fence_set", out_of_reach)
        with pytest.raises(QuorumError):
            await store.delete_bucket(bucket)
        monkeypatch.setattr(buckets, "fence_set", overtaken)
        assert (await store.get_bucket("bucket")).bucket_id == bucket.bucket_id
