"""Preconditions and mutations as a table, and the acceptor's rules one by one."""

import attrs
import pytest

from cluster.clock import BALLOT_ZERO, Ballot, HybridClock, floor_at
from cluster.ids import BucketId, DataId, UploadId
from cluster.register.acceptor import (
    CORRUPT,
    Acceptor,
    Control,
    Limits,
    Promised,
    Write,
    collectable,
)
from cluster.register.keys import (
    object_key,
    object_row,
    part_number,
    part_row,
    successor,
    system_row,
)
from cluster.register.messages import (
    Accept,
    Accepted,
    Expired,
    Fence,
    Learn,
    Nack,
    NeedBodies,
    NotVoting,
    Prepare,
    StaleBucket,
    StaleEpoch,
)
from cluster.register.mutations import (
    AbortUpload,
    Absent,
    CompleteUpload,
    DeleteVersion,
    HeadIs,
    OpenUpload,
    Present,
    PutVersion,
    Unchanged,
    UploadOpen,
    ValidatorIn,
    ValidatorNotIn,
    apply,
    check,
    removed_data,
)  # fmt: skip
from cluster.register.records import (
    BOTTOM,
    EMPTY,
    Applied,
    BodyId,
    BodyRef,
    KeyState,
    Part,
    Register,
    Upload,
    Version,
    decode_state,
    encode_state,
)  # fmt: skip

B1, B2, B3 = (Ballot(n * 1000, 0, 7) for n in (1, 2, 3))
BUCKET = BucketId(b"b" * 16)
ROW = object_row(BUCKET, b"k")
UPLOAD = UploadId(b"u" * 16)


def data_id(ms, tail=b"0"):
    return DataId(ms.to_bytes(6, "big") + tail * 10)


def part(data, **changes):
    base = Part(
        number=1, size=1, validator="p", attributes=b"", data_id=data, intro=BALLOT_ZERO, codec="c", set_id=0, k=4, m=2, block=1,
        staged=0b111111, digest_root=b"",
    )  # fmt: skip
    return attrs_replace(base, **changes)


def attrs_replace(struct, **changes):
    import msgspec

    return msgspec.structs.replace(struct, **changes)


def version(validator="e", **changes):
    base = Version(
        version_id=None,
        delete_marker=False,
        stamp=BALLOT_ZERO,
        op_hlc=900,
        size=1,
        validator=validator,
        attributes=b"",
        mtime_ms=5,
    )
    return attrs_replace(base, **changes)


LIVE = KeyState(versions=(version("live", stamp=B1),))
MARKED = KeyState(versions=(version("gone", delete_marker=True, stamp=B1),))
OPEN = KeyState(uploads=(Upload(upload_id=UPLOAD, created=B1, attributes=b"", mtime_ms=1),))


@pytest.mark.parametrize(
    ("condition", "base", "reason"),
    [
        (Absent(), EMPTY, None),
        (Absent(), MARKED, None),
        (Absent(), LIVE, "exists"),
        (Present(), LIVE, None),
        (Present(), MARKED, "absent"),
        (ValidatorIn(validators=("x", "live")), LIVE, None),
        (ValidatorIn(validators=("x",)), LIVE, "mismatch"),
        (ValidatorIn(validators=("gone",)), MARKED, "absent"),
        (ValidatorNotIn(validators=("live",)), LIVE, "exists"),
        (ValidatorNotIn(validators=("live",)), EMPTY, None),
        (HeadIs(stamp=B1), LIVE, None),
        (HeadIs(stamp=B2), LIVE, "changed"),
        (HeadIs(stamp=None), EMPTY, None),
        (UploadOpen(upload_id=UPLOAD), OPEN, None),
        (UploadOpen(upload_id=UPLOAD), EMPTY, "no-upload"),
    ],
)
def test_preconditions(condition, base, reason):
    refusal = check((condition,), base)
    assert (refusal.reason if refusal else None) == reason


def test_put_replaces_and_stamps_and_clamps_the_time():
    new = apply(PutVersion(version=version("n", mtime_ms=1, parts=(part(data_id(1)),))), LIVE, B2)
    assert [v.validator for v in new.versions] == ["n"]
    assert new.live.stamp == B2
    assert new.live.parts[0].intro == B2
    assert new.live.mtime_ms == 5


