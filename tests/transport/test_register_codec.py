"""Register messages cross the wire unchanged, in pinned bytes; anything else is one named error."""

import hashlib

import msgspec
import pytest
from hypothesis import given, strategies as st

from cluster.clock import BALLOT_ZERO, MAX_LOGICAL, MAX_PROPOSER, Ballot
from cluster.drives import rpc_messages as rpc
from cluster.ids import BucketId, DataId, OpId, RowKey, UploadId
from cluster.register import messages
from cluster.register.anti_entropy import (
    Changed,
    Discard,
    DropHints,
    FenceAt,
    Have,
    Held,
    Hints,
    Install,
    Known,
    Purge,
    RaiseFloor,
    RowAt,
    RowPage,
    ShardOf,
    ShardPage,
    StrayParts,
    Sync,
    SyncPage,
    SyncRow,
    Unneeded,
    Unreferenced,
    Want,
    Wanted,
    Wants,
)
from cluster.register.messages import (
    CHOSEN,
    LIVE,
    Accept,
    Accepted,
    Body,
    Done,
    Expired,
    Failed,
    Fence,
    Learn,
    Nack,
    NeedBodies,
    NotVoting,
    Page,
    Prepare,
    Promise,
    Query,
    ReadBody,
    Scan,
    ScanRow,
    ScanUploads,
    StaleBucket,
    StaleEpoch,
    Value,
)
from cluster.register.records import (
    Applied,
    BodyId,
    BodyRef,
    Done as DoneUpload,
    KeyState,
    Part,
    Register,
    Upload,
    Version,
    encode_state,
)
from cluster.transport.register_codec import (
    MAX_ROW,
    ReplyTwin,
    RequestTwin,
    fit_page,
    pack_reply,
    pack_request,
    unpack_reply,
    unpack_request,
)
from cluster.wire import MAX_HLC, Codec, Header, WireError

ROW = RowKey(b"b" * 16 + b"okey")
BALLOT = Ballot(MAX_HLC, MAX_LOGICAL, MAX_PROPOSER)
LOW = Ballot(5, 0, 7)
PART = Part(
    number=1, size=9, validator="etag", attributes=b"a", data_id=DataId(b"d" * 16), intro=LOW, codec="c/8",
    set_id=0, k=4, m=2, block=65536, staged=63, digest_root=b"r" * 16,
)  # fmt: skip
VERSION = Version(
    version_id=None, delete_marker=False, stamp=LOW, op_hlc=5, size=9, validator="etag", attributes=b"",
    mtime_ms=1, body=BodyRef(id=BodyId(b"i" * 16), size=1, digest=b"x" * 16), parts=(PART,),
)  # fmt: skip
STATE = KeyState(
    versions=(VERSION,),
    uploads=(Upload(upload_id=UploadId(b"u" * 16), created=LOW, attributes=b"", mtime_ms=1),),
    done=(DoneUpload(upload_id=UploadId(b"u" * 16), stamp=LOW, validator="v"),),
    ring=(Applied(op_id=OpId(b"o" * 16), ballot=LOW, removed=(DataId(b"e" * 16),)),),
)
REGISTER = Register(ballot=BALLOT, state=STATE, chosen=True)
SCAN_ROW = ScanRow(ROW, LOW.pack(), CHOSEN | LIVE, encode_state(STATE), True)

