"""When a PUT's shards are spread well enough to acknowledge it. Pure."""

from collections.abc import Sequence
from typing import Literal

from cluster.ids import NodeId

AckPolicy = Literal["shards", "node"]


def survives_a_node(positions: int, nodes: Sequence[NodeId], k: int) -> bool:
    """Whether k of these shards (a bitmap) are left without those of any one node; nodes[p] holds position p.

    Tahoe-LAFS's servers of happiness, simplified: here a drive holds one shard of a body.
    """
    held = [node for position, node in enumerate(nodes) if positions >> position & 1]
    most = max((held.count(node) for node in held), default=0)
    return len(held) - most >= k


def is_spread(
    policy: AckPolicy, durable: int, expected: int, nodes: Sequence[NodeId], k: int
) -> bool:
    """Whether nothing is gained by waiting: the spread is reached, or not even the `expected` positions (a bitmap) reach it."""
    if policy == "shards" or survives_a_node(durable, nodes, k):
        return True
    return not survives_a_node(durable | expected, nodes, k)
