"""Drives of a peer that comes and goes, and shards on their way: bounded, cut, damaged, never half there."""

import pytest
import trio

from cluster.drives.drive import DriveError, DriveState, ShardMissingError
from cluster.register.messages import (
    Failed,
    Value,
)
from cluster.transport.framing import INITIAL_CREDIT
from tests.contracts.benches import header, stage
from tests.sim.network import LinkSettings
from tests.transport.pair import (
    HERE,
    THERE,
    ask,
    between_two_nodes,
)

# -- a peer that comes and goes


@between_two_nodes()
async def test_a_peer_that_cannot_be_reached_is_missing_until_it_answers_again(pair):
    drive = pair.drives[0]
    assert drive.state is DriveState.ACTIVE
    pair.network.partition(HERE, THERE)
    await trio.sleep(5)
    assert drive.state is DriveState.MISSING
    assert isinstance(await ask(drive), Failed)
    with pytest.raises(DriveError):
        drive.open_stage(header(), 0)
    status = await drive.status()
    assert status.state is DriveState.MISSING
    assert "node 2" in status.reason
    pair.network.heal()
    await trio.sleep(5)
    assert drive.state is DriveState.ACTIVE
    assert isinstance(await ask(drive), Value)


@between_two_nodes()
async def test_a_drive_that_fails_is_known_by_the_next_ping(pair):
    pair.bare[0].fail("its head fell off")
    await trio.sleep(2)
    assert pair.drives[0].state is DriveState.FAULTY
    assert pair.drives[1].state is DriveState.ACTIVE


# -- shards


@between_two_nodes(links=LinkSettings(window=64 << 20))
async def test_a_slow_drive_slows_its_writer_down(pair):
    """Whoever writes is never more than the credit ahead of the drive, even over a network that takes everything."""
    written, go_on = [], trio.Event()
    open_stage = pair.bare[0].open_stage

    def slow(*args):
        inner = open_stage(*args)
        write = inner.write

        async def waiting(blocks):
            written.append(sum(map(len, blocks)))
            await go_on.wait()
            await write(blocks)

        inner.write = waiting
        return inner

    pair.bare[0].open_stage = slow
    blocks = [bytes([i]) * 65536 for i in range(64)]
    sent = 0

    async def write():
        nonlocal sent
        writing = pair.drives[0].open_stage(header(), 0)
        for run in range(0, 64, 8):
            await writing.write(blocks[run : run + 8])
            sent += 8 * 65536
        await writing.close(bytes(16 * 64))

    pair.nursery.start_soon(write)
    await trio.sleep(10)
    assert len(written) == 1
    assert sent <= INITIAL_CREDIT
    go_on.set()
    await trio.sleep(10)
    assert sum(written) == sent == 64 * 65536
    got = await pair.drives[0].read_blocks(header(), 0, [65536] * 64)
    assert [bytes(block) for block in got] == blocks


@between_two_nodes(links=LinkSettings(bandwidth=1e6))
async def test_an_aborted_stage_leaves_nothing_on_either_side(pair):
    aborted = []
    open_stage = pair.bare[0].open_stage

    def noting(*args):
        inner = open_stage(*args)
        inner.abort = lambda: aborted.append(end)
        return inner

    pair.bare[0].open_stage = noting
    for end in ("abort", "cancel", "cut"):
        writing = pair.drives[0].open_stage(header(), 0)
        with trio.move_on_after(0.3):
            await writing.write([bytes(65536)])
            if end == "cancel":
                await writing.write([bytes(65536)] * 32)
        await trio.sleep(0.2)
        if end == "cut":
            pair.network._connection(HERE, THERE).break_off()
        writing.abort()
        with pytest.raises(DriveError):
            await writing.write([b"x"])
        await trio.sleep(3)
    assert aborted == ["abort", "cancel", "cut"]
    assert pair.server._under_way == 0
    with pytest.raises(ShardMissingError):
        await pair.drives[0].read_blocks(header(), 0, [10])


@between_two_nodes()
async def test_a_block_that_is_damaged_on_its_way_is_never_stored_nor_served(pair):
    blocks = [bytes(65536), bytes(65536)]
    await stage(pair.drives[0], header(1), blocks)
    link = pair.network.link(HERE, THERE)
    send = link.send

    def damage(pipe, data):
        if data is not None and len(data) == 65536:
            data = b"\x01" + data[1:]
        send(pipe, data)

    link.send = damage
    with pytest.raises(DriveError, match="damaged"):
        await stage(pair.drives[0], header(2), blocks)
    assert len(pair.bare[0].platter.shards) == 1
    link.send, back = send, pair.network.link(THERE, HERE)
    send = back.send
    back.send = damage
    with pytest.raises(DriveError, match="damaged"):
        await pair.drives[0].read_blocks(header(1), 0, [65536, 65536])
