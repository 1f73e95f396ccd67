"""What drives are asked so that all come to hold the same: whoever missed something is told, what nobody needs is forgotten.

Members of the unions Request and Reply of register.messages. None of them carries a bucket epoch: they introduce nothing,
and show no client anything.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import attrs

from cluster.clock import Ballot
from cluster.ids import BucketId, DataId, RowKey
from cluster.register.records import BodyId, KeyState, encode_state

FIRST_ROW = RowKey(b"")


class RowAt(NamedTuple):
    """A register at a ballot."""

    row: RowKey
    ballot: Ballot


@attrs.frozen(kw_only=True)
class Have:
    """Which ballots have you accepted? Durable ones. A drive that is below one it is told of wants what it missed."""

    rows: Sequence[RowAt]
    epoch: int


@attrs.frozen(kw_only=True)
class Purge:
    """Forget these tombstones, each if you hold it at that ballot and know it chosen. Durable before the reply.

    Only after Have has shown all n drives at these ballots or above, and when all that their memory would refuse is
    refused for its age: the floor that goes up with them is drive-wide.
    """

    rows: Sequence[RowAt]
    epoch: int


@attrs.frozen(kw_only=True, eq=False, slots=False)
class Install:
    """Take over what another drive holds: a fact and no proposal, so no promise and no floor refuses it.

    `version` is the drive's own word (Held, Wants) from before the state was read: since then the row must not have
    changed, or a tombstone may have come and gone. Only a drive that rebuilds itself takes what is not known chosen.
    """

    row: RowKey
    ballot: Ballot
    epoch: int
    version: int
    state: KeyState
    chosen: bool
    bodies: Mapping[BodyId, bytes] = attrs.field(factory=dict)

    @functools.cached_property
    def encoded(self) -> bytes:
        """The stored form of the state."""
        return encode_state(self.state)


@attrs.frozen(kw_only=True)
class Sync:
    """Rows start <= row < stop (None: no end) as you hold them, bodies too: at most `limit`, and about `max_bytes`."""

    start: RowKey
    stop: RowKey | None
    limit: int
    max_bytes: int
    epoch: int
    fences: bool = False  # all of them, too


@attrs.frozen(kw_only=True)
class Wanted:
    """Which rows, start <= row < stop (None: no end), do you want repaired or brought up to date? At most `limit` of them.

    A drive of the system set has rows of two sets, and each set can help with its own.
    """

    limit: int
    epoch: int
    start: RowKey = FIRST_ROW
    stop: RowKey | None = None

    def covers(self, row: RowKey) -> bool:
        """Whether a row is asked for."""
        return row >= self.start and (self.stop is None or row < self.stop)


@attrs.frozen(kw_only=True)
class RaiseFloor:
    """Promise and accept nothing up to `floor` from now on, in no register. Durable before the reply."""

    floor: Ballot
    epoch: int


@attrs.frozen(kw_only=True)
class Hints:
    """Which rows, of at most `limit` with after < row < stop, do you know to be chosen and missed by the drive at `position`?

    The rows are those of one set: in those of another the drive has another position.
    """

    position: int  # in the order of the drives that take part
    after: RowKey
    stop: RowKey | None  # None: to the end
    limit: int
    epoch: int


@attrs.frozen(kw_only=True)
class DropHints:
    """The drive at `position` (of `places`) holds these rows at these ballots, or above: forget that it missed them."""

    position: int
    places: int
    rows: Sequence[RowAt]
    epoch: int


@attrs.frozen(kw_only=True)
class Unreferenced:
    """Which bodies do you hold shards of, drawn in after < data_id < before, that no chosen state of yours refers to?

    At most `limit` are looked at. Those of dead buckets are discarded on the way.
    """

    after: DataId
    before: DataId
    limit: int
    epoch: int


@attrs.frozen(kw_only=True)
class Discard:
    """Nothing refers to these bodies, nor ever will: collect their shards when the reads in flight are over."""

    data: Sequence[DataId]
    epoch: int


@attrs.frozen(kw_only=True)
class StrayParts:
    """Which rows after `after` do you hold of parts whose upload is not open in your row of their owner? At most `limit` are looked at.

    Most are gone with their upload. What is left was accepted after that, or when the drive did not know it for closed.
    """

    after: RowKey
    limit: int
    epoch: int


@attrs.frozen(kw_only=True)
class Known:
    """Which rows, after < row < stop (None: no end), do you know to be chosen, and at which ballots? At most `limit` are looked at."""

    after: RowKey
    stop: RowKey | None
    limit: int
    epoch: int


@attrs.frozen(kw_only=True)
class Unneeded:
    """Want these rows, up to these ballots, no more: chosen once, and forgotten by a quorum; or parts of closed uploads.

    A part's row that is held at such a ballot is dropped, too, durably before the reply. It needs no floor, and no
    version as an Install does: whatever comes back is of a closed upload still, and is dropped again.
    """

    rows: Sequence[RowAt]
    epoch: int


# -- answers


@attrs.frozen
class Held:
    """Answer to Have, in its order; None: the row is corrupt. `version` goes into an Install that is read hereafter."""

    ballots: Sequence[Ballot | None]
    version: int


class SyncRow(NamedTuple):
    """One row of a SyncPage, still encoded."""

    row: RowKey
    ballot: bytes | None  # packed; None: the row is corrupt on this drive, which is not "absent"
    flags: int
    encoded: bytes
    bodies: dict[BodyId, bytes]  # those that fitted; the others can be read one by one


class FenceAt(NamedTuple):
    """A bucket's fence."""

    bucket: BucketId
    bucket_epoch: int
    dead: bool


@attrs.frozen
class SyncPage:
    """Rows from the asked start on. It says everything about rows below `next`; None: up to the asked stop."""

    rows: Sequence[SyncRow]
    next: RowKey | None
    gc_floor: Ballot
    ceiling_ms: int  # whatever the drive has promised or accepted under earlier layouts has at most this hybrid time
    fences: Sequence[FenceAt]


class Want(NamedTuple):
    """A row that a drive wants: what was chosen at `ballot` (or above), or, None, a repair: the row is corrupt.

    Not `chosen`: the drive holds it at that ballot, and wants to know what became of it.
    """

    row: RowKey
    ballot: Ballot | None
    chosen: bool = True


@attrs.frozen
class Wants:
    """Answer to Wanted. `version` goes into an Install that is read hereafter."""

    rows: Sequence[Want]
    version: int


@attrs.frozen
class RowPage:
    """Answer to Hints, StrayParts and Known. `next`: ask again after that; None: there are no more."""

    rows: Sequence[RowAt]
    next: RowKey | None


class ShardOf(NamedTuple):
    """A body of which a drive holds a shard, and the register that should refer to it."""

    data_id: DataId
    owner: RowKey


@attrs.frozen
class ShardPage:
    """Answer to Unreferenced. `next`: ask again after that; None: there are no more."""

    shards: Sequence[ShardOf]
    next: DataId | None


@attrs.frozen
class Changed:
    """The row has changed since the state to be installed was read: read it again."""
