"""Register messages as bytes: each class of register.messages has a number and a strict positional twin. Pure.

The twins are made from the classes' own fields, so that a field cannot be forgotten; tests/transport pins the bytes of
one message of each class, so that a change of format is seen and gets a new frame version.
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Annotated, Any

import attrs
import msgspec

from cluster.clock import MAX_LOGICAL, MAX_PROPOSER, Ballot
from cluster.ids import BucketId, DataId, RowKey
from cluster.register import anti_entropy, messages
from cluster.register.anti_entropy import (
    DropHints,
    FenceAt,
    Have,
    Held,
    Hints,
    Install,
    Purge,
    RowAt,
    RowPage,
    ShardOf,
    ShardPage,
    Sync,
    SyncPage,
    SyncRow,
    Unneeded,
    Want,
    Wanted,
    Wants,
)
from cluster.register.keys import is_part
from cluster.register.messages import (
    Accept,
    Page,
    Promise,
    Reply,
    Request,
    ScanRow,
    Value,
)
from cluster.register.records import BodyId, KeyState, Register
from cluster.wire import MAX_HLC, Bytes16, Wire, WireError

MAX_ROW = 16 + 1 + 16 + 2 + 1024  # a part's register: bucket, kind, upload, number, key
MAX_PAGE_ROWS = 10_000
MAX_PLACES = 32  # drives that take part in a register
MAX_NAMED_ROWS = 1024  # of one Have, Purge, DropHints or Unneeded
MAX_SYNC_BYTES = 4 << 20  # of one page; a row that is larger alone comes with the bodies that fit
BALLOT_BYTES = 16  # packed
_ID_BYTES = 16
_PART_ROW_BYTES = 16 + 1 + 16 + 2
_Row = Annotated[bytes, msgspec.Meta(max_length=MAX_ROW)]
_Short = Annotated[bytes, msgspec.Meta(max_length=1024)]
_Bodies = dict[Bytes16, bytes]

# Never renumbered: a number that falls out of use stays unused.
_REQUESTS: dict[int, type] = {
    1: messages.Prepare,
    2: messages.Accept,
    3: messages.Learn,
    4: messages.Query,
    5: messages.ReadBody,
    6: messages.Scan,
    7: messages.ScanUploads,
    8: messages.Fence,
    9: anti_entropy.Have,
    10: anti_entropy.Purge,
    11: anti_entropy.Install,
    12: anti_entropy.Sync,
    13: anti_entropy.Wanted,
    14: anti_entropy.RaiseFloor,
    15: anti_entropy.Unreferenced,
    16: anti_entropy.Discard,
    17: anti_entropy.Hints,
    18: anti_entropy.DropHints,
    19: anti_entropy.StrayParts,
    20: anti_entropy.Unneeded,
    21: anti_entropy.Known,
}
_REPLIES: dict[int, type] = {
    1: messages.Promise,
    2: messages.Nack,
    3: messages.Accepted,
    4: messages.NeedBodies,
    5: messages.Expired,
    6: messages.Value,
    7: messages.Body,
    8: messages.Page,
    9: messages.Done,
    10: messages.NotVoting,
    11: messages.StaleEpoch,
    12: messages.StaleBucket,
    13: messages.Failed,
    14: anti_entropy.Held,
    15: anti_entropy.SyncPage,
    16: anti_entropy.Wants,
    17: anti_entropy.Changed,
    18: anti_entropy.ShardPage,
    19: anti_entropy.RowPage,
}


def _make_twin(kind: type, fields: Mapping[Any, Any], **options: Any) -> Any:
    return msgspec.defstruct(
        kind.__name__,
        [(field.name, fields.get(field.type, field.type)) for field in attrs.fields(kind)],
        bases=(Wire,), frozen=True, **options,
    )  # fmt: skip


_FIELDS: dict[Any, Any] = {
    int: Annotated[int, msgspec.Meta(ge=-1, le=(1 << 63) - 1)],
    bytes: _Short,
    RowKey: _Row,
    RowKey | None: _Row | None,
    BucketId: Bytes16,
    BodyId: Bytes16,
    DataId: Bytes16,
    DataId | None: Bytes16 | None,
    Mapping[BodyId, bytes]: _Bodies,
}
# Tuples already: strict, and their own twins.
for _item in (ScanRow, SyncRow, FenceAt, Want, ShardOf):
    _FIELDS[Sequence[_item]] = tuple[_item, ...]  # type: ignore[valid-type]
_FIELDS[Sequence[RowAt]] = Annotated[tuple[RowAt, ...], msgspec.Meta(max_length=MAX_NAMED_ROWS)]
_FIELDS[Sequence[DataId]] = Annotated[tuple[Bytes16, ...], msgspec.Meta(max_length=MAX_PAGE_ROWS)]
_FIELDS[Sequence[Ballot | None]] = tuple[Ballot | None, ...]

_Twins = dict[type, Any]
_request_twins: _Twins = {
    kind: _make_twin(kind, _FIELDS, tag=number) for number, kind in _REQUESTS.items()
}
_reply_twins: _Twins = {
    kind: _make_twin(kind, _FIELDS, tag=number) for number, kind in _REPLIES.items()
}
_kinds: dict[Any, type] = {
    twin: kind for twins in (_request_twins, _reply_twins) for kind, twin in twins.items()
}

# The unions to name in messages that carry requests and replies.
RequestTwin: Any = reduce(or_, _request_twins.values())
ReplyTwin: Any = reduce(or_, _reply_twins.values())


def pack_request(request: Request) -> Any:
    """The twin of a request."""
    return _request_twins[type(request)](*_values(request))


def pack_reply(reply: Reply) -> Any:
    """The twin of a reply."""
    values = _values(reply)
    if isinstance(reply, Page | SyncPage | Held | Wants | ShardPage | RowPage):
        values = [tuple(value) if isinstance(value, list) else value for value in values]
    return _reply_twins[type(reply)](*values)


def unpack_request(twin: Any) -> Request:
    """The request of a decoded twin. Raises WireError for what no ballot, register or page may be."""
    request: Request = _kinds[type(twin)](**_named(twin))
    for ballot in _ballots(request):
        _check_ballot(ballot)
    if isinstance(request, Hints | DropHints) and not 0 <= request.position < MAX_PLACES:
        raise WireError(f"no position {request.position}")
    if isinstance(request, DropHints) and not 0 < request.places <= MAX_PLACES:
        raise WireError(f"a set of {request.places} drives")
    if isinstance(request, Have | Purge | DropHints | Unneeded):
        for named in request.rows:
            _check_row(named.row)
    elif hasattr(request, "row"):
        _check_row(request.row)
    limit = getattr(request, "limit", 1)
    least = 0 if isinstance(request, Wanted) else 1  # whoever wants to know a version alone
    if not least <= limit <= MAX_PAGE_ROWS:
        raise WireError(f"a page of {limit} rows")
    if isinstance(request, Sync) and not 0 < request.max_bytes <= MAX_SYNC_BYTES:
        raise WireError(f"a page of {request.max_bytes} bytes")
    return request


def unpack_reply(twin: Any) -> Reply:
    """The reply of a decoded twin. Raises WireError."""
    named = _named(twin)
    reply: Reply = _kinds[type(twin)](**named)
    for ballot in _ballots(reply):
        _check_ballot(ballot)
    if isinstance(reply, Page | SyncPage):
        _check_rows(reply.rows)
    if isinstance(reply, SyncPage):
        _check_sync(reply)
    if isinstance(reply, Wants | RowPage):
        for want in reply.rows:
            _check_row(want.row)
    if isinstance(reply, ShardPage):
        for shard in reply.shards:
            _check_row(shard.owner)
            if len(shard.data_id) != _ID_BYTES:
                raise WireError("no data id")
    return reply


def _values(message: Any) -> list[Any]:
    return [getattr(message, field.name) for field in attrs.fields(type(message))]


def _named(twin: Any) -> dict[str, Any]:
    """The fields; lists as they were, so that messages that went over the wire compare with those that did not."""
    values = ((name, getattr(twin, name)) for name in twin.__struct_fields__)
    return {
        name: list(value) if isinstance(value, tuple) and not isinstance(value, Ballot) else value
        for name, value in values
    }


def _ballots(message: Request | Reply) -> list[Ballot]:
    """Every ballot of a message: packing one that is out of range would end the drive's writer."""
    found: list[Ballot] = []
    for name in ("ballot", "base", "low", "floor", "gc_floor"):
        ballot = getattr(message, name, None)
        if ballot is not None:
            found.append(ballot)
    if isinstance(message, Accept | Install):
        found += _state_ballots(message.state)
    if isinstance(message, Have | Purge | DropHints | Unneeded | Wants | RowPage):
        found += [named.ballot for named in message.rows if named.ballot is not None]
    if isinstance(message, Held):
        found += [ballot for ballot in message.ballots if ballot is not None]
    if isinstance(message, Promise | Value):
        found += _register_ballots(message.register)
    return found