def test_delete_of_nothing_changes_nothing():
    assert isinstance(apply(DeleteVersion(), OPEN, B2), Unchanged)
    assert apply(DeleteVersion(), LIVE, B2).is_tombstone


def test_an_upload_is_opened_completed_and_remembered():
    opened = apply(OpenUpload(upload=OPEN.uploads[0]), LIVE, B2)
    assert opened.uploads[0].created == B2
    assert opened.live is not None
    whole = version("whole", parts=(part(data_id(1), intro=B1),), upload_id=UPLOAD)
    done = apply(CompleteUpload(upload_id=UPLOAD, version=whole), opened, B3)
    assert not done.uploads
    assert done.live.parts[0].intro == B1
    assert done.done[-1].upload_id == UPLOAD
    assert apply(AbortUpload(upload_id=UPLOAD), opened, B3).uploads == ()
    assert removed_data(done, EMPTY) == (data_id(1),)


def test_states_survive_their_encoding():
    state = apply(
        CompleteUpload(upload_id=UPLOAD, version=version("w", parts=(part(data_id(1)),))), OPEN, B2
    )
    assert decode_state(encode_state(state)) == state


def test_row_names_come_apart_again():
    assert object_key(ROW) == b"k"
    assert part_number(part_row(BUCKET, UPLOAD, 513)) == 513
    assert system_row(b"a") < ROW
    assert successor(b"a\xff") == b"b"
    assert successor(b"\xff") is None


# -- the acceptor


def acceptor(**control):
    return Acceptor(
        Control(**control), set_id=0, position=1, limits=Limits(op_ttl_ms=500, max_put_ms=2000)
    )


def prepare(ballot, **changes):
    return attrs.evolve(Prepare(row=ROW, ballot=ballot, epoch=1, bucket_epoch=1), **changes)


def accept(ballot, state=LIVE, **changes):
    return attrs.evolve(
        Accept(row=ROW, ballot=ballot, epoch=1, bucket_epoch=1, base=BALLOT_ZERO, state=state),
        **changes,
    )


def test_a_promise_rules_out_what_is_older():
    a = acceptor()
    assert a.prepare(prepare(B2), BOTTOM).ceiling_ms == 3000
    assert a.prepare(prepare(B2), BOTTOM) == Nack(B2)
    assert a.prepare(prepare(B1), BOTTOM) == Nack(B2)
    assert a.accept(accept(B1), BOTTOM, ()) == Nack(B2)
    assert isinstance(a.accept(accept(B2), BOTTOM, ()), Write)


def test_promises_survive_a_restart_by_the_ceiling():
    a = acceptor()
    a.prepare(prepare(B2), BOTTOM)
    again = Acceptor(a.control, set_id=0, position=1)
    assert isinstance(again.prepare(prepare(B2), BOTTOM), Nack)
    assert isinstance(again.accept(accept(B2), BOTTOM, ()), Nack)
    assert isinstance(again.prepare(prepare(Ballot(3001, 0, 1)), BOTTOM), Promised)


def test_forgotten_promises_are_covered_by_a_floor():
    a = Acceptor(Control(), set_id=0, position=0, limits=Limits(promises_kept=1))
    a.prepare(prepare(B2), BOTTOM)
    a.prepare(prepare(B1, row=object_row(BUCKET, b"other")), BOTTOM)
    assert isinstance(a.accept(accept(B1), BOTTOM, ()), Nack)


def test_a_duplicate_accept_leaves_the_chosen_flag_alone():
    held = Register(ballot=B2, state=LIVE, chosen=True)
    assert isinstance(acceptor().accept(accept(B2), held, ()), Accepted)


