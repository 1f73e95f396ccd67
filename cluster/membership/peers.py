"""The state of one peer as this node sees it: a table of transitions, and what was reported of the peer."""

import enum

import attrs

from cluster.ids import NodeId


class PeerState(enum.Enum):
    """What a peer is taken for. No safety argument rests on it."""

    ALIVE = "alive"
    SUSPECT = "suspect"  # reads go elsewhere first, a PUT does not wait for it
    OFFLINE = "offline"  # a majority says so: excluded from routing
    LEFT = "left"  # the layout does not name it any more


class PeerInput(enum.Enum):
    """What happens to a peer."""

    ANSWERED = "answered"  # a ping came back
    REFUTED = "refuted"  # it lives under a higher incarnation than was known
    SILENT = "silent"  # three pings were missed, or a redial was refused
    CONDEMNED = "condemned"  # silent for long, and a majority suspects it
    REMOVED = "removed"


TRANSITIONS: dict[tuple[PeerState, PeerInput], PeerState] = {
    (PeerState.ALIVE, PeerInput.ANSWERED): PeerState.ALIVE,
    (PeerState.ALIVE, PeerInput.REFUTED): PeerState.ALIVE,
    (PeerState.ALIVE, PeerInput.SILENT): PeerState.SUSPECT,
    (PeerState.ALIVE, PeerInput.REMOVED): PeerState.LEFT,
    (PeerState.SUSPECT, PeerInput.ANSWERED): PeerState.ALIVE,
    (PeerState.SUSPECT, PeerInput.REFUTED): PeerState.ALIVE,
    (PeerState.SUSPECT, PeerInput.CONDEMNED): PeerState.OFFLINE,
    (PeerState.SUSPECT, PeerInput.REMOVED): PeerState.LEFT,
    (PeerState.OFFLINE, PeerInput.ANSWERED): PeerState.ALIVE,
    (PeerState.OFFLINE, PeerInput.REFUTED): PeerState.ALIVE,
    (PeerState.OFFLINE, PeerInput.REMOVED): PeerState.LEFT,
}


@attrs.frozen
class Report:
    """Another node suspects this peer, under this incarnation; not older than `at`."""

    at: float
    incarnation: int


@attrs.define(kw_only=True)
class Peer:
    """A peer. Times in seconds of the caller's monotonic clock."""

    node: NodeId
    heard_at: float  # when the last ping was sent that it answered
    ping_at: float  # when it is to be pinged next
    state: PeerState = PeerState.ALIVE
    incarnation: int = 0  # the highest known; 0: none yet
    epoch: int = 0  # of the layout that it has, as far as is known
    refusals: int = 0  # connections refused since the last answer
    reports: dict[NodeId, Report] = attrs.field(factory=dict)

    def apply(self, happened: PeerInput) -> bool:
        """Move by the table; True: the state is another one. A pair that is not in the table is a bug."""
        assert (self.state, happened) in TRANSITIONS, (self.node, self.state, happened)
        before, self.state = self.state, TRANSITIONS[self.state, happened]
        return self.state is not before
