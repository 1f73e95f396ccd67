"""The failure detector: heartbeats to everybody, suspicion, and a verdict that only a majority can give. Pure.

All-to-all pings, since clusters are small: what one hop shows is enough for the majority rule. From SWIM (Das et al.,
2002) comes the incarnation, by which a suspected node that lives refutes; from Lifeguard (Dadgar et al., 2018) the
local health multiplier: a node that is slow itself waits longer and accuses nobody.

Only an answered ping shows life, dated back to when it was sent, and only answers bring reports: so no delay in the
network makes old news look fresh.
"""

from collections.abc import Collection

import attrs

from cluster.ids import NodeId
from cluster.membership.messages import MAX_INCARNATION, Heartbeat, Opinion
from cluster.membership.peers import Peer, PeerInput, PeerState, Report

REFUSALS = 2  # a refused connection and one failed redial


@attrs.frozen(kw_only=True)
class DetectorSettings:
    """Seconds."""

    ping: float = 5.0
    suspect: float = 15.0  # three missed pings
    offline: float = 30.0
    report: float = 10.0  # older reports do not count
    redial: float = 1.0
    tick: float = 1.0  # how often `tick` is called at least
    lag: float = 1.0  # so much later than that, and this node is the slow one
    max_score: int = 8


@attrs.frozen
class PeerChanged:
    """Event: a peer is taken for something else."""

    node: NodeId
    before: PeerState
    state: PeerState
    silent_seconds: float


