"""Versions of objects: what the store promises, and what the `Objects` in memory must do just the same."""

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random

import attrs
import pytest
import trio

from cluster.clock import Ballot
from cluster.errors import (
    DeleteMarkerError,
    NotEmptyError,
    NotFoundError,
    PreconditionError,
    TooManyVersionsError,
)
from cluster.objects.delete import removed
from cluster.objects.model import (
    NULL_VERSION,
    Bucket,
    Objects,
    PartChoice,
    Seal,
    Versioning,
    VersionPlace,
)
from cluster.register import mutations
from cluster.register.mutations import Absent, ValidatorIn
from cluster.register.proposer import Committed
from cluster.register.records import KeyState, Version
from tests.objects.local_store import Bytes, noise, open_store, put_request, read_range
from tests.s3.fake_objects import FakeObjects

Opening = Callable[[], contextlib.AbstractAsyncContextManager[Objects]]
ENABLED, SUSPENDED = Versioning.ENABLED, Versioning.SUSPENDED


@pytest.fixture(params=["store", "fake"])
def opening(request: pytest.FixtureRequest, tmp_path: Path) -> Opening:
    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[Objects]:
        if request.param == "fake":
            yield FakeObjects()
        else:
            async with open_store(tmp_path) as local:
                yield local.store

    return opened


async def content(
    store: Objects, bucket: Bucket, key: bytes, version_id: bytes | None = None
) -> bytes:
    found = await store.get(bucket, key, version_id)
    return await read_range(found, 0, found.version.size)


async def shown(
    store: Objects, bucket: Bucket, *, prefix: bytes = b"", delimiter: bytes = b"", limit: int = 100
) -> list[tuple[bytes, bytes | None, bool]]:
    """Key, version id (None: a prefix) and whether it is the latest, page by page."""
    rows: list[tuple[bytes, bytes | None, bool]] = []
    start: VersionPlace | None = VersionPlace(b"")
    while start is not None:
        page = await store.list_versions(
            bucket, prefix=prefix, delimiter=delimiter, start=start, limit=limit
        )
        assert len(page.entries) <= limit
        for entry in page.entries:
            version = entry.version
            rows.append((entry.key, name(version) if version else None, entry.is_latest))
        start = page.resume
    return rows


def name(version) -> bytes:
    return version.version_id if version.version_id is not None else NULL_VERSION


async def test_the_life_of_a_versioned_key(opening: Opening) -> None:
    async with opening() as store:
        bucket = await store.create_bucket("bucket", "me", b"")
        first = await store.put(bucket, b"key", put_request(b"before"))
        assert first.version_id is None
        bucket = await store.set_versioning(bucket, ENABLED)
        second = await store.put(bucket, b"key", put_request(noise(20_000)))
        third = await store.put(bucket, b"key", put_request(b"third"))
        assert second.version_id
        assert third.version_id
        marker = await store.delete(bucket, b"key")
        assert marker is not None
        assert marker.delete_marker
        assert marker.version_id

        with pytest.raises(DeleteMarkerError) as current:
            await store.get(bucket, b"key")
        assert (current.value.version_id, current.value.asked) == (marker.version_id, False)
        with pytest.raises(DeleteMarkerError) as asked:
            await store.get(bucket, b"key", marker.version_id)
        assert asked.value.asked
        assert await content(store, bucket, b"key", NULL_VERSION) == b"before"
        assert await content(store, bucket, b"key", second.version_id) == noise(20_000)
        assert await content(store, bucket, b"key", third.version_id) == b"third"
        with pytest.raises(NotFoundError) as unknown:
            await store.get(bucket, b"key", bytes(16))
        assert unknown.value.kind == "version"
        assert await shown(store, bucket) == [
            (b"key", marker.version_id, True),
            (b"key", third.version_id, False),
            (b"key", second.version_id, False),
            (b"key", NULL_VERSION, False),
        ]

        assert await store.delete(bucket, b"key", version_id=marker.version_id) == marker
        assert await content(store, bucket, b"key") == b"third"
        assert await store.delete(bucket, b"key", version_id=marker.version_id) is None
        assert await store.delete(bucket, b"key", version_id=third.version_id) == third
        assert await content(store, bucket, b"key") == noise(20_000)
        assert await store.delete(bucket, b"key", version_id=NULL_VERSION) == first
        with pytest.raises(NotEmptyError):
            await store.delete_bucket(bucket)
        bucket = await store.get_bucket("bucket")
        assert await store.delete(bucket, b"key", version_id=second.version_id) == second
        with pytest.raises(NotFoundError):
            await store.get(bucket, b"key")
        await store.delete_bucket(bucket)


