"""Layouts for tests."""

from msgspec.structs import replace

from cluster.ids import ClusterId, DriveId, NodeId
from cluster.layout import SYSTEM, ErasureSet, Layout, Node, Position, Seat
from cluster.topology.formation import interleave

CLUSTER = ClusterId(b"c" * 16)


def drive(number: int) -> DriveId:
    return DriveId(number.to_bytes(16, "big"))


def seat(node: int, index: int) -> Seat:
    """Drive `index` of a node."""
    return Seat(drive(node * 1000 + index), NodeId(node))


def make_layout(
    nodes: int, drives: int, k: int, m: int, *, sets: int = 1, system: int = 0
) -> Layout:
    """Sets over `nodes` nodes (ids from 1) of `drives` drives; `system` drives named, 0: set 0 is the system set."""
    order = interleave(
        {NodeId(i + 1): [seat(i + 1, d).drive for d in range(drives)] for i in range(nodes)}
    )
    n = k + m
    assert len(order) >= sets * n
    built = tuple(
        ErasureSet(s, tuple(Position(o.drive, o.node) for o in order[s * n : (s + 1) * n]))
        for s in range(sets)
    )
    layout = Layout(
        epoch=1, cluster=CLUSTER, nodes=tuple(Node(NodeId(i + 1), f"10.0.0.{i + 1}:9001") for i in range(nodes)),
        sets=built, system_set=0, k=k, m=m, codec="isa_l_rs_cauchy/8",
    )  # fmt: skip
    if system:
        layout = replace(layout, system_set=SYSTEM, system=tuple(order[:system]))
    return layout