REQUESTS = [
    Prepare(row=ROW, ballot=BALLOT, epoch=1, bucket_epoch=2),
    Accept(
        row=ROW, ballot=BALLOT, epoch=1, bucket_epoch=2, base=BALLOT_ZERO, state=STATE,
        bodies={BodyId(b"i" * 16): b"body"},
    ),
    Learn(row=ROW, ballot=BALLOT, acceptors=-1),
    Query(row=ROW, epoch=1, bucket_epoch=2, bodies=True),
    ReadBody(row=ROW, body=BodyId(b"i" * 16), epoch=1),
    Scan(start=ROW, stop=None, limit=10, epoch=1, bucket_epoch=2, delimiter=b"/", prefix_len=17),
    ScanUploads(bucket=BucketId(b"b" * 16), start=ROW, limit=10, epoch=1, bucket_epoch=2),
    Fence(bucket=BucketId(b"b" * 16), bucket_epoch=2, dead=True),
    Have(rows=[RowAt(ROW, BALLOT), RowAt(ROW, LOW)], epoch=1),
    Purge(rows=[RowAt(ROW, BALLOT)], epoch=1),
    Install(
        row=ROW, ballot=BALLOT, epoch=1, version=7, state=STATE, chosen=True,
        bodies={BodyId(b"i" * 16): b"body"},
    ),
    Sync(start=RowKey(b""), stop=ROW, limit=10, max_bytes=1000, epoch=1, fences=True),
    Wanted(limit=10, epoch=1),
    Wanted(limit=10, epoch=1, start=ROW, stop=RowKey(ROW + b"z")),
    RaiseFloor(floor=BALLOT, epoch=1),
    Unreferenced(after=DataId(bytes(16)), before=DataId(b"d" * 16), limit=10, epoch=1),
    Discard(data=[DataId(b"d" * 16)], epoch=1),
    Hints(position=3, after=ROW, stop=None, limit=10, epoch=1),
    Hints(position=3, after=ROW, stop=RowKey(ROW + b"z"), limit=10, epoch=1),
    DropHints(position=3, places=6, rows=[RowAt(ROW, BALLOT)], epoch=1),
    StrayParts(after=ROW, limit=10, epoch=1),
    Known(after=ROW, stop=None, limit=10, epoch=1),
    Unneeded(rows=[RowAt(ROW, BALLOT)], epoch=1),
]  # fmt: skip
REPLIES = [
    Promise(REGISTER),
    Nack(BALLOT),
    Accepted(3),
    NeedBodies(),
    Expired(),
    Value(REGISTER, {BodyId(b"i" * 16): b"body"}),
    Body(None),
    Body(b"data"),
    Page([SCAN_ROW, ScanRow(ROW, None, 0, b"")], ROW),
    Page([], None),
    Held([BALLOT, None], 7),
    SyncPage(
        [SyncRow(ROW, LOW.pack(), CHOSEN, encode_state(STATE), {BodyId(b"i" * 16): b"body"})],
        ROW, BALLOT, 9, [FenceAt(BucketId(b"b" * 16), 2, True)],
    ),
    SyncPage([SyncRow(ROW, None, 0, b"", {})], None, LOW, 9, []),
    Wants([Want(ROW, BALLOT), Want(ROW, None), Want(ROW, BALLOT, chosen=False)], 7),
    Changed(),
    ShardPage([ShardOf(DataId(b"d" * 16), ROW)], DataId(b"d" * 16)),
    ShardPage([], None),
    RowPage([RowAt(ROW, BALLOT)], ROW),
    RowPage([], None),
    Done(),
    NotVoting("why"),
    StaleEpoch(4),
    StaleBucket(5),
    Failed("gone ✓"),
]  # fmt: skip
request_codec = Codec(RequestTwin, 1 << 20)
reply_codec = Codec(ReplyTwin, 1 << 20)


def there_and_back(message):
    if type(message) in messages.Request.__args__:
        return unpack_request(request_codec.decode(request_codec.encode(pack_request(message))))
    return unpack_reply(reply_codec.decode(reply_codec.encode(pack_reply(message))))


def fields(message):
    """Accept and Install compare by identity."""
    return type(message), {
        field.name: getattr(message, field.name) for field in type(message).__attrs_attrs__
    }


@pytest.mark.parametrize("message", REQUESTS + REPLIES, ids=lambda m: type(m).__name__)
def test_messages_come_back_as_they_were(message):
    assert fields(there_and_back(message)) == fields(message)


def test_every_message_has_a_number_and_its_bytes_are_pinned():
    """A failure means a change of format: give the frames a new version, or undo it."""
    assert {type(m) for m in REQUESTS} == set(messages.Request.__args__)
    assert {type(m) for m in REPLIES} == set(messages.Reply.__args__)
    stream = b"".join(request_codec.encode(pack_request(m)) for m in REQUESTS)
    stream += b"".join(reply_codec.encode(pack_reply(m)) for m in REPLIES)
    assert hashlib.blake2b(stream, digest_size=8).hexdigest() == "02673efc1dfef6bf"