async def test_a_suspended_bucket_has_one_null_version_and_keeps_the_others(
    opening: Opening,
) -> None:
    async with opening() as store:
        bucket = await store.create_bucket("bucket", "me", b"")
        bucket = await store.set_versioning(bucket, ENABLED)
        kept = await store.put(bucket, b"key", put_request(b"kept"))
        bucket = await store.set_versioning(bucket, SUSPENDED)
        assert bucket.versioning is SUSPENDED
        for number in range(3):
            version = await store.put(bucket, b"key", put_request(b"%d" % number))
            assert version.version_id is None
        assert await content(store, bucket, b"key") == b"2"
        marker = await store.delete(bucket, b"key")
        assert marker is not None
        assert marker.version_id is None
        assert await shown(store, bucket) == [
            (b"key", NULL_VERSION, True),
            (b"key", kept.version_id, False),
        ]
        # A null marker alone keeps the bucket, too.
        await store.delete(bucket, b"key", version_id=kept.version_id)
        with pytest.raises(NotEmptyError):
            await store.delete_bucket(bucket)
        assert await store.delete(bucket, b"key", version_id=NULL_VERSION) == marker
        await store.delete_bucket(await store.get_bucket("bucket"))


async def test_preconditions_look_at_the_current_version(opening: Opening) -> None:
    async with opening() as store:
        bucket = await store.create_bucket("bucket", "me", b"")
        bucket = await store.set_versioning(bucket, ENABLED)
        old = await store.put(bucket, b"key", put_request(b"old"))
        with pytest.raises(PreconditionError):
            await store.put(bucket, b"key", put_request(b"x", expect=(Absent(),)))
        await store.put(bucket, b"key", put_request(b"new"))
        with pytest.raises(PreconditionError):
            await store.delete(bucket, b"key", (ValidatorIn(validators=(old.validator,)),))
        await store.delete(bucket, b"key")
        # A marker counts as no object: nothing to delete on that condition, and room for a new one.
        assert await store.delete(bucket, b"key", (ValidatorIn(validators=("x",)),)) is None
        await store.put(bucket, b"key", put_request(b"again", expect=(Absent(),)))
        assert await content(store, bucket, b"key") == b"again"


async def test_a_deletion_of_a_key_that_never_was_inserts_a_marker(opening: Opening) -> None:
    async with opening() as store:
        bucket = await store.create_bucket("bucket", "me", b"")
        assert await store.delete(bucket, b"key") is None
        bucket = await store.set_versioning(bucket, ENABLED)
        marker = await store.delete(bucket, b"key")
        assert marker is not None
        assert await shown(store, bucket) == [(b"key", marker.version_id, True)]
        listing = await store.list(bucket, prefix=b"", delimiter=b"", start=b"", limit=10)
        assert listing.entries == ()


async def test_an_upload_makes_a_version_and_a_repetition_names_the_same(opening: Opening) -> None:
    async with opening() as store:
        bucket = await store.create_bucket("bucket", "me", b"")
        bucket = await store.set_versioning(bucket, ENABLED)
        await store.put(bucket, b"key", put_request(b"before"))
        upload = await store.create_upload(bucket, b"key", b"")
        bodies = [noise(70_000, number) for number in range(17)]  # a list beside the record
        choices = []
        for number, body in enumerate(bodies, 1):
            part = await store.put_part(bucket, b"key", upload, number, put_request(body))
            choices.append(PartChoice(number=number, validator=part.validator))

        async def complete():
            seal = Seal(validator="whole", attributes=b"")
            return await store.complete_upload(bucket, b"key", upload, choices, lambda _, __: seal)

        made = await complete()
        assert made.version_id
        assert (await complete()).version_id == made.version_id
        await store.put(bucket, b"key", put_request(b"after"))
        assert (await complete()).version_id == made.version_id
        assert await content(store, bucket, b"key", made.version_id) == b"".join(bodies)
        assert await content(store, bucket, b"key") == b"after"
        await store.delete(bucket, b"key", version_id=made.version_id)
        assert (await complete()).version_id == made.version_id


async def test_versions_are_listed_by_key_and_age_in_pages_of_any_size(opening: Opening) -> None:
    async with opening() as store:
        bucket = await store.create_bucket("bucket", "me", b"")
        await store.put(bucket, b"a/null", put_request(b"x"))
        bucket = await store.set_versioning(bucket, ENABLED)
        expected: dict[bytes, list[bytes]] = {b"a/null": [NULL_VERSION]}
        rng = Random(1)
        keys = [b"a/1", b"a/2", b"a/null", b"b", b"c/x", b"c/y", b"d", b"\xff\xff"]
        for number in range(40):
            key = rng.choice(keys)
            if rng.random() < 0.3:
                version = await store.delete(bucket, key)
                assert version is not None
            else:
                version = await store.put(bucket, key, put_request(b"%d" % number))
            expected.setdefault(key, []).insert(0, name(version))
        await store.delete(bucket, b"only/marker")
        marker = (await shown(store, bucket, prefix=b"only/"))[0][1]
        expected[b"only/marker"] = [marker or b""]
        rows = [
            (key, version_id, at == 0)
            for key in sorted(expected)
            for at, version_id in enumerate(expected[key])
        ]
        for limit in (1, 2, 3, 7, 1000):
            assert await shown(store, bucket, limit=limit) == rows
            inside = [row for row in rows if row[0].startswith(b"a/")]
            assert await shown(store, bucket, prefix=b"a/", limit=limit) == inside
            rolled = await shown(store, bucket, delimiter=b"/", limit=limit)
            plain = [row for row in rows if b"/" not in row[0]]
            prefixes = [(prefix, None, False) for prefix in (b"a/", b"c/", b"only/")]
            assert rolled == sorted([*plain, *prefixes], key=lambda row: row[0])


