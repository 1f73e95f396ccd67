"""Multipart uploads: parts are registers beside the key's, completing is one compare-and-set on the key."""

from collections.abc import Awaitable, Callable, Sequence

import attrs
import xxhash

from cluster.clock import BALLOT_ZERO
from cluster.errors import NotFoundError
from cluster.ids import RowKey, UploadId
from cluster.metadata.scan import Found, Scanner, Span
from cluster.metadata.table import RegisterRef
from cluster.objects.context import Context
from cluster.objects.model import Bucket, PartChoice, PartInfo, PutRequest, Seal, UploadInfo
from cluster.objects.put import committed_version, put_body
from cluster.objects.standing import while_standing
from cluster.register.keys import object_key, part_row
from cluster.register.mutations import (
    AbortUpload,
    CompleteUpload,
    OpenUpload,
    Precondition,
    RoomForVersion,
    UploadOpen,
    find_upload,
)
from cluster.register.records import (
    PARTS_IN_RECORD,
    BodyId,
    BodyRef,
    KeyState,
    Part,
    Upload,
    Version,
    encode_parts,
)

MAX_NUMBER = 10_000


class Uploads:
    """Everything about uploads."""

    def __init__(self, context: Context, renew: Callable[[Bucket], Awaitable[Bucket]]) -> None:
        self._context, self._renew = context, renew

    async def create(self, bucket: Bucket, key: bytes, attributes: bytes) -> UploadId:
        """Open an upload. Raises StorageFullError."""
        runtime, table = self._context.runtime, self._context.table
        ref = self._context.key_ref(bucket, key)
        table.members_of(ref.set_id).require_room()
        upload_id = UploadId(runtime.rng.randbytes(16))
        upload = Upload(upload_id, BALLOT_ZERO, attributes, runtime.wall_ms())
        await table.commit(ref, OpenUpload(upload=upload))
        return upload_id

    async def get(self, bucket: Bucket, key: bytes, upload: UploadId) -> Upload:
        """Raises NotFoundError("upload")."""
        reading = await self._context.table.read(self._context.key_ref(bucket, key))
        found = find_upload(reading.state, upload)
        if found is None:
            raise NotFoundError("upload")
        return found

    async def put_part(
        self, bucket: Bucket, key: bytes, upload: UploadId, number: int, request: PutRequest
    ) -> Part:
        """The upload must be open before the data id is drawn and after the part is committed."""

        async def renew(known: Bucket) -> Bucket:
            nonlocal bucket
            bucket = await self._renew(known)
            return bucket

        async def require_open(standing: Bucket) -> None:
            await self.get(standing, key, upload)

        await while_standing(bucket, require_open, renew)
        home = self._context.key_ref(bucket, key)
        ref = attrs.evolve(home, row=part_row(bucket.bucket_id, upload, number, key))
        version = await put_body(
            self._context,
            ref,
            request,
            bucket=bucket,
            renew=renew,
            number=number,
            upload_id=upload,
        )
        await while_standing(bucket, require_open, renew)
        return version.parts[0]

    async def list_parts(
        self, bucket: Bucket, key: bytes, upload: UploadId, *, after: int, limit: int
    ) -> tuple[Sequence[PartInfo], bool]:
        """Parts above `after`, and whether there are more."""
        await self.get(bucket, key, upload)
        found, cursor = await self._scan(bucket, key, upload, after + 1, limit + 1)
        infos = [
            PartInfo(part=version.parts[0], mtime_ms=version.mtime_ms)
            for version in (_live(item) for item in found)
        ]
        return infos[:limit], len(infos) > limit or cursor is not None

    async def complete(
        self,
        bucket: Bucket,
        key: bytes,
        upload: UploadId,
        choices: Sequence[PartChoice],
        judge: Callable[[Upload, Sequence[Part]], Seal],
        expect: tuple[Precondition, ...] = (),
    ) -> Version:
        """One compare-and-set; a repeat finds what the first one did.

        That holds for the last completions of a key even when the object was overwritten or deleted since: the repeat then
        succeeds with the first answer's validator and stamp, and changes nothing.
        """
        ref = self._context.key_ref(bucket, key)
        state = (await self._context.table.read(ref)).state
        opened = find_upload(state, upload)
        if opened is None:
            return _completed(state, upload, bucket)
        found, _ = await self._scan(bucket, key, upload, 1, MAX_NUMBER)
        present = {(v.parts[0].number, v.validator): v.parts[0] for v in map(_live, found)}
        try:
            parts = tuple(present[choice.number, choice.validator] for choice in choices)
        except KeyError as error:
            again = (await self._context.table.read(ref)).state
            if find_upload(again, upload) is None:
                return _completed(again, upload, bucket)
            raise NotFoundError("part", str(error.args[0][0])) from None
        version, bodies = self._version(upload, parts, judge(opened, parts))
        named = bucket.names_versions
        room = (RoomForVersion(),) if named else ()
        try:
            done = await self._context.table.commit(
                ref,
                CompleteUpload(upload_id=upload, version=version, named=named),
                expect=(UploadOpen(upload_id=upload), *expect, *room),
                bodies=bodies,
            )
        except NotFoundError as error:
            if error.kind != "upload":
                raise
            return _completed((await self._context.table.read(ref)).state, upload, bucket)
        return committed_version(done, version, named=named)

    def _version(
        self, upload_id: UploadId, parts: tuple[Part, ...], seal: Seal
    ) -> tuple[Version, dict[BodyId, bytes]]:
        body: BodyRef | None = None
        bodies: dict[BodyId, bytes] = {}
        if len(parts) > PARTS_IN_RECORD:
            data = encode_parts(parts)
            digest = xxhash.xxh3_128_digest(data)
            body = BodyRef(id=BodyId(digest), size=len(data), digest=digest, count=len(parts))
            bodies[body.id] = data
        version = Version(
            version_id=None, delete_marker=False, stamp=BALLOT_ZERO, op_hlc=0,
            size=sum(part.size for part in parts), validator=seal.validator,
            attributes=seal.attributes, mtime_ms=self._context.runtime.wall_ms(), body=body,
            parts=() if body is not None else parts, upload_id=upload_id,
        )  # fmt: skip
        return version, bodies

    async def abort(self, bucket: Bucket, key: bytes, upload: UploadId) -> None:
        """Raises NotFoundError("upload")."""
        await self._context.table.commit(
            self._context.key_ref(bucket, key),
            AbortUpload(upload_id=upload),
            expect=(UploadOpen(upload_id=upload),),
        )

    async def list_open(
        self, bucket: Bucket, *, prefix: bytes, start: bytes, limit: int
    ) -> tuple[Sequence[UploadInfo], bool]:
        """Open uploads by key and creation."""
        found, cursor = await Scanner(self._context.table).scan_uploads(
            bucket.generation, bucket.bucket_id, bucket.epoch, max(start, prefix), limit
        )
        infos: list[UploadInfo] = []
        for item in found:
            key = object_key(item.row)
            if not key.startswith(prefix):
                return infos, False
            if infos and len(infos) >= limit:
                return infos, True
            assert item.state is not None
            infos += [UploadInfo(key=key, upload=upload) for upload in item.state.uploads]
        return infos, cursor is not None

    async def _scan(
        self, bucket: Bucket, key: bytes, upload: UploadId, first: int, limit: int
    ) -> tuple[list[Found], RowKey | None]:
        home: RegisterRef = self._context.key_ref(bucket, key)
        span = Span(
            start=part_row(bucket.bucket_id, upload, first),
            stop=part_row(bucket.bucket_id, upload, MAX_NUMBER + 1),
            bucket_epoch=bucket.epoch,
        )
        return await Scanner(self._context.table).scan([home.set_id], span, limit)


def _live(item: Found) -> Version:
    assert item.state is not None
    assert item.state.live is not None
    return item.state.live


def _completed(state: KeyState, upload_id: UploadId, bucket: Bucket) -> Version:
    done = next((done for done in state.done if done.upload_id == upload_id), None)
    if done is None:
        raise NotFoundError("upload")
    for version in state.versions:
        if version.upload_id == upload_id:
            return version
    # Overwritten or deleted since: what is left of it is what the first answer said.
    version_id = done.stamp.pack() if bucket.names_versions else None
    return Version(
        version_id=version_id, delete_marker=False, stamp=done.stamp, op_hlc=0, size=0,
        validator=done.validator, attributes=b"", mtime_ms=done.stamp.hlc, upload_id=upload_id,
    )  # fmt: skip
