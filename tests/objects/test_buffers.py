"""One budget for all requests: never exceeded, first come first served, and given back to the last byte."""

import pytest
import trio
from hypothesis import given, strategies as st

from cluster.objects.buffers import BufferPool, Lease


async def test_who_waits_is_served_in_order(autojump_clock: trio.testing.MockClock) -> None:
    pool = BufferPool(100)
    order: list[int] = []

    async def take(number: int, size: int) -> None:
        await trio.sleep(number)
        buffer = await pool.acquire(size)
        order.append(number)
        await trio.sleep(100)
        pool.release(buffer)

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
    held = await pool.acquire(50)
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(1):
            nursery.start_soon(pool.reserve, 40)
            await pool.reserve(100)
        await trio.sleep(1)
    assert pool.used == 90
    pool.release(held)
    pool.unreserve(40)
    assert pool.used == 0


def test_a_lease_ends_with_its_last_holder() -> None:
    pool = BufferPool(100)
    assert pool.try_reserve(70)
    lease = Lease(pool, 70)
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
                buffer = await pool.acquire(size)
                try:
                    assert 0 < pool.used <= 60
                    await trio.sleep(seconds)
                finally:
                    pool.release(buffer)

        async with trio.open_nursery() as nursery:
            for request in requests:
                nursery.start_soon(one, *request)
        assert pool.used == 0

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize("size", [1, 100])
async def test_buffers_are_used_again(size: int) -> None:
    pool = BufferPool(100)
    first = await pool.acquire(size)
    pool.release(first)
    assert (await pool.acquire(size)).obj is first.obj