async def test_a_listing_goes_on_where_it_was_though_the_version_is_gone(opening: Opening) -> None:
    async with opening() as store:
        bucket = await store.create_bucket("bucket", "me", b"")
        await store.put(bucket, b"key", put_request(b"x"))
        bucket = await store.set_versioning(bucket, ENABLED)
        ids = [
            name(await store.put(bucket, b"key", put_request(b"%d" % number)))
            for number in range(4)
        ][::-1]

        async def behind(version_id: bytes) -> list[bytes]:
            start = VersionPlace(b"key", version_id)
            page = await store.list_versions(
                bucket, prefix=b"", delimiter=b"", start=start, limit=10
            )
            return [name(entry.version) for entry in page.entries]

        await store.delete(bucket, b"key", version_id=ids[1])
        assert await behind(ids[1]) == [ids[2], ids[3], NULL_VERSION]
        assert await behind(NULL_VERSION) == []
        await store.delete(bucket, b"key", version_id=NULL_VERSION)
        assert await behind(NULL_VERSION) == [ids[0], ids[2], ids[3]]
        # A page says by a stamp where it ended, also behind a null version that is another by now.
        bucket = await store.set_versioning(bucket, SUSPENDED)
        await store.put(bucket, b"key", put_request(b"null"))
        page = await store.list_versions(
            bucket, prefix=b"", delimiter=b"", start=VersionPlace(b""), limit=1
        )
        assert [name(entry.version) for entry in page.entries] == [NULL_VERSION]
        await store.put(bucket, b"key", put_request(b"null again"))
        assert page.resume.behind is not None
        assert await behind(page.resume.behind) == [ids[0], ids[2], ids[3]]


async def test_an_upload_of_the_old_mode_lands_in_the_new_one(opening: Opening) -> None:
    """The bucket was looked up before it was changed; its fence sends the write back for another look."""
    async with opening() as store:
        old = await store.create_bucket("bucket", "me", b"")
        await store.put(old, b"key", put_request(b"null"))
        for size in (5, 100_000):
            bucket = await store.get_bucket("bucket")
            changed = trio.Event()

            @attrs.define
            class Waiting(Bytes):
                async def readinto(self, buffer: memoryview, changed: trio.Event = changed) -> int:
                    if self.at:
                        await changed.wait()
                    return await Bytes.readinto(self, buffer)

            request = attrs.evolve(
                put_request(noise(size)), source=Waiting(noise(size), step=max(1, size // 2))
            )
            other = SUSPENDED if bucket.versioning is ENABLED else ENABLED
            versions = []

            async def put(request=request, bucket=bucket, versions=versions) -> None:
                versions.append(await store.put(bucket, b"key", request))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(put)
                await trio.sleep(0.05)
                await store.set_versioning(bucket, other)
                changed.set()
            assert (versions[0].version_id is not None) == (other is ENABLED)
        # A deletion and a completion by those who know the first mode only.
        marker = await store.delete(old, b"key")
        assert marker is not None
        assert marker.delete_marker


async def test_the_same_mode_again_changes_nothing(opening: Opening) -> None:
    async with opening() as store:
        bucket = await store.create_bucket("bucket", "me", b"")
        enabled = await store.set_versioning(bucket, ENABLED)
        assert await store.set_versioning(bucket, ENABLED) == enabled
        assert await store.get_bucket("bucket") == enabled


async def test_a_key_with_too_many_versions_takes_no_more(
    opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mutations, "MAX_VERSIONS", 3)
    async with opening() as store:
        bucket = await store.create_bucket("bucket", "me", b"")
        bucket = await store.set_versioning(bucket, ENABLED)
        for number in range(3):
            version = await store.put(bucket, b"key", put_request(b"%d" % number))
        with pytest.raises(TooManyVersionsError, match="3 versions"):
            await store.put(bucket, b"key", put_request(b"more"))
        with pytest.raises(TooManyVersionsError):
            await store.delete(bucket, b"key")
        await store.delete(bucket, b"key", version_id=version.version_id)
        await store.delete(bucket, b"key")


def test_a_deletion_that_met_its_own_effect_does_not_take_a_later_version_for_what_it_removed() -> (
    None
):
    stamp = Ballot(5, 0, 1)
    later = Version(
        version_id=None, delete_marker=True, stamp=stamp, op_hlc=5, size=0, validator="", attributes=b"", mtime_ms=1,
    )  # fmt: skip
    before, after = KeyState(versions=(later,)), KeyState()
    first = Committed(ballot=stamp, state=after, base=before, wrote=True, stamp=stamp)
    assert removed(first, None) == later
    # A repeated proposal finds the state as it is now: the later null version is somebody else's.
    again = Committed(ballot=stamp, state=before, base=before, wrote=True, stamp=stamp)
    assert removed(again, None) is None
