"""The failure detector: its table by hand, its promises in simulated networks."""

import pytest
from hypothesis import given, settings, strategies as st

from cluster.ids import NodeId
from cluster.membership.detector import Detector
from cluster.membership.messages import (
    MAX_HEARTBEAT_BYTES,
    Heartbeat,
    HeartbeatError,
    Opinion,
    decode_heartbeat,
    encode_heartbeat,
)
from cluster.membership.peers import TRANSITIONS, Peer, PeerInput, PeerState
from tests.membership.nodes import DEADLINE, Network

ME, A, B, C, D = (NodeId(i) for i in range(5))


def detector(nodes=5):
    made = Detector(ME, incarnation=100, now=0.0)
    made.set_members(0.0, [NodeId(i) for i in range(nodes)])
    return made


def answer(node, *suspected, incarnation=1, at=1):
    opinions = tuple(Opinion(s, at, True, True) for s in suspected)
    return Heartbeat(node, incarnation, 1, opinions)


def live(d, now, *nodes, suspect=()):
    """A second of which every one of these answers."""
    d.tick(now)
    for node in nodes:
        d.answered(now, now, answer(node, *suspect))


def state(d, node):
    return d.peers[node].state


def test_three_missed_pings_are_suspicious_and_an_answer_clears():
    d = detector()
    for now in range(15):
        live(d, now, A, B, C)
    assert state(d, D) is PeerState.ALIVE
    changes = d.tick(15.0)
    assert [(c.node, c.before, c.state) for c in changes] == [
        (D, PeerState.ALIVE, PeerState.SUSPECT)
    ]
    d.answered(16.0, 15.9, answer(D))
    assert state(d, D) is PeerState.ALIVE


def test_a_refused_redial_is_suspicious_at_once_and_is_tried_at_once():
    d = detector()
    assert set(d.due(0.0)) == {A}
    d.refused(0.1, A)
    assert state(d, A) is PeerState.ALIVE
    assert A in d.due(1.2)
    d.refused(1.3, A)
    assert state(d, A) is PeerState.SUSPECT


def test_pings_are_spread_and_repeated():
    d = detector()
    asked = [(now / 4, node) for now in range(40) for node in d.due(now / 4)]
    assert [node for _, node in asked] == [A, B, C, D] * 2
    assert len({now for now, _ in asked}) == 8
    assert d.next_deadline(9.9) <= 10.9


@pytest.mark.parametrize(
    ("reporters", "old", "offline"),
    [((A, B), 0, True), ((A,), 0, False), ((), 0, False), ((A, B), 11, False)],
)
def test_offline_needs_long_silence_and_more_than_half_of_all_nodes(reporters, old, offline):
    d = detector()
    for now in range(31):
        d.tick(now)
        for node in (A, B, C):
            told = (D,) if node in reporters and now <= 30 - old else ()
            if node in reporters and now > 30 - old:
                d.peers[node].heard_at = now  # it lives, but has told nothing lately
            else:
                d.answered(now, now, answer(node, *told))
    d.tick(31.0)
    assert (state(d, D) is PeerState.OFFLINE) is offline


def test_majority_alone_does_not_do_before_thirty_seconds():
    d = detector()
    for now in range(29):
        live(d, now, A, B, C, suspect=(D,))
    assert state(d, D) is PeerState.SUSPECT


def test_a_suspected_node_refutes_by_a_higher_incarnation():
    d = detector()
    d.pinged(1.0, Heartbeat(A, 1, 1, (Opinion(ME, 100, True, True),)))
    assert d.incarnation == 101
    d.pinged(2.0, Heartbeat(B, 1, 1, (Opinion(ME, 100, True, True),)))  # late: already refuted
    assert d.incarnation == 101
    d.pinged(2.0, Heartbeat(NodeId(77), 1, 1, (Opinion(ME, 101, True, True),)))  # no member
    assert d.incarnation == 101


def test_a_refutation_heard_from_others_clears_and_voids_reports():
    d = detector()
    for now in range(29):
        live(d, now, A, B, C, suspect=(D,))
    gossip = Heartbeat(A, 1, 1, (Opinion(D, 2, False, False),))
    changes = d.pinged(29.0, gossip)
    assert [c.state for c in changes] == [PeerState.ALIVE]
    for now in range(30, 65):  # B and C go on about the old incarnation; A does not suspect it
        d.tick(now)
        for node in (B, C):
            d.answered(now, now, answer(node, D))
        d.answered(now, now, Heartbeat(A, 1, 1, (Opinion(D, 2, False, False),)))
    assert state(d, D) is PeerState.SUSPECT


