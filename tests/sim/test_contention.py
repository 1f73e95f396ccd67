"""Writers of one key through one node take turns: none of them fails, and none waits much longer than those before it take."""

import pytest
import trio
import trio.testing

from cluster.ids import RowKey
from cluster.metadata.turns import Turns
from tests.sim.cluster import NODES
from tests.sim.contention import contend

ROW = RowKey(b"row")


@pytest.mark.sim
def test_writers_of_one_node_take_turns():
    alone, many = contend(1, NODES[:1], seconds=1), contend(24, NODES[:1], seconds=2)
    assert not many.errors
    assert many.percentile(0.99) < 1.5 * 24 * alone.percentile(0.5)


@pytest.mark.sim
def test_writers_of_several_nodes_come_through():
    seen = contend(6, NODES, seconds=2)
    assert len(seen.errors) <= len(seen.took) / 100
    assert len(seen.took) > 200


async def test_turns_come_in_order(autojump_clock):
    turns, order = Turns(), []

    async def write(number):
        await trio.sleep(number)
        assert await turns.take(ROW, 100)
        order.append(number)
        await trio.sleep(10)
        turns.give_back(ROW)

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(write, number)
    assert order == list(range(5))
    assert not turns.is_taken(ROW)


async def test_whoever_waited_too_long_goes_without(autojump_clock):
    turns = Turns()
    assert await turns.take(ROW, 1)
    assert not await turns.take(ROW, 1)
    with trio.move_on_after(1) as scope:
        await turns.take(ROW, 100)
    assert scope.cancelled_caught  # one that gave up is not called
    turns.give_back(ROW)
    assert not turns.is_taken(ROW)
    assert await turns.take(ROW, 1)


async def test_whoever_is_called_when_it_gives_up_calls_the_next(autojump_clock):
    """Both happen in one tick where the writer before it is cancelled by the same scope."""
    turns, order = Turns(), []

    async def write(number):
        is_ours = await turns.take(ROW, 100)
        order.append((number, is_ours))
        if is_ours:
            turns.give_back(ROW)

    assert await turns.take(ROW, 1)
    async with trio.open_nursery() as nursery:
        impatient = trio.CancelScope()

        async def write_impatiently():
            with impatient:
                await write(1)

        nursery.start_soon(write_impatiently)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(write, 2)
        await trio.testing.wait_all_tasks_blocked()
        impatient.cancel()
        turns.give_back(ROW)
    assert order == [(2, True)]
    assert not turns.is_taken(ROW)
