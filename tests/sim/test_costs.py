"""What operations cost between nodes: round trips and waits for durability, by a clock that counts nothing else.

Every message takes DELAY, every commit takes COMMIT, everything else takes no time at all: the virtual time of an operation is
its round trips and its sequential waits, to the microsecond.
"""

from collections import Counter
from random import Random

import pytest
import trio

from cluster.drives import rpc_messages as rpc
from cluster.drives.remote_node import RemoteNode
from cluster.errors import NotFoundError
from cluster.transport.register_codec import unpack_request
from tests.sim.cluster import NODES
from tests.sim.content import put_request
from tests.sim.quiet import quiet_world
from tests.sim.run import simulate

DELAY, COMMIT, READ = 0.010, 0.003, 0.0
TRIP = 2 * DELAY
LARGE = 1_000_000  # one chunk, sent while it is staged


async def costs_of(rng, trace, work):
    """Virtual seconds of each of the named operations of `work(store, bucket)`."""
    found = {}
    async with quiet_world(rng, trace, delay=DELAY, commit=COMMIT, read=READ) as (world, bucket):
        store = world.processes[NODES[0]].store

        async def measure(name, operation):
            await store.get_bucket("sim")
            begun = trio.current_time()
            result = await operation()
            found[name] = trio.current_time() - begun
            await trio.sleep(1.5)  # what follows an answer (LEARN) is not waited for by anybody
            return result

        await work(store, bucket, measure)
    return found


def costs(work, seed):
    found = {}

    async def main(rng, trace):
        found.update(await costs_of(rng, trace, work))

    simulate(main, seed=seed)
    return found


# What goes to other nodes on behalf of operations; all else is healing, pings and heartbeats.
COUNTED = {"Prepare", "Accept", "Learn", "Query", "Scan", "ReadBody", "OpenStage", "ReadBlocks"}


def counting(monkeypatch):
    """Calls to other nodes from now on, by what they ask: one for all drives of the node."""
    calls, begin = Counter(), RemoteNode.begin_call

    async def counted(self, word, **options):
        kinds = {type(word).__name__}
        if isinstance(word, rpc.Submit):
            kinds = {type(unpack_request(o.request)).__name__ for o in word.operations}
        calls.update(kinds & COUNTED)
        return await begin(self, word, **options)

    monkeypatch.setattr(RemoteNode, "begin_call", counted)
    return calls


async def every_operation(store, bucket, measure):
    rng = Random(1)
    await measure("put 100 B", lambda: store.put(bucket, b"small", put_request((1, 100), rng)))
    await measure("overwrite", lambda: store.put(bucket, b"small", put_request((2, 100), rng)))
    await measure("put 1 MB", lambda: store.put(bucket, b"large", put_request((3, LARGE), rng)))
    await measure("get record", lambda: store.get(bucket, b"large"))
    found = await store.get(bucket, b"large")
    await measure("get 1 MB", lambda: found.open(0, LARGE))
    await measure(
        "list", lambda: store.list(bucket, prefix=b"", delimiter=b"", start=b"", limit=1000)
    )
    await measure("bucket", lambda: store.get_bucket("sim"))
    await measure("delete", lambda: store.delete(bucket, b"small"))


async def warmed_up(store, bucket, measure):
    """Every operation right after a write: a promise has to wait for its drive's ceiling once a second, and not here."""

    async def warm(name, operation):
        await store.put(bucket, b"warm", put_request((9, 100), Random(1)))
        return await measure(name, operation)

    await every_operation(store, bucket, warm)


# (round trips, waits for durability).
EXPECTED = {
    "put 100 B": (2, 1),
    "overwrite": (2, 1),
    "delete": (2, 1),
    "get record": (1, 0),
    "list": (1, 0),
    "bucket": (1, 0),
    "get 1 MB": (1, 0),
    "put 1 MB": (2, 2),  # the promises come while the shards become durable
}


@pytest.mark.sim
@pytest.mark.parametrize("seed", range(3))
def test_round_trips_and_waits_are_what_the_protocol_says(seed):
    found = costs(warmed_up, seed)
    for name, (trips, waits) in EXPECTED.items():
        least = trips * TRIP + waits * COMMIT
        # A commit takes half as long, or half as long again, by chance.
        slack = waits * COMMIT / 2
        assert least - slack - 1e-6 <= found[name] <= least + slack + 1e-6, (name, found[name])


WRITE = {
    "Prepare": 2,
    "Accept": 2,
    "Learn": 2,
}  # to each of two other nodes; LEARN is not waited for
CALLS = {
    "put 100 B": WRITE,
    "overwrite": WRITE,
    "delete": WRITE,
    "get record": {"Query": 1},  # two of the three drives that are asked are here
    "list": {"Scan": 1},
    "bucket": {"Query": 1},
    "get 1 MB": {"ReadBlocks": 2},  # four shards, two of them from here
    "put 1 MB": {"OpenStage": 4, **WRITE},  # a stream for each shard
}


@pytest.mark.sim
def test_each_operation_takes_as_many_calls_as_the_protocol_says(monkeypatch):
    found, calls = {}, counting(monkeypatch)

    async def work(store, bucket, measure):
        async def count(name, operation):
            await measure("before", trio.lowlevel.checkpoint)
            calls.clear()
            result = await measure(name, operation)
            found[name] = dict(calls)
            return result

        await every_operation(store, bucket, count)

    costs(work, 0)
    bucket_read = {"Query": 1}  # of `measure`
    assert found == {
        name: dict(Counter(calls) + Counter(bucket_read)) for name, calls in CALLS.items()
    }


@pytest.mark.sim
def test_a_write_that_is_given_up_before_its_accept_never_takes_effect():
    async def work(store, bucket, measure):
        for size in (100, LARGE):
            with trio.move_on_after(DELAY / 2) as scope:
                await store.put(bucket, b"gone", put_request((1, size), Random(1)))
            assert scope.cancelled_caught
            await trio.sleep(5)
            with pytest.raises(NotFoundError):
                await store.get(bucket, b"gone")

    costs(work, 1)