class Detector:
    """What this node thinks of the others. Fed with (now, what happened); `now` must not go back."""

    def __init__(
        self,
        me: NodeId,
        *,
        incarnation: int,
        now: float,
        settings: DetectorSettings | None = None,
    ) -> None:
        self.me = me
        self.incarnation = incarnation  # the clock in ms at the start: above that of an earlier run
        self.settings = settings if settings is not None else DetectorSettings()
        self.peers: dict[NodeId, Peer] = {}
        self.score = 0  # local health: 0 is well
        self._members = 1
        self._ticked_at = now
        self._better_at = now

    def set_members(self, now: float, nodes: Collection[NodeId]) -> list[PeerChanged]:
        """The layout's nodes, this one among them. A node that is not named any more has left."""
        gone = [peer for node, peer in self.peers.items() if node not in nodes]
        changes = [change for peer in gone for change in self._apply(now, peer, PeerInput.REMOVED)]
        for peer in gone:
            del self.peers[peer.node]
        others = sorted(set(nodes) - {self.me})
        for index, node in enumerate(others):
            if node not in self.peers:  # pings are spread over the interval
                ping_at = now + self.settings.ping * index / len(others)
                self.peers[node] = Peer(node=node, heard_at=now, ping_at=ping_at)
        for peer in self.peers.values():
            for reporter in [node for node in peer.reports if node not in nodes]:
                del peer.reports[reporter]
        self._members = len(others) + 1
        return changes

    # -- what is to be done

    def due(self, now: float) -> list[NodeId]:
        """Whom to ping now; each is due again after the interval."""
        due = [peer for peer in self.peers.values() if peer.ping_at <= now]
        for peer in due:
            peer.ping_at = now + self.settings.ping
        return [peer.node for peer in due]

    def hurry(self, now: float, nodes: Collection[NodeId]) -> None:
        """Make these peers due now: there is news for them."""
        for node in nodes:
            if node in self.peers:
                self.peers[node].ping_at = now

    def next_deadline(self, now: float) -> float:
        """When `tick` and `due` want to be called again, at the latest."""
        soonest = min((peer.ping_at for peer in self.peers.values()), default=now + 1e9)
        return max(now, min(soonest, now + self.settings.tick))

    def heartbeat(self, now: float, epoch: int, layout: bytes = b"") -> Heartbeat:
        """A ping, or the answer to one."""
        accuses = not self.is_impaired(now)
        opinions = []
        for peer in self.peers.values():
            suspect = accuses and peer.state in {PeerState.SUSPECT, PeerState.OFFLINE}
            accused = suspect or self._reports(now, peer) > 0
            opinions.append(Opinion(peer.node, peer.incarnation, suspect, accused))
        return Heartbeat(self.me, self.incarnation, epoch, tuple(opinions), layout)

    # -- what happened

    def pinged(self, now: float, ping: Heartbeat) -> list[PeerChanged]:
        """Somebody pinged this node: it may be told that it is suspected, and refutes. No sign of life: who knows how old."""
        return self._learn(now, ping) if ping.node in self.peers else []

    def answered(self, now: float, sent_at: float, answer: Heartbeat) -> list[PeerChanged]:
        """A ping that was sent at `sent_at` came back."""
        peer = self.peers.get(answer.node)
        if peer is None:
            return []
        changes = self._learn(now, answer)
        for opinion in answer.opinions:
            accused = self.peers.get(opinion.node)
            if accused is None or accused is peer:
                continue
            if opinion.suspect:
                accused.reports[peer.node] = Report(sent_at, opinion.incarnation)
            else:
                accused.reports.pop(peer.node, None)
        peer.epoch = answer.epoch  # may be lower than before: a node whose drives were all replaced
        peer.refusals = 0
        peer.heard_at = max(peer.heard_at, sent_at)
        if now - peer.heard_at < self._suspect_after(now):
            changes += self._apply(now, peer, PeerInput.ANSWERED)
        return changes

    def refused(self, now: float, node: NodeId) -> list[PeerChanged]:
        """No connection to a peer could be made, or it was reset: dial again at once; the second failure is suspicious."""
        peer = self.peers.get(node)
        if peer is None:
            return []
        peer.refusals += 1
        if peer.refusals < REFUSALS:
            peer.ping_at = min(peer.ping_at, now + self.settings.redial)
            return []
        return self._apply(now, peer, PeerInput.SILENT) if peer.state is PeerState.ALIVE else []

    def tick(self, now: float) -> list[PeerChanged]:
        """Time has passed."""
        self._notice_lag(now)
        changes: list[PeerChanged] = []
        for peer in self.peers.values():
            silent = now - peer.heard_at
            if peer.state is PeerState.ALIVE and silent >= self._suspect_after(now):
                changes += self._apply(now, peer, PeerInput.SILENT)
        if not self.is_impaired(now):
            for peer in self.peers.values():
                if self._is_condemned(now, peer):
                    changes += self._apply(now, peer, PeerInput.CONDEMNED)
        return changes

    # -- local health

    def is_impaired(self, now: float) -> bool:
        """Whether it may well be this node that is slow or cut off: then it accuses nobody."""
        return self.score > 0 or self._most_look_dead(now)

    def _most_look_dead(self, now: float) -> bool:
        dead = sum(self._looks_dead(now, peer) for peer in self.peers.values())
        return 2 * dead > len(self.peers)

    def _looks_dead(self, now: float, peer: Peer) -> bool:
        return peer.state is not PeerState.ALIVE or now - peer.heard_at >= self.settings.suspect

    def _multiplier(self, now: float) -> int:
        return 1 + self.score + (1 if self._most_look_dead(now) else 0)

    def _suspect_after(self, now: float) -> float:
        return self.settings.suspect * self._multiplier(now)

    def _notice_lag(self, now: float) -> None:
        """A late tick is this node's fault, and what it did not hear meanwhile is no silence of the others."""
        late = now - self._ticked_at - self.settings.tick
        self._ticked_at = now
        if late > self.settings.lag:
            self.score = min(self.score + 1, self.settings.max_score)
            self._better_at = now + self.settings.ping
            for peer in self.peers.values():
                peer.heard_at = min(now, peer.heard_at + late)
        elif self.score and now >= self._better_at:
            self.score -= 1
            self._better_at = now + self.settings.ping

    # -- verdicts

    def _is_condemned(self, now: float, peer: Peer) -> bool:
        if peer.state is not PeerState.SUSPECT:
            return False
        if now - peer.heard_at < self.settings.offline * self._multiplier(now):
            return False
        return 2 * (self._reports(now, peer) + 1) > self._members  # this node suspects it, too

    def _reports(self, now: float, peer: Peer) -> int:
        """How many others suspect it, by what is not too old and not refuted."""
        return sum(
            now - report.at <= self.settings.report and report.incarnation >= peer.incarnation
            for report in peer.reports.values()
        )

    def _learn(self, now: float, heartbeat: Heartbeat) -> list[PeerChanged]:
        changes = self._incarnate(now, heartbeat.node, heartbeat.incarnation)
        for opinion in heartbeat.opinions:
            if opinion.node != self.me:
                changes += self._incarnate(now, opinion.node, opinion.incarnation)
            elif opinion.incarnation > self.incarnation or (
                opinion.accused and opinion.incarnation == self.incarnation
            ):
                self.incarnation = min(opinion.incarnation + 1, MAX_INCARNATION)
        return changes

    def _incarnate(self, now: float, node: NodeId, incarnation: int) -> list[PeerChanged]:
        """Only the node itself raises its incarnation: a higher one is a sign of life, whoever brings it."""
        peer = self.peers.get(node)
        if peer is None or incarnation <= peer.incarnation:
            return []
        peer.incarnation = incarnation
        peer.refusals = 0
        peer.heard_at = now
        return self._apply(now, peer, PeerInput.REFUTED)

    def _apply(self, now: float, peer: Peer, happened: PeerInput) -> list[PeerChanged]:
        before = peer.state
        if peer.apply(happened):
            return [PeerChanged(peer.node, before, peer.state, now - peer.heard_at)]
        return []
