"""Detectors in a network of events: loss, delay, partitions, crashes and pauses; a function of its seed."""

import heapq
import itertools
import random

import attrs

from cluster.ids import NodeId
from cluster.membership.detector import Detector
from cluster.membership.messages import decode_heartbeat, encode_heartbeat
from cluster.membership.peers import PeerState

DEADLINE = 5.0  # of a ping


@attrs.define
class Simulated:
    """One node."""

    detector: Detector
    crashed: bool = False
    paused_until: float = 0.0


@attrs.frozen
class Mark:
    """A node took another for offline."""

    at: float
    by: int
    of: int
    silent: float


class Network:
    """All nodes ping all others. `cut` holds the directed links that carry nothing."""

    def __init__(self, nodes, seed, *, loss=0.0, detector=Detector):
        self.rng = random.Random(seed)
        self.now, self.loss = 0.0, loss
        self.cut = set()
        self._events, self._numbers = [], itertools.count()
        self.marks, self.suspicions = [], {}  # (by, of) -> [[from, to], …]
        members = [NodeId(i) for i in range(nodes)]
        self.nodes = [
            Simulated(detector(node, incarnation=100 + node, now=0.0)) for node in members
        ]
        for node in self.nodes:
            node.detector.set_members(0.0, members)
            self.at(self.rng.random(), self._turn, node)

    def at(self, when, what, *args):
        heapq.heappush(self._events, (when, next(self._numbers), what, args))

    def run(self, seconds):
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, what, args = heapq.heappop(self._events)
            what(*args)
        self.now = end

    # -- faults

    def partition(self, *sides):
        self.cut = {
            (a, b) for x, y in itertools.permutations(sides, 2) for a in x for b in y
        }  # fmt: skip

    def heal(self):
        self.cut = set()

    def crash(self, i):
        self.nodes[i].crashed = True

    def pause(self, i, seconds):
        self.nodes[i].paused_until = self.now + seconds

    def restart(self, i):
        node = self.nodes[i]
        incarnation = int(1000 + self.now * 1000)
        members = [NodeId(j) for j in range(len(self.nodes))]
        node.detector = Detector(NodeId(i), incarnation=incarnation, now=self.now)
        node.detector.set_members(self.now, members)
        node.crashed = False

    # -- life

    def _when_awake(self, node, what, *args):
        """True: go on. A paused process takes everything up when it wakes."""
        if node.paused_until > self.now:
            self.at(node.paused_until + self.rng.random() / 1000, what, *args)
            return False
        return not node.crashed

    def _turn(self, node):
        if node.crashed:
            self.at(self.now + 1, self._turn, node)
        elif self._when_awake(node, self._turn, node):
            detector = node.detector
            self._note(node, detector.tick(self.now))
            for peer in detector.due(self.now):
                self._ping(node, peer)
            self.at(max(self.now + 0.01, detector.next_deadline(self.now)), self._turn, node)

    def _ping(self, node, peer):
        ping = encode_heartbeat(node.detector.heartbeat(self.now, 1))
        self._send(node, self.nodes[peer], self._arrives, node, self.nodes[peer], ping, self.now)

    def _send(self, source, target, what, *args):
        link = (source.detector.me, target.detector.me)
        if link not in self.cut and self.rng.random() >= self.loss:
            self.at(self.now + self.rng.expovariate(100), what, *args)

    def _arrives(self, source, target, ping, sent_at):
        if self._when_awake(target, self._arrives, source, target, ping, sent_at):
            self._note(target, target.detector.pinged(self.now, decode_heartbeat(ping)))
            answer = encode_heartbeat(target.detector.heartbeat(self.now, 1))
            self._send(target, source, self._comes_back, source, answer, sent_at)

    def _comes_back(self, source, answer, sent_at):
        awake = self._when_awake(source, self._comes_back, source, answer, sent_at)
        if awake and self.now - sent_at <= DEADLINE:
            heard = decode_heartbeat(answer)
            self._note(source, source.detector.answered(self.now, sent_at, heard))

    def _note(self, node, changes):
        me = node.detector.me
        for change in changes:
            spans = self.suspicions.setdefault((me, change.node), [])
            if change.before is PeerState.ALIVE:
                spans.append([self.now, float("inf")])
            elif change.state is PeerState.ALIVE:
                spans[-1][1] = self.now
            if change.state is PeerState.OFFLINE:
                self.marks.append(Mark(self.now, me, change.node, change.silent_seconds))

    # -- what is seen

    def state(self, by, of):
        return self.nodes[by].detector.peers[NodeId(of)].state

    def suspecting(self, of, start, stop):
        """How many nodes suspected it at some time in that span."""
        return sum(
            any(begin <= stop and end >= start for begin, end in self.suspicions.get((by, of), []))
            for by in range(len(self.nodes))
        )
