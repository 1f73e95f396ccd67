"""A round that cannot be cancelled ends all the same when nobody keeps its deadline any more."""

import trio

from cluster.metadata.rounds import Round, Watch


async def test_shielded_rounds_end_with_the_watch(autojump_clock: trio.testing.MockClock) -> None:
    watch = Watch()
    heard: list[bool] = []

    async def wait_for_nothing() -> None:
        waiting = Round([], lambda _, __: False, watch)
        waiting.shielded = True
        for _ in range(2):  # the second begins when the watch is over
            waiting.reopen()
            heard.append(await waiting.wait(1000))

    with trio.fail_after(500):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch.run)
            nursery.start_soon(wait_for_nothing)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert heard == [False, False]
