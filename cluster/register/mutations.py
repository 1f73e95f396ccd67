"""Preconditions and mutations as data: what travels with a commit and is evaluated inside the compare-and-set.

A mutation maps the base state to the new state; both are pure functions of (base, ballot), so any node can finish
or repeat them. Refusals are values, not exceptions: the proposer may first have to bury an earlier attempt.
"""

from typing import TypeAlias

import msgspec
from msgspec.structs import replace

from cluster.clock import Ballot
from cluster.ids import DataId, UploadId
from cluster.register.records import Done, KeyState, Upload, Version


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


Precondition: TypeAlias = Absent | Present | ValidatorIn | ValidatorNotIn | HeadIs | UploadOpen


class PutVersion(_Data, frozen=True):
    """Replace the current version (unversioned bucket), or the value of a part or system register.

    The template's stamp, and its parts' intro, are set to the ballot.
    """

    version: Version


class DeleteCurrent(_Data, frozen=True):
    """Remove the null version (unversioned bucket). Removing nothing is a success without a write."""


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


Mutation: TypeAlias = PutVersion | DeleteCurrent | OpenUpload | AbortUpload | CompleteUpload


class Refused(_Data, frozen=True):
    """The precondition does not hold. `reason` is "exists", "absent", "mismatch", "changed" or "no-upload"."""

    reason: str
    base: KeyState


class Unchanged(_Data, frozen=True):
    """The base state already is what the mutation asks for (a delete of nothing)."""


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


def find_upload(state: KeyState, upload_id: UploadId) -> Upload | None:
    """The open upload of that id."""
    return next((upload for upload in state.uploads if upload.upload_id == upload_id), None)


def apply(mutation: Mutation, base: KeyState, ballot: Ballot) -> KeyState | Unchanged:
    """The new state, without its ring entry. `ballot` becomes the stamp and intro of what is introduced."""
    match mutation:
        case PutVersion(version=version):
            return replace(base, versions=(_introduce(version, base, ballot, fresh_parts=True),))
        case DeleteCurrent():
            return replace(base, versions=()) if base.versions else Unchanged()
        case OpenUpload(upload=upload):
            opened = replace(upload, created=ballot)
            return replace(base, uploads=(*base.uploads, opened))
        case AbortUpload(upload_id=upload_id):
            return _close(base, upload_id)
        case CompleteUpload(upload_id=upload_id, version=version):
            introduced = _introduce(version, base, ballot, fresh_parts=False)
            done = Done(upload_id=upload_id, stamp=ballot, validator=introduced.validator)
            return replace(
                _close(base, upload_id),
                versions=(introduced,),
                done=(*base.done, done)[-_DONE_KEPT:],
            )


def _introduce(version: Version, base: KeyState, ballot: Ballot, *, fresh_parts: bool) -> Version:
    # A skewed clock must not make a key's newest version look older than the one that it replaced.
    floor = base.head.mtime_ms if base.head is not None else 0
    parts = version.parts
    if fresh_parts:
        parts = tuple(replace(part, intro=ballot) for part in parts)
    return replace(version, stamp=ballot, mtime_ms=max(version.mtime_ms, floor), parts=parts)


def _close(base: KeyState, upload_id: UploadId) -> KeyState:
    return replace(base, uploads=tuple(u for u in base.uploads if u.upload_id != upload_id))


def record_data(state: KeyState) -> frozenset[DataId]:
    """Data ids in the record parts of a state (a long part list lies beside the record, by its body id)."""
    return frozenset(part.data_id for version in state.versions for part in version.parts)


def removed_data(old: KeyState, new: KeyState) -> tuple[DataId, ...]:
    """Data ids in the record parts of `old` to which `new` refers no longer, in order."""
    return tuple(sorted(record_data(old) - record_data(new)))
