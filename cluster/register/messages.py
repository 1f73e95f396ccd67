"""What coordinators ask of acceptors, and what these answer (the register part of the RPC messages).

Every request crosses the drive interface, in one process too, so that tests can delay, lose and duplicate it.
`epoch` is the layout's, `bucket_epoch` that of the bucket whose namespace the row lies in (0 in the system
namespace); a reply from a drive that does not vote is NotVoting, never "absent" (I12).
"""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import attrs

from cluster.clock import Ballot
from cluster.ids import BucketId, RowKey
from cluster.register.anti_entropy import (
    Changed,
    Discard,
    DropHints,
    Have,
    Held,
    Hints,
    Install,
    Known,
    Purge,
    RaiseFloor,
    RowPage,
    ShardPage,
    StrayParts,
    Sync,
    SyncPage,
    Unneeded,
    Unreferenced,
    Wanted,
    Wants,
)
from cluster.register.records import BodyId, KeyState, Register, encode_state


@attrs.frozen(kw_only=True)
class Prepare:
    """Promise to accept nothing below `ballot`, and tell what you hold."""

    row: RowKey
    ballot: Ballot
    epoch: int
    bucket_epoch: int


@attrs.frozen(kw_only=True, eq=False, slots=False)
class Accept:
    """Hold `state` at `ballot`. `bodies` are those that the state introduces, or all of them after NeedBodies."""

    row: RowKey
    ballot: Ballot
    epoch: int
    bucket_epoch: int
    base: Ballot  # ballot of the state that this one was derived from
    state: KeyState
    bodies: Mapping[BodyId, bytes] = attrs.field(factory=dict)

    @functools.cached_property
    def encoded(self) -> bytes:
        """The stored form of the state, made once for all drives that share this message."""
        return encode_state(self.state)


@attrs.frozen(kw_only=True)
class Learn:
    """The state at `ballot` is chosen; positions outside `acceptors` missed it (hint rows)."""

    row: RowKey
    ballot: Ballot
    acceptors: int = (
        -1
    )  # bitmap over the home set's positions; -1: the others may still accept, so no hints yet


@attrs.frozen(kw_only=True)
class Query:
    """What do you hold? Durable state only. `bodies`: send the body rows of the newest version along."""

    row: RowKey
    epoch: int
    bucket_epoch: int
    bodies: bool = False


@attrs.frozen(kw_only=True)
class ReadBody:
    """Send one body row of a register."""

    row: RowKey
    body: BodyId
    epoch: int


@attrs.frozen(kw_only=True)
class Scan:
    """Rows in byte order: tombstones and unchosen rows too. `start` is inclusive, `stop` exclusive (None: no end).

    With `delimiter` the drive rolls up: for each common prefix (counted from `prefix_len` bytes into the row) it
    returns one witness row, the first that is live or not known chosen, and seeks on.
    """

    start: RowKey
    stop: RowKey | None
    limit: int
    epoch: int
    bucket_epoch: int
    delimiter: bytes = b""
    prefix_len: int = 0


@attrs.frozen(kw_only=True)
class ScanUploads:
    """Object rows of a bucket whose accepted state has open uploads, in byte order (a durable index)."""

    bucket: BucketId
    start: RowKey
    limit: int
    epoch: int
    bucket_epoch: int


@attrs.frozen(kw_only=True)
class Fence:
    """From now on answer data requests of this bucket below `bucket_epoch` with StaleBucket. Durable before the reply."""

    bucket: BucketId
    bucket_epoch: int
    dead: bool = False  # the bucket is gone: its rows and data may be dropped


Request = (
    Prepare
    | Accept
    | Learn
    | Query
    | ReadBody
    | Scan
    | ScanUploads
    | Fence
    | Have
    | Purge
    | Install
    | Sync
    | Wanted
    | RaiseFloor
    | Unreferenced
    | Discard
    | Hints
    | DropHints
    | StrayParts
    | Unneeded
    | Known
)


@attrs.frozen
class Promise:
    """`register` is what the drive holds; it will accept nothing below the ballot it promised."""

    register: Register


@attrs.frozen
class Nack:
    """Refused: the drive has promised, accepted or fenced `low`; only a higher ballot has a chance."""

    low: Ballot


@attrs.frozen
class Accepted:
    """Durable. `commit_seq` only rises; a drive that opens with less than peers have seen forgot something."""

    commit_seq: int


@attrs.frozen
class NeedBodies:
    """The drive lacks body rows that the state refers to (it missed an earlier ACCEPT): send them all."""


@attrs.frozen
class Expired:
    """The age rule I8 refused it: the operation or its data is too old to be introduced."""


@attrs.frozen
class Value:
    """Answer to Query."""

    register: Register
    bodies: Mapping[BodyId, bytes] = attrs.field(factory=dict)


@attrs.frozen
class Body:
    """Answer to ReadBody; None: this drive does not hold it (any more)."""

    data: bytes | None


CHOSEN, LIVE = (
    1,
    2,
)  # bits of a stored row's flags: known to be chosen; the newest version is no delete marker


class ScanRow(NamedTuple):
    """One row of a page, still encoded: the coordinator decodes the newest copy of each, once.

    A tuple of plain values: pages of two drives that say the same are equal at the price of a memcmp.
    """

    row: RowKey
    ballot: (
        bytes | None
    )  # packed; None: the row is corrupt on this drive, and returned as such, never skipped
    flags: int
    encoded: bytes
    rolled_up: bool = False  # a witness of a common prefix

    @property
    def chosen(self) -> bool:
        """Whether this drive knows the row to be chosen."""
        return bool(self.flags & CHOSEN)

    @property
    def live(self) -> bool:
        """Whether the newest version is no delete marker."""
        return bool(self.flags & LIVE)


@attrs.frozen
class Page:
    """Rows from the asked start on. The page says everything about rows below `next`; None: up to the asked stop."""

    rows: Sequence[ScanRow]
    next: RowKey | None


@attrs.frozen
class Done:
    """Answer to Learn, Fence, Purge, RaiseFloor, Discard, DropHints, Unneeded, and to an Install that says nothing new or was carried out."""


@attrs.frozen
class NotVoting:
    """The drive is rebuilding or faulty, or the row is corrupt: this is no vote and says nothing about absence."""

    reason: str


@attrs.frozen
class StaleEpoch:
    """The request's layout epoch is not the drive's."""

    epoch: int


@attrs.frozen
class StaleBucket:
    """The bucket is fenced at a higher epoch: read its record again."""

    bucket_epoch: int


@attrs.frozen
class Failed:
    """The drive could not do it: faulty, gone, overloaded. No effect that a later reply could show is implied."""

    reason: str


Reply = (
    Promise
    | Nack
    | Accepted
    | NeedBodies
    | Expired
    | Value
    | Body
    | Page
    | Held
    | SyncPage
    | Wants
    | ShardPage
    | RowPage
    | Changed
    | Done
    | NotVoting
    | StaleEpoch
    | StaleBucket
    | Failed
)
