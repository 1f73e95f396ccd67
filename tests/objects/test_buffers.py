"""One budget for all requests: never exceeded, first come first served, and given back to the last byte."""

from functools import partial

import pytest
import trio
from hypothesis import given, strategies as st

from cluster.objects.buffers import BufferPool


async def test_who_waits_is_served_in_order(autojump_clock: trio.testing.MockClock) -> None:
    pool = BufferPool(100)
    order: list[int] = []

    async def take(number: int, size: int) -> None:
        await trio.sleep(number)
        lease = await pool.lease(size)
        order.append(number)
        await trio.sleep(100)
        lease.release()

    async with trio.open_nursery() as nursery:
        for number, size in enumerate([60, 60, 10, 40]):
            nursery.start_soon(take, number, size)
    # The small ones do not overtake the large one; who is served at the same moment runs in any order.
    assert (order[0], sorted(order[1:3]), order[3]) == (0, [1, 2], 3)
    assert pool.used == 0


async def test_a_cancelled_wait_makes_room_for_the_next(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pool = BufferPool(100)
    held = await pool.lease(40, 10)
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(1):
            nursery.start_soon(pool.reserve, 40)
            await pool.reserve(100)
        await trio.sleep(1)
    assert pool.used == 90
    held.release()
    pool.unreserve(40)
    assert pool.used == 0


def test_a_lease_ends_with_its_last_holder() -> None:
    pool = BufferPool(100)
    lease = pool.try_lease(60, 10)
    assert lease is not None
    lease.hold()
    lease.release()
    assert pool.used == 70
    lease.release()
    assert pool.used == 0


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 5), st.booleans()), max_size=30))
def test_the_budget_holds(requests: list[tuple[int, int, bool]]) -> None:
    async def main() -> None:
        pool = BufferPool(60)

        async def one(size: int, seconds: int, impatient: bool) -> None:
            with trio.move_on_after(2 if impatient else 1000):
                lease = await pool.lease(size)
                try:
                    assert 0 < pool.used <= 60
                    await trio.sleep(seconds)
                finally:
                    lease.release()

        async with trio.open_nursery() as nursery:
            for request in requests:
                nursery.start_soon(one, *request)
        assert pool.used == 0

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize("size", [1, 100])
async def test_buffers_are_used_again(size: int) -> None:
    pool = BufferPool(400)
    first = await pool.lease(size)
    first.release()
    assert (await pool.lease(size)).buffer.obj is first.buffer.obj


async def test_free_buffers_make_way_for_other_uses_of_the_budget() -> None:
    pool = BufferPool(400)
    first = await pool.lease(100)
    first.release()
    await pool.reserve(350)
    pool.unreserve(350)
    assert (await pool.lease(100)).buffer.obj is not first.buffer.obj


async def test_a_buffer_that_a_hung_write_reads_is_not_used_again() -> None:
    pool = BufferPool(400)
    first = await pool.lease(100)
    first.hold()
    first.forfeit()
    first.release()
    assert pool.used == 0
    assert (await pool.lease(100)).buffer.obj is not first.buffer.obj


async def test_who_holds_until_asked_is_asked_when_others_need_room_and_the_oldest_first() -> None:
    pool = BufferPool(100)
    held = [await pool.lease(40), await pool.lease(40)]
    asked: list[int] = []

    def let_go(number: int) -> None:
        asked.append(number)
        held[number].release()

    for number in range(2):
        pool.hold_until_asked(number, partial(let_go, number))
    assert not pool.try_reserve(30)  # reading ahead is no need
    assert not asked
    wanted = await pool.lease(50)
    assert asked == [0]
    more = pool.try_lease(50)
    assert more is not None
    assert asked == [0, 1]
    wanted.release()
    more.release()
    assert pool.used == 0


async def test_who_begins_to_hold_while_others_wait_is_asked_at_once() -> None:
    pool = BufferPool(100)
    first = await pool.lease(100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.reserve, 60)
        await trio.testing.wait_all_tasks_blocked()
        pool.hold_until_asked("first", first.release)
    assert pool.used == 60


async def test_who_was_forgotten_is_not_asked() -> None:
    pool = BufferPool(100)
    first = await pool.lease(60)
    pool.hold_until_asked("first", first.release)
    pool.forget("first")
    assert pool.try_lease(60) is None
    first.release()
