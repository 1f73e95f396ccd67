"""The checkers have teeth: each tells a broken history from a sound one."""

import pytest
import trio

from tests.sim.checkers import ListPage, Op, ViolationError, check_key, check_page
from tests.sim.run import simulate


def op(kind, value=None, start=0.0, end=1.0, outcome="ok", expected=None, key=b"k"):
    return Op(
        kind=kind, key=key, value=value, expected=expected, start=start, end=end, outcome=outcome
    )


@pytest.mark.parametrize(
    ("history", "sound"),
    [
        ([op("put", 1), op("get", 1, 2, 3)], True),
        ([op("put", 1), op("get", None, 2, 3)], False),
        ([op("put", 1, 0, 10), op("get", None, 1, 2), op("get", 1, 3, 4)], True),
        ([op("put", 1, 0, 10), op("get", 1, 1, 2), op("get", None, 3, 4)], False),
        ([op("put", 1, outcome="unknown"), op("get", None, 5, 6), op("get", 1, 7, 8)], True),
        ([op("put", 1, outcome="unknown"), op("get", 1, 5, 6), op("get", None, 7, 8)], False),
        ([op("put", 1, outcome="failed"), op("get", 1, 5, 6)], False),
        ([op("create", 1, 0, 5), op("create", 2, 0, 5)], False),
        ([op("create", 1, 0, 5), op("create", 2, 0, 5, "refused"), op("get", 1, 6, 7)], True),
        ([op("put", 1), op("replace", 2, 2, 3, expected=1), op("get", 1, 4, 5)], False),
        ([op("put", 1), op("replace", 2, 2, 3, "refused", expected=1)], False),
        ([op("put", 1), op("delete", None, 2, 3), op("get", 1, 4, 5)], False),
        # the same operation must not take effect twice
        (
            [
                op("put", 1, outcome="unknown"),
                op("get", 1, 2, 3),
                op("delete", None, 4, 5),
                op("get", 1, 6, 7),
            ],
            False,
        ),
    ],
)
def test_linearizability_is_told_from_its_absence(history, sound):
    assert check_key(history) is sound


@pytest.mark.parametrize(
    ("keys", "sound"),
    [
        ([b"a", b"c"], True),
        ([b"a"], False),
        ([b"a", b"b", b"c"], False),
        ([b"c", b"a"], False),
        ([b"a", b"c", b"x"], False),
    ],
)
def test_a_page_shows_what_was_there(keys, sound):
    history = [
        op("put", 1, key=b"a"),
        op("put", 1, key=b"b"),
        op("delete", None, 2, 3, key=b"b"),
        op("put", 2, key=b"c"),
    ]
    page = ListPage(start=b"", stop=None, keys=keys, begun=5, ended=6)
    if sound:
        check_page(page, history)
    else:
        with pytest.raises(ViolationError):
            check_page(page, history)


def test_one_seed_gives_one_trace():
    async def main(rng, trace):
        async def worker(name):
            for _ in range(20):
                await trio.sleep(rng.random())
                trace.say(name)

        async with trio.open_nursery() as nursery:
            for name in "abcdef":
                nursery.start_soon(worker, name)

    first, again, other = (simulate(main, seed=seed).digest for seed in (7, 7, 8))
    assert first == again
    assert first != other
