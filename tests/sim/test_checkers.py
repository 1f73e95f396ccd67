"""The checkers have teeth: each tells a broken history from a sound one."""

import attrs
import pytest
import trio

from tests.sim.bucket_checker import check_buckets, check_refusals, seals, step_bucket
from tests.sim.checkers import (
    FOREVER,
    PREFIX,
    ListPage,
    Op,
    ViolationError,
    by_key,
    check_key,
    check_linearizable,
    check_page,
)
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
    writes = by_key(history)
    shown = {key: 2 if key == b"c" else 1 for key in keys}
    page = ListPage(bucket=1, shown=shown, begun=5, ended=6)

    def judge():
        seen = check_page(page, writes)
        check_linearizable([attrs.evolve(o, key=(1, o.key)) for o in history] + seen)

    if sound:
        judge()
    else:
        with pytest.raises(ViolationError):
            judge()


@pytest.mark.parametrize(
    ("shown", "sound"),
    [
        ({b"a": 1, b"d/": PREFIX}, True),
        ({b"a": 1}, False),  # something lives under d/
        ({b"a": 1, b"b/": PREFIX, b"d/": PREFIX}, False),  # nothing does under b/
        ({b"a": 1, b"d/x": 3}, False),  # is to be rolled up
    ],
)
def test_a_common_prefix_is_shown_if_and_only_if_a_key_lives_under_it(shown, sound):
    history = [
        op("put", 1, key=b"a"),
        op("put", 2, key=b"b/x"),
        op("delete", None, 2, 3, key=b"b/x"),
        op("put", 3, key=b"d/x"),
        op("delete", None, 2, 3, key=b"d/y"),
    ]
    page = ListPage(bucket=1, delimiter=b"/", shown=shown, begun=5, ended=6)

    def judge():
        seen = check_page(page, by_key(history))
        check_linearizable([attrs.evolve(o, key=(1, o.key)) for o in history] + seen)

    if sound:
        judge()
    else:
        with pytest.raises(ViolationError):
            judge()


@pytest.mark.parametrize(
    ("later", "sound"),
    [
        ([], True),
        ([op("put", 2, 5, 6, key=(1, b"k"))], False),  # acknowledged in a bucket that is gone
        ([op("put", 2, 5, FOREVER, "unknown", key=(1, b"k"))], True),
        ([op("get", 1, 5, 6, key=(1, b"k"))], False),
        ([op("put", 2, 5, 6, key=(2, b"k")), op("get", 2, 7, 8, key=(2, b"k"))], True),
        ([op("put", 2, 5, 6, key=(2, b"k")), op("get", 1, 7, 8, key=(2, b"k"))], False),
    ],
)
def test_a_bucket_takes_its_keys_with_it(later, sound):
    names = [
        op("create", 1, 0, 0.5, key="sim"),
        op("delete", None, 3, 4, expected=1, key="sim"),
        op("create", 2, 4, 4.5, key="sim"),
    ]
    check_buckets(names)
    keys = [op("put", 1, 1, 2, key=(1, b"k")), op("delete", None, 2, 2.5, key=(1, b"k")), *later]
    history = [*keys, *seals(names, list(by_key(keys)))]
    if sound:
        check_linearizable(history)
    else:
        with pytest.raises(ViolationError):
            check_linearizable(history)


def test_a_bucket_is_not_deleted_with_a_key_in_it_nor_refused_without():
    names = [
        op("create", 1, 0, 0.5, key="sim"),
        op("delete", None, 3, 4, expected=1, key="sim"),
    ]
    keys = [op("put", 1, 1, 2, key=(1, b"k"))]
    with pytest.raises(ViolationError):
        check_linearizable([*keys, *seals(names, list(by_key(keys)))])
    names[1].outcome = "refused"
    check_refusals(names, by_key(keys))
    with pytest.raises(ViolationError):
        check_refusals(names, by_key([*keys, op("delete", None, 2, 2.5, key=(1, b"k"))]))


@pytest.mark.parametrize(
    ("ops", "sound"),
    [
        ([op("get", None, 0, 1), op("create", 1, 2, 3), op("get", 1, 4, 5)], True),
        ([op("create", 1, 2, 3), op("get", None, 4, 5)], False),
        ([op("create", 1, 2, 3), op("create", 2, 2, 3)], False),
        ([op("create", 1, 2, 3), op("lacks", None, 4, 5, expected=1)], False),
        ([op("create", 1, 2, 3), op("delete", None, 4, 9, "unknown", expected=1), op("lacks", None, 6, 7, expected=1)], True),
    ],
)  # fmt: skip
def test_histories_of_bucket_names_are_told_apart(ops, sound):
    assert check_key(ops, step_bucket) is sound


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
