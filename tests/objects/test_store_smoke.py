"""The object store over six folders: every verb once, at the sizes where something changes."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from cluster.errors import ExistsError, NotEmptyError, NotFoundError, PreconditionError
from cluster.objects.model import Bucket, PartChoice, Seal
from cluster.objects.source import object_source
from cluster.objects.store import ObjectStore
from cluster.register.mutations import Absent, ValidatorIn
from cluster.register.records import Part, Upload
from tests.objects.local_store import noise, open_store, put_request, read_all, read_range

MI = 1 << 20
SIZES = [
    0, 1, 4095, 4096, 4097, 65536, 262143, 262144, 262145, MI, 4 * MI - 1, 4 * MI + 1, 9 * MI + 17,
]  # fmt: skip


async def test_bodies_of_every_size_come_back(tmp_path: Path) -> None:
    async with open_store(tmp_path) as local:
        store = local.store
        bucket = await store.create_bucket("bucket", "me", b"")
        for size in SIZES:
            data = noise(size)
            key = b"size/%d" % size
            version = await store.put(bucket, key, put_request(data))
            assert version.size == size
            assert version.validator == hashlib.md5(data).hexdigest()
            found = await store.get(bucket, key)
            assert found.version == version
            assert await read_all(store, bucket, key) == data
            for start, stop in [(0, 1), (size // 3, size // 2), (size - 1, size), (size, size)]:
                if 0 <= start <= stop <= size:
                    assert await read_range(found, start, stop) == data[start:stop]
        found = await store.get(bucket, b"size/%d" % SIZES[-1])
        data = noise(SIZES[-1])
        for start in [MI - 7, 262143, 4 * MI - 1]:
            for length in [2, 65537, 262145, 5 * MI]:
                assert (
                    await read_range(found, start, start + length) == data[start : start + length]
                )


async def test_overwrite_and_delete(tmp_path: Path) -> None:
    async with open_store(tmp_path) as local:
        store = local.store
        bucket = await store.create_bucket("bucket", "me", b"")
        for size in [10, 100_000, 20]:
            await store.put(bucket, b"key", put_request(noise(size, size)))
            assert await read_all(store, bucket, b"key") == noise(size, size)
        with pytest.raises(PreconditionError):
            await store.put(bucket, b"key", put_request(b"x", expect=(Absent(),)))
        with pytest.raises(PreconditionError):
            await store.delete(bucket, b"key", (ValidatorIn(validators=("other",)),))
        await store.delete(bucket, b"key")
        with pytest.raises(NotFoundError):
            await store.get(bucket, b"key")
        await store.delete(bucket, b"key")
        await store.delete(bucket, b"key", (ValidatorIn(validators=("other",)),))


async def test_listing_with_prefix_delimiter_and_pages(tmp_path: Path) -> None:
    async with open_store(tmp_path) as local:
        store = local.store
        bucket = await store.create_bucket("bucket", "me", b"")
        keys = sorted(
            [b"a/%d" % i for i in range(4)] + [b"b", b"c/x/1", b"c/x/2", b"c/y", b"c/z/1", b"\xff"]
        )
        for key in [*keys, b"dead", b"gone/1"]:
            await store.put(bucket, key, put_request(key))
        await store.delete(bucket, b"dead")
        await store.delete(bucket, b"gone/1")
        for limit in [1, 2, 3, 1000]:
            assert await _pages(store, bucket, b"", b"", limit) == keys
            assert await _pages(store, bucket, b"", b"/", limit) == [b"a/", b"b", b"c/", b"\xff"]
            assert await _pages(store, bucket, b"c/", b"/", limit) == [b"c/x/", b"c/y", b"c/z/"]
            assert await _pages(store, bucket, b"a", b"", limit) == keys[:4]


async def _pages(
    store: ObjectStore, bucket: Bucket, prefix: bytes, delimiter: bytes, limit: int
) -> list[bytes]:
    seen: list[bytes] = []
    start: bytes | None = b""
    while start is not None:
        page = await store.list(
            bucket, prefix=prefix, delimiter=delimiter, start=start, limit=limit
        )
        assert len(page.entries) <= limit
        seen += [entry.key for entry in page.entries]
        start = page.resume
    return seen


def _judge(_: Upload, parts: Sequence[Part]) -> Seal:
    return Seal(validator=f"multi-{len(parts)}", attributes=b"")


@pytest.mark.parametrize("count", [3, 20])
async def test_multipart(tmp_path: Path, count: int) -> None:
    async with open_store(tmp_path) as local:
        store = local.store
        bucket = await store.create_bucket("bucket", "me", b"")
        upload = await store.create_upload(bucket, b"key", b"settings")
        assert (await store.get_upload(bucket, b"key", upload)).attributes == b"settings"
        bodies = [noise(70_000 + number, number) for number in range(1, count + 1)]
        choices = []
        for number, data in enumerate(bodies, 1):
            await store.put_part(bucket, b"key", upload, number, put_request(b"overwritten"))
            part = await store.put_part(bucket, b"key", upload, number, put_request(data))
            choices.append(PartChoice(number=number, validator=part.validator))
        first, more = await store.list_parts(bucket, b"key", upload, after=0, limit=2)
        assert ([info.part.number for info in first], more) == ([1, 2], True)
        rest, more = await store.list_parts(bucket, b"key", upload, after=2, limit=1000)
        assert ([info.part.number for info in rest], more) == (list(range(3, count + 1)), False)
        uploads, more = await store.list_uploads(bucket, prefix=b"", start=b"", limit=10)
        assert ([(info.key, info.upload.upload_id) for info in uploads], more) == (
            [(b"key", upload)],
            False,
        )
        wrong = [*choices[:-1], PartChoice(number=count, validator="other")]
        with pytest.raises(NotFoundError, match="part"):
            await store.complete_upload(bucket, b"key", upload, wrong, _judge)
        version = await store.complete_upload(bucket, b"key", upload, choices, _judge)
        assert await store.complete_upload(bucket, b"key", upload, choices, _judge) == version
        whole = b"".join(bodies)
        assert version.size == len(whole)
        assert await read_all(store, bucket, b"key") == whole
        found = await store.get(bucket, b"key")
        assert len(await found.parts()) == count
        assert await read_range(found, 69_000, 150_000) == whole[69_000:150_000]
        assert await store.list_uploads(bucket, prefix=b"", start=b"", limit=10) == ([], False)
        with pytest.raises(NotFoundError, match="upload"):
            await store.abort_upload(bucket, b"key", upload)


async def test_abort(tmp_path: Path) -> None:
    async with open_store(tmp_path) as local:
        store = local.store
        bucket = await store.create_bucket("bucket", "me", b"")
        upload = await store.create_upload(bucket, b"key", b"")
        part = await store.put_part(bucket, b"key", upload, 1, put_request(b"data"))
        await store.abort_upload(bucket, b"key", upload)
        choices = [PartChoice(number=1, validator=part.validator)]
        for attempt in [
            store.complete_upload(bucket, b"key", upload, choices, _judge),
            store.put_part(bucket, b"key", upload, 1, put_request(b"data")),
            store.abort_upload(bucket, b"key", upload),
        ]:
            with pytest.raises(NotFoundError, match="upload"):
                await attempt
        with pytest.raises(NotFoundError, match="upload"):
            await store.list_parts(bucket, b"key", upload, after=0, limit=1)


async def test_copy(tmp_path: Path) -> None:
    async with open_store(tmp_path) as local:
        store = local.store
        bucket = await store.create_bucket("bucket", "me", b"")
        for size in [0, 9, 700_000]:
            await store.put(bucket, b"from", put_request(noise(size)))
            source = await store.get(bucket, b"from")
            request = put_request(noise(size))
            copied = await store.copy(
                source, bucket, b"to",
                type(request)(source=await object_source(source), digests=request.digests, seal=request.seal),
            )  # fmt: skip
            assert copied.validator == source.version.validator
            assert await read_all(store, bucket, b"to") == noise(size)


async def test_buckets_come_and_go(tmp_path: Path) -> None:
    async with open_store(tmp_path) as local:
        store = local.store
        bucket = await store.create_bucket("bucket", "me", b"settings")
        with pytest.raises(ExistsError):
            await store.create_bucket("bucket", "me", b"")
        assert await store.get_bucket("bucket") == bucket
        await store.create_bucket("another", "me", b"")
        assert [found.name for found in await store.list_buckets()] == ["another", "bucket"]
        await store.put(bucket, b"key", put_request(b"data"))
        with pytest.raises(NotEmptyError):
            await store.delete_bucket(bucket)
        bucket = await store.get_bucket("bucket")
        assert await read_all(store, bucket, b"key") == b"data"
        await store.delete(bucket, b"key")
        await store.create_upload(bucket, b"key", b"")
        await store.delete_bucket(bucket)
        with pytest.raises(NotFoundError):
            await store.get_bucket("bucket")
        with pytest.raises(NotFoundError):
            await store.put(bucket, b"key", put_request(b"data"))
        again = await store.create_bucket("bucket", "me", b"")
        assert again.bucket_id != bucket.bucket_id
        with pytest.raises(NotFoundError):
            await store.get(again, b"key")


async def test_a_store_remembers_across_a_restart(tmp_path: Path) -> None:
    async with open_store(tmp_path) as local:
        bucket = await local.store.create_bucket("bucket", "me", b"")
        for size in SIZES[:-2]:
            await local.store.put(bucket, b"%d" % size, put_request(noise(size)))
    async with open_store(tmp_path) as local:
        bucket = await local.store.get_bucket("bucket")
        for size in SIZES[:-2]:
            assert await read_all(local.store, bucket, b"%d" % size) == noise(size)