def _register_ballots(register: Register) -> list[Ballot]:
    return [register.ballot, *_state_ballots(register.state)]


def _state_ballots(state: KeyState) -> list[Ballot]:
    found = [applied.ballot for applied in state.ring]
    found += [upload.created for upload in state.uploads]
    found += [done.stamp for done in state.done]
    for version in state.versions:
        found.append(version.stamp)
        found += [part.intro for part in version.parts]
    return found


def _check_row(row: RowKey) -> None:
    """Scans may start anywhere; a register has a kind, and a part's has an upload and a number."""
    if row[16:17] not in {b"o", b"p", b"s"} or (is_part(row) and len(row) < _PART_ROW_BYTES):
        raise WireError("no register's name")


def _check_ballot(ballot: Ballot) -> None:
    hlc, logical, proposer = ballot
    if not (0 <= hlc <= MAX_HLC and 0 <= logical <= MAX_LOGICAL and 0 <= proposer <= MAX_PROPOSER):
        raise WireError(f"no ballot: {ballot}")


def _check_rows(rows: Sequence[ScanRow | SyncRow]) -> None:
    for row in rows:
        if len(row.row) > MAX_ROW or len(row.ballot or bytes(BALLOT_BYTES)) != BALLOT_BYTES:
            raise WireError("no row of a page")


def _check_sync(page: SyncPage) -> None:
    for row in page.rows:
        _check_row(row.row)
        if any(len(body) != _ID_BYTES for body in row.bodies):
            raise WireError("no body of a row")
    if any(len(fence.bucket) != _ID_BYTES for fence in page.fences):
        raise WireError("no bucket")


def fit_page(page: Page, max_bytes: int) -> Page:
    """The page cut to that size, which says less: `next` is its first row that was left out. At least one row stays."""
    size = 0
    for index, row in enumerate(page.rows):
        size += len(row.row) + len(row.encoded) + 64
        if size > max_bytes and index > 0:
            return Page(page.rows[:index], row.row)
    return page
