"""The heartbeat detector of one node. Pure: it is told what was heard and when, and asked for what it thinks.

Everybody pings everybody, and tells whom it suspects. A peer is OFFLINE when it was silent for long enough and more than half of the
layout's nodes say so too: the smaller side of a partition never marks anyone. Three ideas against false alarms: a suspected
node refutes with a higher incarnation (SWIM, Das et al., 2002); a node that is late itself, or to which most peers look dead,
accuses nobody (Lifeguard, Dadgar et al., 2018); and reports age.
"""

import enum
from collections.abc import Collection, Mapping

import attrs

from cluster.ids import NodeId


class Health(enum.Enum):
    """What a node thinks of a peer."""

    ALIVE = "alive"
    SUSPECT = "suspect"  # asked last for reads; a PUT does not wait for it
    OFFLINE = "offline"  # not asked at all; after a while its shards are rebuilt


@attrs.frozen(kw_only=True)
class DetectorSettings:
    """Seconds."""

    ping_seconds: float = 5.0
    suspect_seconds: float = 15.0  # three pings
    offline_seconds: float = 30.0
    report_seconds: float = 10.0  # older reports do not count
    lag_seconds: float = 1.0  # a loop that is later than this distrusts its own ears
    lag_memory_seconds: float = 30.0  # for so long


@attrs.frozen(kw_only=True)
class Gossip:
    """What a node says of itself and of others, with every ping and every answer to one."""

    source: NodeId
    incarnation: int
    suspects: Mapping[NodeId, int]  # suspected peer -> the incarnation that is suspected


@attrs.define
class _Peer:
    heard: float
    incarnation: int = 0
    refused: bool = (
        False  # it refused a connection, and again when redialled, and was not heard since
    )
    reports: dict[NodeId, tuple[float, int]] = attrs.field(factory=dict)  # reporter -> when, which


class Detector:
    """The table of one node. `members` are the layout's nodes; `now` is any clock that only rises."""

    def __init__(
        self,
        me: NodeId,
        members: Collection[NodeId],
        now: float,
        settings: DetectorSettings | None = None,
    ) -> None:
        self.me = me
        self.incarnation = 0
        self._settings = settings if settings is not None else DetectorSettings()
        self._peers: dict[NodeId, _Peer] = {}
        self._members = 0
        self._lagged_until = now
        self.set_members(members, now)

    def set_members(self, members: Collection[NodeId], now: float) -> None:
        """The layout has changed. A new node is given the time of a silent one before it is suspected."""
        self._members = len(members)
        known = self._peers
        self._peers = {
            node: known.get(node) or _Peer(heard=now) for node in sorted(members) if node != self.me
        }
        for peer in self._peers.values():
            peer.reports = {node: r for node, r in peer.reports.items() if node in self._peers}

    def heard(self, gossip: Gossip, now: float) -> None:
        """A ping of a peer, or an answer to one of ours, has arrived."""
        peer = self._peers.get(gossip.source)
        if peer is None:
            return  # not of this layout
        peer.heard, peer.refused = now, False
        peer.incarnation = max(peer.incarnation, gossip.incarnation)
        for node, other in self._peers.items():
            if node in gossip.suspects:
                other.reports[gossip.source] = (now, gossip.suspects[node])
            else:
                other.reports.pop(gossip.source, None)
        if gossip.suspects.get(self.me, -1) >= self.incarnation:
            self.incarnation = gossip.suspects[self.me] + 1  # I am here

    def refused(self, node: NodeId, now: float) -> None:
        """A peer refused a connection, and again at once: its process is gone."""
        del now
        peer = self._peers.get(node)
        if peer is not None:
            peer.refused = True

    def lagged(self, seconds: float, now: float) -> None:
        """This node's own loop came `seconds` late: what it did not hear may be its own fault."""
        if seconds > self._settings.lag_seconds:
            self._lagged_until = now + self._settings.lag_memory_seconds

    def gossip(self, now: float) -> Gossip:
        """What to say now. A node that distrusts itself names nobody."""
        silent = [] if self.is_doubtful(now) else self._silent(now)
        return Gossip(
            source=self.me,
            incarnation=self.incarnation,
            suspects={node: self._peers[node].incarnation for node in silent},
        )

    def is_doubtful(self, now: float) -> bool:
        """Whether this node's opinion is worth nothing: it was late, or most peers look dead to it."""
        return now < self._lagged_until or 2 * len(self._silent(now)) > len(self._peers)

    def _silent(self, now: float) -> list[NodeId]:
        limit = self._settings.suspect_seconds
        return [n for n, peer in self._peers.items() if peer.refused or now - peer.heard > limit]

    def health(self, node: NodeId, now: float) -> Health:
        """What to think of a peer; this node itself is alive. Raises KeyError for one that the layout does not have."""
        if node == self.me:
            return Health.ALIVE
        peer = self._peers[node]
        if not (peer.refused or now - peer.heard > self._settings.suspect_seconds):
            return Health.ALIVE
        if self.is_doubtful(now) or now - peer.heard <= self._settings.offline_seconds:
            return Health.SUSPECT
        since = now - self._settings.report_seconds
        accusers = sum(
            when >= since and incarnation >= peer.incarnation
            for when, incarnation in peer.reports.values()
        )
        return Health.OFFLINE if 2 * (accusers + 1) > self._members else Health.SUSPECT

    def table(self, now: float) -> dict[NodeId, Health]:
        """Every node of the layout."""
        return {self.me: Health.ALIVE} | {node: self.health(node, now) for node in self._peers}
