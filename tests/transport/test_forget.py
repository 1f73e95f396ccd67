"""The word by which nodes tell each other what has changed: its bytes, its bounds, and that it arrives."""

import msgspec
import pytest
import trio

from cluster.access.push import tell_peers
from cluster.drives import rpc_messages as rpc
from cluster.drives.remote_node import RefusedError
from cluster.wire import Header, WireError
from tests.transport.pair import HERE, THERE, between_two_nodes

HEADER = Header(b"c" * 16, 1, 2, 3, 4, 5, 6, 7)
PREFIX = "9298c410" + "63" * 16 + "01020304050607"


def test_the_bytes_are_pinned():
    word = rpc.Forget((b"access/key/SK", b"access/user/ann"))
    data = rpc.REQUESTS.encode(rpc.RequestMessage(HEADER, word))
    names = "92c40d" + b"access/key/SK".hex() + "c40f" + b"access/user/ann".hex()
    assert data.hex() == PREFIX + "9209" + names
    assert rpc.REQUESTS.decode(data).word == word
    reply = rpc.REPLIES.encode(rpc.ReplyMessage(HEADER, rpc.Noted()))
    assert reply.hex() == PREFIX + "9109"


@pytest.mark.parametrize(
    "names", [[], [b""], [b"n" * 257], [b"n"] * 257, ["text"], b"n", None, [[b"n"]]]
)
def test_what_is_out_of_bounds_is_refused(names):
    header = msgspec.msgpack.decode(msgspec.msgpack.encode(HEADER))
    with pytest.raises(WireError):
        rpc.REQUESTS.decode(msgspec.msgpack.encode([header, [9, names]]))


@between_two_nodes()
async def test_a_peer_that_is_told_forgets(pair):
    told = []
    pair.server.forget = told.extend
    await tell_peers(lambda: [pair.node])([b"access/user/ann"])
    assert told == [b"access/user/ann"]


@between_two_nodes()
async def test_a_peer_that_refuses_or_is_away_is_no_error(pair):
    told = []
    pair.server.forget = told.extend
    pair.peer.members.discard(HERE)
    with pytest.raises(RefusedError):
        await pair.node.forget([b"n"])
    await tell_peers(lambda: [pair.node])([b"n"])
    pair.network.crash(THERE)
    await trio.sleep(5)
    began = trio.current_time()
    await tell_peers(lambda: [pair.node])([b"n"])
    assert trio.current_time() == began
    assert told == []
