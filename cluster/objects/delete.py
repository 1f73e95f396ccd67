"""Deleting: the version that is named, or the object in its bucket's mode, where that inserts a marker."""

from cluster.clock import BALLOT_ZERO
from cluster.errors import PreconditionError
from cluster.objects.context import Context
from cluster.objects.model import Bucket, Versioning
from cluster.objects.put import committed_version
from cluster.register.mutations import (
    DeleteVersion,
    Precondition,
    PutVersion,
    RoomForVersion,
    find_version,
)
from cluster.register.proposer import Committed
from cluster.register.records import Version


async def delete_object(
    context: Context,
    bucket: Bucket,
    key: bytes,
    expect: tuple[Precondition, ...],
    version_id: bytes | None,
) -> Version | None:
    """See Objects.delete."""
    try:
        if version_id is None and bucket.versioning is not Versioning.UNVERSIONED:
            return await _insert_marker(context, bucket, key, expect)
        mutation = DeleteVersion(version_id=version_id or None)
        done = await context.table.commit(context.key_ref(bucket, key), mutation, expect=expect)
    except PreconditionError as error:
        if not error.absent:
            raise
        return None
    return removed(done, mutation.version_id)


async def _insert_marker(
    context: Context, bucket: Bucket, key: bytes, expect: tuple[Precondition, ...]
) -> Version:
    """The marker becomes the newest version, also of a key that never had another, as S3 has it."""
    named = bucket.names_versions
    marker = Version(
        version_id=None, delete_marker=True, stamp=BALLOT_ZERO, op_hlc=0, size=0, validator="",
        attributes=b"", mtime_ms=context.runtime.wall_ms(),
    )  # fmt: skip
    done = await context.table.commit(
        context.key_ref(bucket, key),
        PutVersion(version=marker, named=named),
        expect=(*expect, RoomForVersion()) if named else expect,
    )
    return committed_version(done, marker, named=named)


def removed(done: Committed, version_id: bytes | None) -> Version | None:
    """What a deletion took away; None: nothing, or a repeated proposal found itself applied."""
    is_own = done.wrote and done.base is not done.state
    return find_version(done.base, version_id) if is_own else None
