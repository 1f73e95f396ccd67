"""An `Objects` in memory: the register's own rules over a dict, and bodies beside them. No drives, no quorum, no clock."""

import hashlib
from collections.abc import Callable, Sequence

import attrs
import trio
from msgspec.structs import replace

from cluster.clock import BALLOT_ZERO, Ballot
from cluster.errors import ExistsError, NotEmptyError, NotFoundError
from cluster.ids import BucketId, DataId, UploadId
from cluster.metadata.commit import refusal
from cluster.objects.get import choose
from cluster.objects.listing_versions import resume_behind, versions_behind
from cluster.objects.model import (
    Bucket,
    Entry,
    Listing,
    Object,
    PartChoice,
    PartInfo,
    PutRequest,
    Seal,
    Upload,
    UploadInfo,
    VersionEntry,
    Versioning,
    VersionListing,
    VersionPlace,
)
from cluster.register.mutations import (
    AbortUpload,
    CompleteUpload,
    DeleteVersion,
    Mutation,
    OpenUpload,
    Precondition,
    PutVersion,
    RoomForVersion,
    Unchanged,
    UploadOpen,
    apply,
    check,
    find_upload,
    find_version,
)
from cluster.register.records import INLINE_LIMIT, Done, KeyState, Part, Version

START_MS = 1_700_000_000_000


@attrs.define
class FakeReader:
    pieces: list[memoryview]
    store: "FakeObjects"
    closed: bool = False

    async def next(self) -> Sequence[memoryview] | None:
        await trio.lowlevel.checkpoint()
        return [self.pieces.pop(0)] if self.pieces else None

    async def aclose(self) -> None:
        if not self.closed:
            self.closed = True
            self.store.open_readers -= 1


@attrs.define
class FakeObject:
    store: "FakeObjects"
    version: Version

    async def parts(self) -> tuple[Part, ...]:
        return self.version.parts

    async def open(self, start: int, stop: int) -> FakeReader:
        assert 0 <= start <= stop <= self.version.size
        data = memoryview(self.store.bodies[self.version.stamp])[start:stop]
        self.store.open_readers += 1
        step = 100_000
        return FakeReader(
            [data[at : at + step] for at in range(0, len(data), step)], store=self.store
        )


