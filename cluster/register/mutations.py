"""Preconditions and mutations as data: what travels with a commit and is evaluated inside the compare-and-set.

A mutation maps the base state to the new state; both are pure functions of (base, ballot), so any node can finish
or repeat them. Refusals are values, not exceptions: the proposer may first have to bury an earlier attempt.
"""

from typing import TypeAlias

import msgspec

from cluster.clock import Ballot
from cluster.ids import DataId, UploadId
from cluster.register.records import KeyState, Part, Upload, Version


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
    """Replace the current version (unversioned bucket). The template's stamp, and its parts' intro, are set to the ballot."""

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


class PutPart(_Data, frozen=True):
    """Set the value of a part register: one version whose only part is this one."""

    version: Version
    part: Part


Mutation: TypeAlias = (
    PutVersion | DeleteCurrent | OpenUpload | AbortUpload | CompleteUpload | PutPart
)


class Refused(_Data, frozen=True):
    """The precondition does not hold. `reason` is "exists", "absent", "mismatch", "changed" or "no-upload"."""

    reason: str
    base: KeyState


class Unchanged(_Data, frozen=True):
    """The base state already is what the mutation asks for (a delete of nothing)."""


def check(conditions: tuple[Precondition, ...], base: KeyState) -> Refused | None:
    """The first condition that does not hold on `base`, as a refusal; None: all hold."""
    raise NotImplementedError


def apply(mutation: Mutation, base: KeyState, ballot: Ballot) -> KeyState | Unchanged:
    """The new state, without its ring entry. `ballot` becomes the stamp and intro of what is introduced."""
    raise NotImplementedError


def removed_data(old: KeyState, new: KeyState) -> tuple[DataId, ...]:
    """Data ids in the record parts of `old` to which `new` refers no longer (long lists: by their body, see gc)."""
    raise NotImplementedError