def damaged_ballots():
    for bad in (
        Ballot(-1, 0, 0),
        Ballot(MAX_HLC + 1, 0, 0),
        Ballot(0, MAX_LOGICAL + 1, 0),
        Ballot(0, 0, -1),
    ):
        yield Prepare(row=ROW, ballot=bad, epoch=1, bucket_epoch=1)
        yield Learn(row=ROW, ballot=bad)
        version = msgspec.structs.replace(VERSION, stamp=bad)
        part = msgspec.structs.replace(VERSION, parts=(msgspec.structs.replace(PART, intro=bad),))
        for state in (KeyState(versions=(version,)), KeyState(versions=(part,))):
            yield Accept(
                row=ROW, ballot=LOW, epoch=1, bucket_epoch=1, base=BALLOT_ZERO, state=state
            )
            yield Install(row=ROW, ballot=LOW, epoch=1, version=1, state=state, chosen=True)
        yield Install(row=ROW, ballot=bad, epoch=1, version=1, state=STATE, chosen=True)
        yield Have(rows=[RowAt(ROW, LOW), RowAt(ROW, bad)], epoch=1)
        yield Purge(rows=[RowAt(ROW, bad)], epoch=1)
        yield RaiseFloor(floor=bad, epoch=1)
        yield Held([None, bad], 1)
        yield Wants([Want(ROW, bad)], 1)
        yield RowPage([RowAt(ROW, bad)], None)
        yield DropHints(position=0, places=1, rows=[RowAt(ROW, bad)], epoch=1)
        yield SyncPage([], None, bad, 9, [])
        yield Nack(bad)
        yield Promise(Register(ballot=bad))


@pytest.mark.parametrize("message", list(damaged_ballots()))
def test_numbers_that_no_ballot_may_have_are_refused(message):
    with pytest.raises(WireError):
        there_and_back(message)


@pytest.mark.parametrize(
    "row",
    [
        ScanRow(ROW, b"short", 0, b""),
        ScanRow(ROW, LOW.pack() + b"x", 0, b""),
        ScanRow(RowKey(bytes(2000)), None, 0, b""),
    ],
)
def test_a_row_of_a_page_that_cannot_be_one_is_refused(row):
    with pytest.raises(WireError):
        there_and_back(Page([row], None))


