"""Versions of a key: the mutations against a slow model, the order by stamps, and at most once."""

import attrs
import pytest
from hypothesis import given, strategies as st

from cluster.clock import BALLOT_ZERO, Ballot
from cluster.ids import DataId, OpId, UploadId
from cluster.quorum import of_all
from cluster.register import mutations
from cluster.register.messages import Promise
from cluster.register.mutations import (
    Absent,
    CompleteUpload,
    DeleteVersion,
    OpenUpload,
    PutVersion,
    RoomForVersion,
    Unchanged,
    ValidatorIn,
    apply,
    check,
    find_version,
    record_data,
    removed_data,
)
from cluster.register.proposer import Committed, Operation, Proposer
from cluster.register.records import (
    EMPTY,
    BodyId,
    BodyRef,
    Part,
    Register,
    Upload,
    Version,
)
from tests.register.test_mutations import ROW

MARKER = "marker"


def template(name, *, marker=False, data=None, body=None):
    parts = ()
    if data is not None:
        parts = (
            Part(
                number=1, size=1, validator=name, attributes=b"", data_id=data, intro=BALLOT_ZERO, codec="c", set_id=0, k=1, m=0,
                block=1, staged=1, digest_root=b"",
            ),
        )  # fmt: skip
    return Version(
        version_id=None, delete_marker=marker, stamp=BALLOT_ZERO, op_hlc=0, size=0, validator=name, attributes=b"", mtime_ms=1,
        body=body, parts=parts,
    )  # fmt: skip


def ballot(number):
    return Ballot(1000 + number, 0, 7)


@attrs.define
class Model:
    """A list of versions, oldest first: number of the step, and whether it is the null version or a marker."""

    versions: list[tuple[int, bool, bool]] = attrs.field(factory=list)

    def put(self, number, *, named, marker=False):
        if not named:
            self.versions = [v for v in self.versions if not v[1]]
        self.versions.append((number, not named, marker))

    def delete(self, number):
        """By the step that made it; None: the null version."""
        gone = [v for v in self.versions if (v[1] if number is None else v[0] == number)]
        self.versions = [v for v in self.versions if v not in gone]
        return gone


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "mark", "complete", "delete", "delete-null"]),
        st.booleans(),
        st.integers(0, 30),
    ),
    max_size=30,
)


@given(STEPS)
def test_versions_are_what_a_list_of_them_says(steps):
    state, model = EMPTY, Model()
    for number, (kind, named, pick) in enumerate(steps):
        before, data = state, DataId(b"%016d" % number)
        name = str(number)
        match kind:
            case "put":
                new = apply(
                    PutVersion(version=template(name, data=data), named=named),
                    state,
                    ballot(number),
                )
                model.put(number, named=named)
            case "mark":
                new = apply(
                    PutVersion(version=template(name, marker=True), named=named),
                    state,
                    ballot(number),
                )
                model.put(number, named=named, marker=True)
            case "complete":
                upload = Upload(UploadId(b"%016d" % number), BALLOT_ZERO, b"", 1)
                opened = apply(OpenUpload(upload=upload), state, ballot(number))
                done = CompleteUpload(
                    upload_id=upload.upload_id, version=template(name, data=data), named=named
                )
                new = apply(done, opened, ballot(number))
                assert not new.uploads
                assert new.done[-1].stamp == new.versions[0].stamp
                model.put(number, named=named)
            case "delete":
                made = pick % (number + 1)
                new = apply(DeleteVersion(version_id=ballot(made).pack()), state, ballot(number))
                named_before = [v for v in model.versions if v[0] == made and not v[1]]
                assert isinstance(new, Unchanged) == (not named_before)
                if named_before:
                    model.delete(made)
            case _:
                new = apply(DeleteVersion(), state, ballot(number))
                assert isinstance(new, Unchanged) == (not model.delete(None))
        state = before if isinstance(new, Unchanged) else new
        agree(state, model)
        stay = record_data(state)
        assert set(removed_data(before, state)) == record_data(before) - stay