@attrs.define
class FakeObjects:
    """Times are in order, one second apart: START_MS + 1000 * (number of the commit)."""

    buckets: dict[str, Bucket] = attrs.field(factory=dict)
    rows: dict[tuple[BucketId, bytes], KeyState] = attrs.field(factory=dict)
    parts: dict[tuple[UploadId, int], tuple[Part, bytes, int]] = attrs.field(factory=dict)
    bodies: dict[Ballot, bytes] = attrs.field(factory=dict)
    ticks: int = 0
    open_readers: int = 0

    def _tick(self) -> Ballot:
        self.ticks += 1
        return Ballot(START_MS + 1000 * self.ticks, 0, 1)

    # -- buckets

    async def create_bucket(self, name: str, owner: str, attributes: bytes) -> Bucket:
        if name in self.buckets:
            raise ExistsError(name)
        ballot = self._tick()
        self.buckets[name] = Bucket(
            name=name, bucket_id=BucketId(ballot.pack()), epoch=1, generation=(0,),
            created_ms=ballot.hlc, owner=owner, attributes=attributes,
        )  # fmt: skip
        return self.buckets[name]

    async def get_bucket(self, name: str) -> Bucket:
        await trio.lowlevel.checkpoint()
        if name not in self.buckets:
            raise NotFoundError("bucket", name)
        return self.buckets[name]

    async def list_buckets(self) -> Sequence[Bucket]:
        return [self.buckets[name] for name in sorted(self.buckets)]

    async def delete_bucket(self, bucket: Bucket) -> None:
        if any(row[0] == bucket.bucket_id and s.versions for row, s in self.rows.items()):
            raise NotEmptyError(bucket.name)
        del self.buckets[bucket.name]

    async def set_versioning(self, bucket: Bucket, versioning: Versioning) -> Bucket:
        now = self._now(bucket)
        if now.versioning is not versioning:
            now = attrs.evolve(now, versioning=versioning, epoch=now.epoch + 1)
            self.buckets[bucket.name] = now
        return now

    def _now(self, bucket: Bucket) -> Bucket:
        """The bucket in the mode that it has now, which a write follows."""
        now = self.buckets.get(bucket.name)
        if now is None or now.bucket_id != bucket.bucket_id:
            raise NotFoundError("bucket", bucket.name)
        return now

    # -- objects

    def _state(self, bucket: Bucket, key: bytes) -> KeyState:
        self._now(bucket)
        return self.rows.get((bucket.bucket_id, key), KeyState())

    def _commit(
        self, bucket: Bucket, key: bytes, mutation: Mutation, expect: tuple[Precondition, ...] = ()
    ) -> KeyState:
        base = self._state(bucket, key)
        if isinstance(mutation, PutVersion | CompleteUpload) and mutation.named:
            expect = (*expect, RoomForVersion())
        refused = check(expect, base)
        if refused is not None:
            raise refusal(refused)
        after = apply(mutation, base, self._tick())
        if isinstance(after, Unchanged):
            return base
        self.rows[bucket.bucket_id, key] = after
        return after

    async def _drain(self, request: PutRequest) -> tuple[bytes, Seal]:
        data = bytearray()
        buffer = memoryview(bytearray(100_000))
        while count := await request.source.readinto(buffer):
            for digest in request.digests:
                digest.update(buffer[:count])
            data += buffer[:count]
        return bytes(data), request.seal(len(data))

    def _version(self, seal: Seal, size: int, parts: tuple[Part, ...] = ()) -> Version:
        return Version(
            version_id=None, delete_marker=False, stamp=BALLOT_ZERO, op_hlc=0, size=size,
            validator=seal.validator, attributes=seal.attributes,
            mtime_ms=START_MS + 1000 * (self.ticks + 1) + 123, parts=parts,
        )  # fmt: skip

    async def put(self, bucket: Bucket, key: bytes, request: PutRequest) -> Version:
        data, seal = await self._drain(request)
        part = () if len(data) <= INLINE_LIMIT else (_part(1, seal, len(data)),)
        template = self._version(seal, len(data), part)
        put = PutVersion(version=template, named=self._now(bucket).names_versions)
        live = self._commit(bucket, key, put, request.expect).live
        assert live is not None
        self.bodies[live.stamp] = data
        return live

    async def get(self, bucket: Bucket, key: bytes, version_id: bytes | None = None) -> FakeObject:
        await trio.lowlevel.checkpoint()
        return FakeObject(self, choose(self._state(bucket, key), version_id))

    async def check(self, bucket: Bucket, key: bytes, expect: tuple[Precondition, ...]) -> None:
        refused = check(expect, self._state(bucket, key))
        if refused is not None:
            raise refusal(refused)

    async def copy(
        self, source: Object, bucket: Bucket, key: bytes, request: PutRequest
    ) -> Version:
        return await self.put(bucket, key, request)

    async def delete(
        self,
        bucket: Bucket,
        key: bytes,
        expect: tuple[Precondition, ...] = (),
        *,
        version_id: bytes | None = None,
    ) -> Version | None:
        await trio.lowlevel.checkpoint()
        base, now = self._state(bucket, key), self._now(bucket)
        if expect and base.live is None:
            return None
        if version_id is None and now.versioning is not Versioning.UNVERSIONED:
            marker = replace(
                self._version(Seal(validator="", attributes=b""), 0), delete_marker=True
            )
            put = PutVersion(version=marker, named=now.names_versions)
            return self._commit(bucket, key, put, expect).head
        self._commit(bucket, key, DeleteVersion(version_id=version_id or None), expect)
        return find_version(base, version_id or None)

    async def list(
        self, bucket: Bucket, *, prefix: bytes, delimiter: bytes, start: bytes, limit: int
    ) -> Listing:
        assert limit >= 1
        entries: dict[bytes, Entry] = {}
        for bucket_id, key in sorted(self.rows):
            state = self.rows[bucket_id, key]
            if bucket_id != bucket.bucket_id or state.live is None:
                continue
            if key < start or not key.startswith(prefix):
                continue
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            name = key if cut < 0 else key[: cut + len(delimiter)]
            if name in entries:
                continue
            if len(entries) == limit:
                return Listing(entries=tuple(entries.values()), resume=key)
            entries[name] = Entry(key=name, versions=state.versions if cut < 0 else ())
        return Listing(entries=tuple(entries.values()), resume=None)

    async def list_versions(
        self, bucket: Bucket, *, prefix: bytes, delimiter: bytes, start: VersionPlace, limit: int
    ) -> VersionListing:
        assert limit >= 1
        entries: dict[tuple[bytes, bytes | None], VersionEntry] = {}
        for bucket_id, key in sorted(self.rows):
            versions = self.rows[bucket_id, key].versions
            if bucket_id != bucket.bucket_id or key < start.key or not key.startswith(prefix):
                continue
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            if cut >= 0 and versions:
                name = key[: cut + len(delimiter)]
                entries[name, None] = VersionEntry(key=name)
                continue
            for version in versions_behind(versions, start.behind if key == start.key else None):
                entries[key, version.stamp.pack()] = VersionEntry(
                    key=key, version=version, is_latest=version == versions[0]
                )
        page = tuple(entries.values())[:limit]
        return VersionListing(
            entries=page, resume=resume_behind(page[-1]) if len(entries) > limit else None
        )

    # -- uploads

    async def create_upload(self, bucket: Bucket, key: bytes, attributes: bytes) -> UploadId:
        upload_id = UploadId(hashlib.md5(str(self.ticks).encode()).digest())
        upload = Upload(upload_id, BALLOT_ZERO, attributes, START_MS + 1000 * self.ticks)
        self._commit(bucket, key, OpenUpload(upload=upload))
        return upload_id

    async def get_upload(self, bucket: Bucket, key: bytes, upload: UploadId) -> Upload:
        found = find_upload(self._state(bucket, key), upload)
        if found is None:
            raise NotFoundError("upload")
        return found

    async def put_part(
        self, bucket: Bucket, key: bytes, upload: UploadId, number: int, request: PutRequest
    ) -> Part:
        await self.get_upload(bucket, key, upload)
        data, seal = await self._drain(request)
        await self.get_upload(bucket, key, upload)
        part = _part(number, seal, len(data))
        self.parts[upload, number] = part, data, self._tick().hlc
        return part

    async def list_parts(
        self, bucket: Bucket, key: bytes, upload: UploadId, *, after: int, limit: int
    ) -> tuple[Sequence[PartInfo], bool]:
        await self.get_upload(bucket, key, upload)
        numbers = sorted(n for u, n in self.parts if u == upload and n > after)
        infos = [
            PartInfo(part=self.parts[upload, n][0], mtime_ms=self.parts[upload, n][2])
            for n in numbers[:limit]
        ]
        return infos, len(numbers) > limit

    async def complete_upload(
        self, bucket: Bucket, key: bytes, upload: UploadId, choices: Sequence[PartChoice],
        judge: Callable[[Upload, Sequence[Part]], Seal], expect: tuple[Precondition, ...] = (),
    ) -> Version:  # fmt: skip
        state = self._state(bucket, key)
        for done in state.done:
            if done.upload_id == upload:
                return next(
                    (v for v in state.versions if v.upload_id == upload),
                    self._overwritten(bucket, done),
                )
        opened = await self.get_upload(bucket, key, upload)
        chosen = [self.parts.get((upload, choice.number)) for choice in choices]
        rows = []
        for row, choice in zip(chosen, choices, strict=True):
            if row is None or row[0].validator != choice.validator:
                raise NotFoundError("part", str(choice.number))
            rows.append(row)
        parts = tuple(row[0] for row in rows)
        seal = judge(opened, parts)
        template = replace(self._version(seal, sum(p.size for p in parts), parts), upload_id=upload)
        live = self._commit(
            bucket,
            key,
            CompleteUpload(
                upload_id=upload, version=template, named=self._now(bucket).names_versions
            ),
            (UploadOpen(upload_id=upload), *expect),
        ).live
        assert live is not None
        self.bodies[live.stamp] = b"".join(row[1] for row in rows)
        return live

    def _overwritten(self, bucket: Bucket, done: Done) -> Version:
        version = self._version(Seal(validator=done.validator, attributes=b""), 0)
        version_id = done.stamp.pack() if self._now(bucket).names_versions else None
        return replace(
            version,
            version_id=version_id,
            stamp=done.stamp,
            mtime_ms=done.stamp.hlc,
            upload_id=done.upload_id,
        )

    async def abort_upload(self, bucket: Bucket, key: bytes, upload: UploadId) -> None:
        self._commit(bucket, key, AbortUpload(upload_id=upload), (UploadOpen(upload_id=upload),))

    async def list_uploads(
        self, bucket: Bucket, *, prefix: bytes, start: bytes, limit: int
    ) -> tuple[Sequence[UploadInfo], bool]:
        infos: list[UploadInfo] = []
        for bucket_id, key in sorted(self.rows):
            uploads = self.rows[bucket_id, key].uploads
            if bucket_id != bucket.bucket_id or key < start or not key.startswith(prefix):
                continue
            if uploads and len(infos) >= limit:
                return infos, True
            infos += [UploadInfo(key=key, upload=upload) for upload in uploads]
        return infos, False


def _part(number: int, seal: Seal, size: int) -> Part:
    return Part(
        number=number, size=size, validator=seal.validator, attributes=seal.attributes,
        data_id=DataId(bytes(16)), intro=BALLOT_ZERO, codec="none/1", set_id=0, k=1, m=0, block=1 << 20,
        staged=1, digest_root=b"",
    )  # fmt: skip