@pytest.mark.parametrize(
    "message",
    [
        Query(row=RowKey(bytes(MAX_ROW + 1)), epoch=1, bucket_epoch=1),
        Query(row=ROW, epoch=-2, bucket_epoch=1),
        Query(row=RowKey(b"b" * 16), epoch=1, bucket_epoch=1),
        Query(row=RowKey(b"b" * 16 + b"x"), epoch=1, bucket_epoch=1),
        Query(row=RowKey(b"b" * 16 + b"p" + b"u" * 17), epoch=1, bucket_epoch=1),
        ReadBody(row=ROW, body=BodyId(b"short"), epoch=1),
        Scan(start=ROW, stop=None, limit=0, epoch=1, bucket_epoch=1),
        Scan(start=ROW, stop=None, limit=1_000_000, epoch=1, bucket_epoch=1),
        Fence(bucket=BucketId(b""), bucket_epoch=1),
        Have(rows=[RowAt(RowKey(b"b" * 17), LOW)], epoch=1),
        Purge(rows=[RowAt(ROW, LOW)] * 1025, epoch=1),
        Sync(start=ROW, stop=None, limit=0, max_bytes=1, epoch=1),
        Sync(start=ROW, stop=None, limit=1, max_bytes=0, epoch=1),
        Sync(start=ROW, stop=None, limit=1, max_bytes=1 << 30, epoch=1),
        Wanted(limit=-1, epoch=1),
        Unreferenced(after=DataId(b""), before=DataId(bytes(16)), limit=1, epoch=1),
        Unreferenced(after=DataId(bytes(16)), before=DataId(bytes(16)), limit=0, epoch=1),
        Discard(data=[DataId(b"short")], epoch=1),
        Hints(position=32, after=ROW, stop=None, limit=1, epoch=1),
        Hints(position=0, after=ROW, stop=None, limit=0, epoch=1),
        DropHints(position=-1, places=1, rows=[], epoch=1),
        DropHints(position=0, places=33, rows=[], epoch=1),
        DropHints(position=0, places=1, rows=[RowAt(RowKey(b"b"), LOW)], epoch=1),
        StrayParts(after=ROW, limit=0, epoch=1),
        Known(after=ROW, stop=None, limit=0, epoch=1),
        Unneeded(rows=[RowAt(RowKey(b"b"), LOW)], epoch=1),
        Unneeded(rows=[RowAt(ROW, LOW)] * 1025, epoch=1),
        RowPage([RowAt(RowKey(b"b"), LOW)], None),
        ShardPage([ShardOf(DataId(b"short"), ROW)], None),
        ShardPage([ShardOf(DataId(bytes(16)), RowKey(b"b"))], None),
        Wants([Want(RowKey(b"b"), None)], 1),
        SyncPage([SyncRow(RowKey(b"b"), None, 0, b"", {})], None, LOW, 9, []),
        SyncPage([SyncRow(ROW, b"short", 0, b"", {})], None, LOW, 9, []),
        SyncPage([SyncRow(ROW, None, 0, b"", {BodyId(b"short"): b""})], None, LOW, 9, []),
        SyncPage([], None, LOW, 9, [FenceAt(BucketId(b"short"), 1, False)]),
    ],
    ids=str,
)
def test_fields_out_of_bounds_are_refused(message):
    with pytest.raises(WireError):
        there_and_back(message)


HEADER = Header(b"c" * 16, 1, 2, 3, 4, 5, 6, 7)
WHOLE = [
    rpc.REQUESTS.encode(
        rpc.RequestMessage(
            HEADER,
            rpc.Submit(tuple(rpc.Operation((b"d" * 16,), pack_request(m)) for m in REQUESTS)),
        )
    ),
    rpc.REPLIES.encode(
        rpc.ReplyMessage(
            HEADER, rpc.Answers(tuple(rpc.Answer(0, 0, None, pack_reply(m)) for m in REPLIES))
        )
    ),
]


def read_untrusted(data):
    for codec in (rpc.REQUESTS, rpc.REPLIES, rpc.STAGES):
        try:
            message = codec.decode(data)
            if codec is rpc.REQUESTS and isinstance(message.word, rpc.Submit):
                for operation in message.word.operations:
                    unpack_request(operation.request)
            if codec is rpc.REPLIES and isinstance(message.word, rpc.Answers):
                for answer in message.word.answers:
                    unpack_reply(answer.reply)
        except WireError:
            pass


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_one_error(data):
    read_untrusted(data)


@given(st.sampled_from(WHOLE), st.data())
def test_damaged_messages_are_a_message_or_one_error(whole, data):
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    read_untrusted(bytes(damaged))
    read_untrusted(whole[: data.draw(st.integers(0, len(whole)))])


def test_a_shard_at_a_position_that_its_code_does_not_have_is_refused():
    shard = rpc.Shard(b"d" * 16, ROW, position=6, k=4, m=2, block=65536, codec="c/8")
    with pytest.raises(WireError):
        _ = shard.header
    assert msgspec.structs.replace(shard, position=5).header.position == 5


def test_a_message_over_its_cap_is_not_decoded():
    with pytest.raises(WireError):
        Codec(bytes, 10).decode(msgspec.msgpack.encode(bytes(10)))


def test_a_page_that_is_too_large_says_less():
    rows = [
        ScanRow(RowKey(ROW + bytes([i])), LOW.pack(), CHOSEN | LIVE, bytes(1000)) for i in range(10)
    ]
    page = Page(rows, None)
    assert fit_page(page, 100_000) is page
    cut = fit_page(page, 3500)
    assert list(cut.rows) == rows[:3]
    assert cut.next == rows[3].row
    assert len(fit_page(page, 1).rows) == 1
