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
from cluster.ids import BucketId, RowKey
from cluster.register import messages
from cluster.register.keys import is_part
from cluster.register.messages import (
    Accept,
    Fence,
    Page,
    Promise,
    Reply,
    Request,
    Scan,
    ScanRow,
    ScanUploads,
    Value,
)
from cluster.register.records import BodyId, KeyState, Register
from cluster.wire import MAX_HLC, Bytes16, Wire, WireError

MAX_ROW = 16 + 1 + 16 + 2 + 1024  # a part's register: bucket, kind, upload, number, key
MAX_PAGE_ROWS = 10_000
BALLOT_BYTES = 16  # packed
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
    Mapping[BodyId, bytes]: _Bodies,
}
_FIELDS[Sequence[ScanRow]] = tuple[ScanRow, ...]  # a tuple already: strict, and its own twin

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
    if isinstance(reply, Page):
        return _reply_twins[Page](tuple(reply.rows), reply.next)
    return _reply_twins[type(reply)](*_values(reply))


def unpack_request(twin: Any) -> Request:
    """The request of a decoded twin. Raises WireError for what no ballot, register or page may be."""
    request: Request = _kinds[type(twin)](**_named(twin))
    for ballot in _ballots(request):
        _check_ballot(ballot)
    if not isinstance(request, Scan | ScanUploads | Fence):
        _check_row(request.row)
    if isinstance(request, Scan | ScanUploads) and not 0 < request.limit <= MAX_PAGE_ROWS:
        raise WireError(f"a page of {request.limit} rows")
    return request


def unpack_reply(twin: Any) -> Reply:
    """The reply of a decoded twin. Raises WireError."""
    named = _named(twin)
    reply: Reply = _kinds[type(twin)](**named)
    for ballot in _ballots(reply):
        _check_ballot(ballot)
    if isinstance(reply, Page):
        _check_rows(reply.rows)
        return Page(
            list(reply.rows), reply.next
        )  # so that pages of local and remote drives compare
    return reply


def _values(message: Any) -> list[Any]:
    return [getattr(message, field.name) for field in attrs.fields(type(message))]


def _named(twin: Any) -> dict[str, Any]:
    return {name: getattr(twin, name) for name in twin.__struct_fields__}


def _ballots(message: Request | Reply) -> list[Ballot]:
    """Every ballot of a message: packing one that is out of range would end the drive's writer."""
    found: list[Ballot] = []
    for name in ("ballot", "base", "low"):
        ballot = getattr(message, name, None)
        if ballot is not None:
            found.append(ballot)
    if isinstance(message, Accept):
        found += _state_ballots(message.state)
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


def _check_rows(rows: Sequence[ScanRow]) -> None:
    for row in rows:
        if len(row.row) > MAX_ROW or len(row.ballot or bytes(BALLOT_BYTES)) != BALLOT_BYTES:
            raise WireError("no row of a page")


def fit_page(page: Page, max_bytes: int) -> Page:
    """The page cut to that size, which says less: `next` is its first row that was left out. At least one row stays."""
    size = 0
    for index, row in enumerate(page.rows):
        size += len(row.row) + len(row.encoded) + 64
        if size > max_bytes and index > 0:
            return Page(page.rows[:index], row.row)
    return page