def test_a_slow_node_waits_longer_and_accuses_nobody():
    d = detector()
    for now in range(14):
        live(d, now, A, B, C)
    d.tick(60.0)  # it slept for 46 s
    assert all(peer.state is PeerState.ALIVE for peer in d.peers.values())
    assert d.score == 1
    for now in range(61, 64):
        live(d, now, A, B, C, suspect=(D,))
    assert (
        state(d, D) is PeerState.ALIVE
    )  # its silence counts 17 s of the clock's 63, and twice the patience
    assert not any(o.suspect for o in d.heartbeat(63.0, 1).opinions)
    for now in range(64, 95):
        live(d, now, A, B, C, suspect=(D,))
    assert d.score == 0
    assert state(d, D) is PeerState.OFFLINE


def test_a_node_that_loses_most_others_accuses_nobody():
    d = detector()
    for now in range(60):
        live(d, now, A, suspect=(B, C, D))
    assert d.is_impaired(60.0)
    assert [state(d, n) for n in (A, B, C, D)] == [PeerState.ALIVE] + [PeerState.SUSPECT] * 3
    assert not any(o.suspect for o in d.heartbeat(60.0, 1).opinions)


def test_a_late_answer_is_no_sign_of_life():
    d = detector()
    live(d, 0.0, D)
    for now in range(40):
        live(d, now, A, B, C)
    d.answered(40.0, 1.0, answer(D))
    assert state(d, D) is PeerState.SUSPECT


def test_reports_of_old_answers_do_not_count():
    d = detector()
    live(d, 0.0, D)
    for now in range(41):
        live(d, now, A, B, C)
    for node in (A, B, C):
        d.answered(41.0, 30.0, answer(node, D))
    d.tick(41.5)
    assert state(d, D) is PeerState.SUSPECT


def test_a_removed_node_has_left_and_its_reports_with_it():
    d = detector()
    d.answered(1.0, 1.0, answer(A, D))
    changes = d.set_members(2.0, [ME, B, C, D])
    assert [(c.node, c.state) for c in changes] == [(A, PeerState.LEFT)]
    assert A not in d.peers
    assert not d.peers[D].reports
    assert d.answered(3.0, 3.0, answer(A)) == []
    assert d.refused(3.0, A) == []


def test_a_pair_that_is_not_in_the_table_is_a_bug():
    for one in PeerState:
        for happened in PeerInput:
            peer = Peer(node=A, heard_at=0.0, ping_at=0.0, state=one)
            if (one, happened) in TRANSITIONS:
                peer.apply(happened)
                assert peer.state is TRANSITIONS[one, happened]
            else:
                with pytest.raises(AssertionError):
                    peer.apply(happened)


# -- messages


def test_heartbeats_come_back_as_they_were():
    sent = Heartbeat(A, 7, 3, (Opinion(B, 1, True, True), Opinion(C, 2, False, True)), b"layout")
    assert decode_heartbeat(encode_heartbeat(sent)) == sent
    assert (
        encode_heartbeat(sent)
        == b"\x01\x95\x01\x07\x03\x92\x94\x02\x01\xc3\xc3\x94\x03\x02\xc2\xc3\xc4\x06layout"
    )


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"\x02",
        b"\x01",
        b"\x01\x90",
        bytes(MAX_HEARTBEAT_BYTES + 1),
        encode_heartbeat(Heartbeat(NodeId(-1), 1, 1)),
        encode_heartbeat(Heartbeat(NodeId(1 << 32), 1, 1)),
        encode_heartbeat(Heartbeat(A, 1 << 48, 1)),
        encode_heartbeat(Heartbeat(A, 1, 0)),
        encode_heartbeat(Heartbeat(A, 1, 1, (Opinion(B, -1, True, True),))),
        encode_heartbeat(Heartbeat(A, 1, 1, (Opinion(B, 1, True, True),) * 1025)),
        encode_heartbeat(Heartbeat(A, 1, 1)) + b"x",
    ],
)
def test_bad_heartbeats_are_refused_by_name(bad):
    with pytest.raises(HeartbeatError):
        decode_heartbeat(bad)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_heartbeat_or_refused(junk):
    for data in (junk, b"\x01" + junk):
        try:
            decode_heartbeat(data)
        except HeartbeatError:
            continue


# -- simulated networks