def agree(state, model):
    expected = model.versions[::-1]
    assert [
        (int(v.validator), v.version_id is None, v.delete_marker) for v in state.versions
    ] == expected
    stamps = [v.stamp for v in state.versions]
    assert stamps == sorted(set(stamps), reverse=True)
    for version in state.versions:
        assert version.version_id in {None, version.stamp.pack()}
        assert find_version(state, version.version_id) == version
    live = state.live
    assert (live is None) == (not expected or expected[0][2])
    # Preconditions are about the current version, whatever lies below it.
    assert (check((Absent(),), state) is None) == (live is None)
    for number, _, _ in expected[1:]:
        refused = check((ValidatorIn(validators=(str(number),)),), state)
        assert refused is not None


def test_deleting_the_newest_makes_the_next_one_live_again():
    state = EMPTY
    for number in range(3):
        state = apply(PutVersion(version=template(str(number)), named=True), state, ballot(number))
    state = apply(PutVersion(version=template("", marker=True), named=True), state, ballot(3))
    assert state.live is None
    state = apply(DeleteVersion(version_id=ballot(3).pack()), state, ballot(4))
    assert state.live.validator == "2"
    state = apply(DeleteVersion(version_id=ballot(2).pack()), state, ballot(5))
    assert state.live.validator == "1"


def promised(proposer, number, register):
    proposer.begin(ballot(number), 1, of_all(1))
    return proposer.on_reply(0, Promise(register), to=ballot(number))


def operation(mutation):
    return Operation(row=ROW, bucket_epoch=1, op_id=OpId(b"o" * 16), op_hlc=1000, mutation=mutation)


def test_a_version_that_is_proposed_again_is_there_once_with_its_first_stamp():
    proposer = Proposer(operation(PutVersion(version=template("v"), named=True)))
    sent = promised(proposer, 1, Register()).message
    assert [v.version_id for v in sent.state.versions] == [ballot(1).pack()]
    # Accepted, and the answer lost; somebody else put another version meanwhile.
    other = apply(PutVersion(version=template("w"), named=True), sent.state, ballot(2))
    step = promised(proposer, 3, Register(ballot=ballot(2), state=other, chosen=True))
    assert isinstance(step, Committed)
    assert step.stamp == ballot(1)
    assert [v.validator for v in step.state.versions] == ["w", "v"]


def test_a_deletion_by_id_that_is_proposed_again_does_not_touch_what_came_later():
    base = apply(PutVersion(version=template("old")), EMPTY, ballot(0))
    proposer = Proposer(operation(DeleteVersion()))
    sent = promised(proposer, 1, Register(ballot=ballot(0), state=base, chosen=True)).message
    assert sent.state.versions == ()
    later = apply(PutVersion(version=template("new")), sent.state, ballot(2))
    step = promised(proposer, 3, Register(ballot=ballot(2), state=later, chosen=True))
    assert isinstance(step, Committed)
    assert step.state.live.validator == "new"


def test_a_confirmation_changes_no_stamp():
    state = EMPTY
    for number in range(3):
        state = apply(PutVersion(version=template(str(number)), named=True), state, ballot(number))
    proposer = Proposer(operation(None))
    proposer.begin(ballot(9), 1, of_all(3))
    unchosen = Register(ballot=ballot(2), state=state)
    assert proposer.on_reply(0, Promise(unchosen), to=ballot(9)) is None
    sent = proposer.on_reply(1, Promise(Register()), to=ballot(9)).message
    assert sent.state == state


@pytest.mark.parametrize("size", [0, 4096])
def test_a_key_takes_no_more_versions_than_fit_a_message(size, monkeypatch):
    monkeypatch.setattr(mutations, "MAX_VERSIONS", 100)
    monkeypatch.setattr(mutations, "MAX_RECORD_BYTES", 200_000)
    state, room = EMPTY, (RoomForVersion(),)
    while check(room, state) is None:
        body = BodyRef(BodyId(b"b" * 16), size, bytes(16)) if size else None
        put = PutVersion(version=template("v", body=body), named=True)
        state = apply(put, state, ballot(len(state.versions)))
    assert check(room, state).reason == "no-room"
    assert len(state.versions) == (100 if size == 0 else 48)
    smaller = apply(DeleteVersion(version_id=state.versions[-1].version_id), state, ballot(500))
    assert check(room, smaller) is None
