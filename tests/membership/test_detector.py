"""Who is marked offline, by whom, and who never is."""

import heapq
import itertools

import attrs
from hypothesis import given, settings, strategies as st

from cluster.membership.detector import Detector, DetectorSettings, Gossip, Health

FAST = DetectorSettings()


def gossip(source, suspects=(), incarnation=0):
    return Gossip(source=source, incarnation=incarnation, suspects=dict.fromkeys(suspects, 0))


def test_a_silent_peer_is_suspect_and_offline_only_with_a_majority():
    table = Detector(1, [1, 2, 3, 4, 5], 0.0)
    for now in range(0, 100, 5):
        for peer in (2, 3, 4):
            table.heard(gossip(peer, [5] if now > 15 and peer != 4 else []), float(now))
        expected = Health.ALIVE if now <= 15 else Health.SUSPECT if now <= 30 else Health.OFFLINE
        assert table.health(5, float(now)) is expected, now
    assert table.table(99.0)[4] is Health.ALIVE


def test_without_more_than_half_of_the_layout_nobody_is_offline():
    table = Detector(1, [1, 2, 3, 4], 0.0)
    for now in range(0, 100, 5):
        table.heard(gossip(2, [4]), float(now))
        table.heard(gossip(3), float(now))
    assert table.health(4, 95.0) is Health.SUSPECT  # two of four


def test_two_nodes_never_mark_each_other():
    table = Detector(1, [1, 2], 0.0)
    assert table.health(2, 1000.0) is Health.SUSPECT


def test_a_refused_connection_makes_suspect_at_once_and_a_word_clears_it():
    table = Detector(1, [1, 2, 3, 4, 5], 0.0)
    table.refused(2, 1.0)
    assert table.health(2, 1.0) is Health.SUSPECT
    table.heard(gossip(2), 2.0)
    assert table.health(2, 2.0) is Health.ALIVE


def test_a_suspected_node_refutes_with_a_higher_incarnation():
    accused = Detector(5, [1, 2, 3, 4, 5], 0.0)
    accused.heard(gossip(1, [5]), 1.0)
    assert accused.gossip(1.0).incarnation == 1
    judge = Detector(1, [1, 2, 3, 4, 5], 0.0)
    for now in range(0, 60, 5):
        judge.heard(gossip(2, [5]), float(now))  # they speak of incarnation 0
        judge.heard(gossip(3, [5]), float(now))
        judge.heard(gossip(4), float(now))
    judge.heard(gossip(5, incarnation=1), 20.0)
    assert judge.health(5, 55.0) is Health.SUSPECT


def test_old_reports_do_not_count():
    table = Detector(1, [1, 2, 3], 0.0)
    table.heard(gossip(2, [3]), 40.0)
    assert table.health(3, 49.0) is Health.OFFLINE
    assert table.health(3, 51.0) is Health.SUSPECT


def test_a_node_that_lags_or_hears_nobody_accuses_nobody():
    alone = Detector(1, [1, 2, 3, 4, 5], 0.0)
    assert alone.is_doubtful(60.0)
    assert not alone.gossip(60.0).suspects
    assert alone.health(2, 60.0) is Health.SUSPECT
    late = Detector(1, [1, 2, 3, 4, 5], 0.0)
    for now in range(0, 40, 5):
        for peer in (2, 3, 4):
            late.heard(gossip(peer, [5]), float(now))
    assert late.health(5, 36.0) is Health.OFFLINE
    late.lagged(3.0, 36.0)
    assert late.health(5, 37.0) is Health.SUSPECT
    assert not late.gossip(37.0).suspects


def test_strangers_and_removed_nodes_have_no_say():
    table = Detector(1, [1, 2, 3], 0.0)
    table.heard(gossip(2, [3]), 40.0)
    table.heard(gossip(9, [3]), 40.0)
    assert table.health(3, 41.0) is Health.OFFLINE
    table.set_members([1, 3, 4], 41.0)
    assert table.health(3, 41.0) is Health.SUSPECT
    assert table.health(4, 41.0) is Health.ALIVE


@attrs.define
class World:
    """Nodes that ping each other every five seconds over a network with delays, losses, cuts and pauses."""

    count: int
    rng: object
    loss: float
    cut: frozenset = frozenset()  # one side of a partition
    dead: frozenset = frozenset()
    now: float = 0.0
    queue: list = attrs.field(factory=list)
    order: object = attrs.field(factory=itertools.count)
    nodes: dict = attrs.field(factory=dict)

    def __attrs_post_init__(self):
        members = range(1, self.count + 1)
        for node in members:
            self.nodes[node] = Detector(node, members, 0.0)
            self.at(self.rng.uniform(0, 5), "ping", node)

    def at(self, when, *what):
        heapq.heappush(self.queue, (when, next(self.order), what))

    def passes(self, a, b):
        return not self.dead & {a, b} and (a in self.cut) == (b in self.cut)

    def run(self, until):
        while self.queue and self.queue[0][0] <= until:
            self.now, _, (kind, *rest) = heapq.heappop(self.queue)
            if kind == "ping":
                (node,) = rest
                self.at(self.now + 5, "ping", node)
                said = self.nodes[node].gossip(self.now)
                for peer in self.nodes:
                    if peer != node and self.passes(node, peer) and self.rng.random() >= self.loss:
                        self.at(self.now + self.rng.uniform(0, 0.5), "word", peer, said)
            elif rest[0] not in self.dead:
                self.nodes[rest[0]].heard(rest[1], self.now)
        self.now = until

    def marked_by(self, node):
        found = self.nodes[node].table(self.now)
        return {peer for peer, health in found.items() if health is Health.OFFLINE}


@given(
    count=st.integers(2, 9), rng=st.randoms(use_true_random=False), loss=st.sampled_from([0.0, 0.1])
)
@settings(max_examples=40, deadline=None)
def test_a_network_that_only_loses_some_pings_marks_nobody(count, rng, loss):
    world = World(count, rng, loss)
    for step in range(1, 13):
        world.run(step * 10.0)
        assert not any(world.marked_by(node) for node in world.nodes)


@given(count=st.integers(3, 9), rng=st.randoms(use_true_random=False), data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_majority_marks_the_dead_and_a_minority_nobody(count, rng, data):
    world = World(count, rng, 0.0)
    world.run(20.0)
    minority = data.draw(st.integers(1, (count - 1) // 2))
    side = frozenset(range(1, minority + 1))
    if data.draw(st.booleans()):
        world.dead = side
    else:
        world.cut = side
    world.run(20.0 + 60.0)
    for node in world.nodes:
        if node not in side:
            assert world.marked_by(node) == side
        elif not world.dead:
            assert not world.marked_by(node)
    world.cut = world.dead = frozenset()
    world.run(80.0 + 30.0)
    assert not any(world.marked_by(node) for node in world.nodes)