def test_other_epochs_and_fenced_buckets_are_refused():
    a = acceptor()
    assert a.prepare(prepare(B1, epoch=2), BOTTOM) == StaleEpoch(1)
    assert a.fence(Fence(bucket=BUCKET, bucket_epoch=2))
    assert not a.fence(Fence(bucket=BUCKET, bucket_epoch=2))
    assert a.prepare(prepare(B1), BOTTOM) == StaleBucket(2)
    assert a.accept(accept(B1), BOTTOM, ()) == StaleBucket(2)
    assert isinstance(a.prepare(prepare(B1, bucket_epoch=2), BOTTOM), Promised)


def test_the_age_rule():
    a = acceptor()
    old = KeyState(versions=(version(stamp=B2, op_hlc=1499),))
    assert isinstance(a.accept(accept(B2, old), BOTTOM, ()), Expired)
    fresh = KeyState(
        versions=(version(stamp=B2, op_hlc=1500, parts=(part(data_id(0), intro=B2),)),)
    )
    assert isinstance(a.accept(accept(B2, fresh), BOTTOM, ()), Write)
    stale_data = KeyState(
        versions=(version(stamp=B3, op_hlc=2900, parts=(part(data_id(0), intro=B3),)),)
    )
    assert isinstance(a.accept(accept(B3, stale_data), BOTTOM, ()), Expired)


def test_missing_bodies_are_asked_for_and_missing_shards_are_debt():
    a = acceptor()
    body = BodyRef(id=BodyId(b"i" * 16), size=1, digest=b"")
    state = KeyState(versions=(version(stamp=B2, op_hlc=2000, body=body),))
    assert isinstance(a.accept(accept(B2, state), BOTTOM, ()), NeedBodies)
    assert isinstance(a.accept(accept(B2, state), BOTTOM, (body.id,)), Write)
    unstaged = KeyState(
        versions=(
            version(stamp=B3, op_hlc=3000, parts=(part(data_id(2999), intro=B3, staged=0b111101),)),
        )
    )
    assert len(a.accept(accept(B3, unstaged), BOTTOM, ()).debt) == 1


def test_a_corrupt_row_gives_no_vote_and_is_repaired_from_above():
    a = acceptor(ceiling_ms=1500)
    assert isinstance(a.prepare(prepare(B2), CORRUPT), NotVoting)
    assert isinstance(a.accept(accept(Ballot(1500, 0, 1)), CORRUPT, ()), NotVoting)
    assert isinstance(a.accept(accept(B2), CORRUPT, ()), Write)


def test_learning_marks_only_the_ballot_that_is_held():
    a = acceptor()
    held = Register(ballot=B2, state=LIVE)
    assert a.learn(Learn(row=ROW, ballot=B2), held).register.chosen
    assert a.learn(Learn(row=ROW, ballot=B3), held) is None
    assert a.misses(Learn(row=ROW, ballot=B3), held)
    assert a.learn(Learn(row=ROW, ballot=B2), attrs_replace(held, chosen=True)) is None


def test_what_may_be_collected():
    limits = Limits(op_ttl_ms=500, max_put_ms=2000)
    used, gone = data_id(1), data_id(1000)
    ring = (Applied(op_id=b"o" * 16, ballot=B2, removed=(gone,)),)
    chosen = Register(
        ballot=B2, state=KeyState(versions=(version(parts=(part(used),)),), ring=ring), chosen=True
    )
    assert not collectable(chosen, used, seen_chosen=True, limits=limits)
    assert collectable(chosen, gone, seen_chosen=False, limits=limits)
    assert collectable(chosen, data_id(1500), seen_chosen=True, limits=limits)
    assert not collectable(chosen, data_id(1500), seen_chosen=False, limits=limits)
    late = attrs_replace(chosen, ballot=Ballot(9000, 0, 1))
    assert collectable(late, data_id(1500), seen_chosen=False, limits=limits)


def test_the_clock_only_rises():
    wall = [5000]
    clock = HybridClock(lambda: wall[0], 7)
    first = clock.tick()
    wall[0] = 10
    second = clock.tick()
    clock.see(Ballot(9000, 3, 1))
    assert first < second < clock.tick()
    assert clock.tick() > Ballot(9000, 3, 1)
    assert Ballot.unpack(first.pack()) == first
    assert (first.pack() < second.pack()) == (first < second)
    assert floor_at(5000) > first
