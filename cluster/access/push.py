"""Telling the peers which registers have changed. Best effort: whoever does not hear of it asks within the lease."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import trio

from cluster.access.directory import Notify
from cluster.drives.remote_node import CALL_ERRORS, RemoteNode


def tell_peers(peers: Callable[[], Iterable[RemoteNode]]) -> Notify:
    """The `notify` of a node with peers: all that answer at all are told at once."""

    async def notify(names: Sequence[bytes]) -> None:
        async with trio.open_nursery() as nursery:
            for peer in peers():
                if peer.is_up:
                    nursery.start_soon(_tell, peer, names)

    return notify


async def _tell(peer: RemoteNode, names: Sequence[bytes]) -> None:
    with suppress(*CALL_ERRORS):
        await peer.forget(names)