def check_marks(network):
    """Every verdict was one of more than half of the nodes, after 30 s of silence."""
    for mark in network.marks:
        assert mark.silent >= 30
        supporters = network.suspecting(mark.of, mark.at - 10 - DEADLINE, mark.at)
        assert 2 * supporters > len(network.nodes), mark


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data())
def test_a_minority_never_marks_anyone_offline(data):
    size = data.draw(st.integers(1, 7))
    network = Network(
        size, data.draw(st.integers(0, 1 << 30)), loss=data.draw(st.sampled_from([0, 0.1, 0.3]))
    )
    network.run(data.draw(st.integers(0, 30)))
    sides = [set() for _ in range(data.draw(st.integers(2, 3)))]
    for node in range(size):
        data.draw(st.sampled_from(sides)).add(node)
    network.partition(*sides)
    cut_at = network.now
    network.run(150)
    check_marks(network)
    for mark in network.marks:
        side = next(side for side in sides if mark.by in side)
        assert 2 * len(side) > size or mark.at < cut_at + 10 + DEADLINE, mark
    network.heal()
    network.loss = 0.0
    network.run(150)
    alive = {network.state(a, b) for a in range(size) for b in range(size) if a != b}
    assert alive <= {PeerState.ALIVE}


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(3, 8), st.integers(0, 1 << 30), st.data())
def test_a_crashed_minority_is_offline_for_all_others_and_comes_back(size, seed, data):
    network = Network(size, seed, loss=data.draw(st.sampled_from([0, 0.05])))
    network.run(20)
    dead = set(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=(size - 1) // 2)))
    for node in dead:
        network.crash(node)
    network.run(60)
    for a in set(range(size)) - dead:
        assert all(network.state(a, b) is PeerState.OFFLINE for b in dead)
    assert {mark.of for mark in network.marks} == dead
    check_marks(network)
    for node in dead:
        network.restart(node)
    network.run(20)
    assert all(network.state(a, b) is PeerState.ALIVE for a in range(size) for b in dead - {a})


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(3, 7), st.integers(0, 1 << 30), st.data())
def test_a_node_that_sleeps_condemns_nobody_when_it_wakes(size, seed, data):
    network = Network(size, seed)
    network.run(data.draw(st.integers(0, 30)))
    sleepers = set(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=size)))
    for node in sleepers:
        network.pause(node, data.draw(st.floats(1, 120)))
    network.run(200)
    assert {mark.of for mark in network.marks} <= sleepers
    assert not {
        mark.by for mark in network.marks if mark.by in sleepers and mark.of not in sleepers
    }
    check_marks(network)
    assert all(
        network.state(a, b) is PeerState.ALIVE for a in range(size) for b in range(size) if a != b
    )


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(4, 7), st.integers(0, 1 << 30), st.data())
def test_a_node_that_one_peer_still_reaches_is_not_condemned(size, seed, data):
    """The one that reaches it carries its refutations to the others."""
    network = Network(size, seed)
    network.run(20)
    friend = data.draw(st.integers(1, size - 1))
    strangers = set(range(1, size)) - {friend}
    network.cut = {(0, s) for s in strangers} | {(s, 0) for s in strangers}
    network.run(150)
    assert 0 not in {mark.of for mark in network.marks}
    check_marks(network)


class _NoMajority(Detector):
    """Condemns alone: what the majority rule is there against."""

    def _is_condemned(self, now, peer):
        return peer.state is PeerState.SUSPECT and now - peer.heard_at >= 30


class _NoHealth(Detector):
    """Takes its own sleep for the others' silence."""

    def _notice_lag(self, now):
        self._ticked_at = now

    def _most_look_dead(self, now):
        return False


def test_the_checks_notice_a_detector_without_the_majority_rule():
    network = Network(5, 1, detector=_NoMajority)
    network.partition({0, 1}, {2, 3, 4})
    network.nodes[0].detector._most_look_dead = lambda now: False
    network.run(100)
    assert any(mark.by in {0, 1} for mark in network.marks)
    with pytest.raises(AssertionError):
        check_marks(network)


def test_without_local_health_a_sleeper_accuses_the_living():
    def accusations(kind):
        network = Network(5, 3, detector=kind)
        network.run(20)
        network.pause(0, 60)
        network.run(61)
        return sum(len(network.suspicions.get((0, of), [])) for of in range(1, 5))

    assert accusations(Detector) == 0
    assert accusations(_NoHealth) > 0
