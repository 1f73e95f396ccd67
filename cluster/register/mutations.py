"""Preconditions and mutations as data: what travels with a commit and is evaluated inside the compare-and-set.

A mutation maps the base state to the new state; both are pure functions of (base, ballot), so any node can finish
or repeat them. Refusals are values, not exceptions: the proposer may first have to bury an earlier attempt.
"""

from typing import TypeAlias

import msgspec
from msgspec.structs import replace

from cluster.clock import Ballot
from cluster.ids import DataId, UploadId
from cluster.register.records import Done, KeyState, Upload, Version, encode_state


class _Data(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    pass


class Absent(_Data, frozen=True):
    """There is no live object (a delete marker counts as none): If-None-Match: *."""


class Present(_Data, frozen=True):
    """There is a live object: If-Match: *."""


class ValidatorIn(_Data, frozen=True):
    """The live object's validator is one of these: If-Match: "etag"."""

    validators: tuple[str, ...]


class ValidatorNotIn(_Data, frozen=True):
    """There is no live object with one of these validators."""

    validators: tuple[str, ...]


class HeadIs(_Data, frozen=True):
    """The newest version was introduced at this ballot (None: there is no version): read-modify-write."""

    stamp: Ballot | None


class UploadOpen(_Data, frozen=True):
    """The upload has been neither completed nor aborted."""

    upload_id: UploadId


class RoomForVersion(_Data, frozen=True):
    """The key has room for one more version: a state travels whole, so it must stay smaller than a message."""


Precondition: TypeAlias = (
    Absent | Present | ValidatorIn | ValidatorNotIn | HeadIs | UploadOpen | RoomForVersion
)


class PutVersion(_Data, frozen=True):
    """Make this the newest version of a key (it may be a delete marker), or the value of a part or system register.

    The template's stamp, and its parts' intro, are set to the ballot. `named`: the stamp becomes its id, too, and it
    stands beside the older ones; otherwise it is the null version, and takes the place of the one before it.
    """

    version: Version
    named: bool = False


class DeleteVersion(_Data, frozen=True):
    """Remove the version of that id (None: the null version), so that the next older one may become the newest.

    Removing nothing is a success without a write.
    """

    version_id: bytes | None = None


class OpenUpload(_Data, frozen=True):
    """Add an open upload; its `created` is set to the ballot."""

    upload: Upload


class AbortUpload(_Data, frozen=True):
    """Remove an open upload."""

    upload_id: UploadId


class CompleteUpload(_Data, frozen=True):
    """Put the version that the listed parts make, close the upload, remember it in `done`: one compare-and-set."""

    upload_id: UploadId
    version: Version  # its parts, or its body (a long list), keep the intro ballots under which they were written
    named: bool = False  # as in PutVersion


Mutation: TypeAlias = PutVersion | DeleteVersion | OpenUpload | AbortUpload | CompleteUpload


class Refused(_Data, frozen=True):
    """The precondition does not hold.

    `reason` is "exists", "absent", "mismatch", "changed", "no-upload" or "no-room".
    """

    reason: str
    base: KeyState


class Unchanged(_Data, frozen=True):
    """The base state already is what the mutation asks for (a delete of nothing)."""


MAX_VERSIONS = 10_000  # of a key
MAX_RECORD_BYTES = (
    8 << 20  # of a state with the body rows beside it: half of what a message may hold
)
_DONE_KEPT = 16


def check(conditions: tuple[Precondition, ...], base: KeyState) -> Refused | None:
    """The first condition that does not hold on `base`, as a refusal; None: all hold."""
    for condition in conditions:
        reason = _violation(condition, base)
        if reason is not None:
            return Refused(reason=reason, base=base)
    return None


def _violation(condition: Precondition, base: KeyState) -> str | None:
    live = base.live
    match condition:
        case Absent():
            return "exists" if live is not None else None
        case Present():
            return "absent" if live is None else None
        case ValidatorIn(validators=validators):
            if live is None:
                return "absent"
            return None if live.validator in validators else "mismatch"
        case ValidatorNotIn(validators=validators):
            return "exists" if live is not None and live.validator in validators else None
        case HeadIs(stamp=stamp):
            head = base.head
            return None if (head.stamp if head is not None else None) == stamp else "changed"
        case UploadOpen(upload_id=upload_id):
            return None if find_upload(base, upload_id) is not None else "no-upload"
        case RoomForVersion():
            return None if _has_room(base) else "no-room"


def _has_room(base: KeyState) -> bool:
    if len(base.versions) >= MAX_VERSIONS:
        return False
    # A drive that missed some states is sent the whole of the next one, bodies included, in one message.
    bodies = sum(version.body.size for version in base.versions if version.body is not None)
    return bodies + len(encode_state(base)) <= MAX_RECORD_BYTES


def find_version(state: KeyState, version_id: bytes | None) -> Version | None:
    """The version of that id; None: the null version."""
    return next((v for v in state.versions if v.version_id == version_id), None)


def find_upload(state: KeyState, upload_id: UploadId) -> Upload | None:
    """The open upload of that id."""
    return next((upload for upload in state.uploads if upload.upload_id == upload_id), None)


def apply(mutation: Mutation, base: KeyState, ballot: Ballot) -> KeyState | Unchanged:
    """The new state, without its ring entry. `ballot` becomes the stamp and intro of what is introduced."""
    match mutation:
        case PutVersion(version=version, named=named):
            if version.parts:
                parts = tuple(replace(part, intro=ballot) for part in version.parts)
                version = replace(version, parts=parts)
            return _introduce(version, base, ballot, named=named)
        case DeleteVersion(version_id=version_id):
            left = _without(base, version_id)
            return Unchanged() if len(left) == len(base.versions) else replace(base, versions=left)
        case OpenUpload(upload=upload):
            opened = replace(upload, created=ballot)
            return replace(base, uploads=(*base.uploads, opened))
        case AbortUpload(upload_id=upload_id):
            return _close(base, upload_id)
        case CompleteUpload(upload_id=upload_id, version=version, named=named):
            new = _introduce(version, _close(base, upload_id), ballot, named=named)
            done = Done(upload_id, ballot, version.validator)
            return replace(new, done=(*base.done, done)[-_DONE_KEPT:])


def _introduce(version: Version, base: KeyState, ballot: Ballot, *, named: bool) -> KeyState:
    head = base.head
    # Only what is older than a ballot can be promised at it: so the order of versions is that of their stamps.
    assert head is None or head.stamp < ballot
    # A skewed clock must not make a key's newest version look older than the one before it.
    floor = head.mtime_ms if head is not None else 0
    introduced = replace(
        version,
        version_id=ballot.pack() if named else None,
        stamp=ballot,
        mtime_ms=max(version.mtime_ms, floor),
    )
    return replace(base, versions=(introduced, *_without(base, introduced.version_id)))


def _without(base: KeyState, version_id: bytes | None) -> tuple[Version, ...]:
    return tuple(v for v in base.versions if v.version_id != version_id)


def _close(base: KeyState, upload_id: UploadId) -> KeyState:
    return replace(base, uploads=tuple(u for u in base.uploads if u.upload_id != upload_id))


def record_data(state: KeyState) -> frozenset[DataId]:
    """Data ids in the record parts of a state (a long part list lies beside the record, by its body id)."""
    return frozenset(part.data_id for version in state.versions for part in version.parts)


def removed_data(old: KeyState, new: KeyState) -> tuple[DataId, ...]:
    """Data ids in the record parts of `old` to which `new` refers no longer, in order."""
    return tuple(sorted(record_data(old) - record_data(new)))
