"""A revoked key is refused on every node within the lease, with the push or without, under faults; and the checker has teeth."""

import pytest
import trio

from cluster.access.directory import tell_nobody
from tests.access.revocation import AccessWorld, Change, Lookup, check_lookup, revocations
from tests.sim.checkers import ViolationError
from tests.sim.cluster import NODES
from tests.sim.run import simulate
from tests.sim.seeds import find_violation, sweep

pytestmark = pytest.mark.sim
BATCHES = 5
SHARE = 8  # of --seeds: a run takes as long as eight of a single node


def in_world(**options):
    """A test in virtual time with a calm cluster and a key that every node has seen."""

    def decorate(test):
        def run():
            async def main(rng, trace):
                async with trio.open_nursery() as nursery:
                    world = AccessWorld(rng, nursery, trace, **options)
                    world.calm()
                    await world.settle()
                    key = await world.new_key()
                    for node in NODES:
                        assert await world.look(node, key)
                    await test(world, key)
                    nursery.cancel_scope.cancel()

            simulate(main, seed=1)

        run.__name__ = test.__name__
        return run

    return decorate


def isolate(world, node):
    for other in NODES:
        if other != node:
            world.network.partition(node, other)


@in_world()
async def test_a_disabled_key_is_refused_everywhere_at_once_where_the_push_arrives(world, key):
    await world.operate(1, key, disabled=True)
    for node in NODES:
        assert await world.look(node, key) is False


@in_world(push=False)
async def test_a_disabled_key_is_refused_everywhere_after_the_lease_where_the_push_is_lost(
    world, key
):
    for node in NODES:
        assert await world.look(node, key)
    began = trio.current_time()
    await world.operate(1, key, disabled=True)
    acknowledged = trio.current_time()
    assert await world.look(2, key)  # its lease has not run out: that it is not told is true
    assert acknowledged - began < 1
    await trio.sleep(acknowledged + 2.0 - trio.current_time() + 1e-6)
    for node in NODES:
        assert await world.look(node, key) is False
    world.check_lookups()


@in_world(outage=8.0)
async def test_a_node_that_is_cut_off_lets_known_keys_in_for_the_outage_and_not_longer(world, key):
    read = trio.current_time()
    isolate(world, 3)
    await world.operate(1, key, disabled=True)
    assert await world.look(2, key) is False
    let_in, cannot_say = 0, 0
    while trio.current_time() < read + 20:
        answer = await world.look(3, key)
        if answer is None:
            cannot_say += 1
            assert trio.current_time() > read + 7
        else:
            assert answer
            let_in = trio.current_time()
        await trio.sleep(0.1)
    assert read + 7 < let_in <= read + 8
    assert cannot_say
    world.network.heal()
    await trio.sleep(5)
    assert await world.look(3, key) is False


@in_world(outage=0.0)
async def test_without_a_bridge_a_node_that_is_cut_off_obeys_the_lease_by_saying_nothing(
    world, key
):
    isolate(world, 3)
    await world.operate(1, key, disabled=True)
    await trio.sleep(2.0)
    assert await world.look(3, key) is None
    world.check_lookups()


@in_world()
async def test_a_node_that_is_cut_off_can_change_nothing(world, key):
    isolate(world, 3)
    await trio.sleep(5)
    change = await world.operate(3, key, disabled=True)
    assert change.outcome == "failed"
    world.network.heal()
    await trio.sleep(10)
    for node in NODES:
        assert await world.look(node, key)


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(BATCHES))
def test_seeds(request, batch):
    sweep(
        revocations, range(batch, request.config.getoption("--seeds") // SHARE, BATCHES), "access"
    )


@pytest.mark.slow
def test_the_runs_meet_every_answer():
    said = {"in": 0, "out": 0, "unavailable": 0, "moves": 0}
    outcomes = set()
    for seed in range(8):

        async def watched(rng, trace):
            world = await revocations(rng, trace)
            outcomes.update(change.outcome for change in world.changes)
            said["out"] += sum(lookup.disabled for lookup in world.lookups)
            said["in"] += sum(not lookup.disabled for lookup in world.lookups)
            said["unavailable"] += world.unavailable
            said["moves"] += world.moves

        simulate(watched, seed=seed)
    assert said.pop("moves") > 4
    assert min(said.values()) > 10, said
    assert outcomes >= {"ok", "failed"}


def test_one_seed_is_one_run():
    assert simulate(revocations, seed=3).digest == simulate(revocations, seed=3).digest


# -- the checker has teeth


def never_runs_out(access):
    access.credentials.leases.is_usable = lambda kept, now, since: True


def counts_from_the_answer(access):
    leases = access.credentials.leases
    keep = leases.keep
    leases.keep = lambda name, known, stamp, began: keep(name, known, stamp, trio.current_time())


def says_absent_without_a_quorum(access):
    find = access.credentials.find

    async def found(key):
        try:
            return await find(key)
        except Exception:
            return None

    access.credentials.find = found


@pytest.mark.slow
@pytest.mark.parametrize("mutant", [never_runs_out, says_absent_without_a_quorum])
def test_without_a_safeguard_the_checker_notices(mutant):
    async def run(rng, trace):
        await revocations(rng, trace, mutate=mutant)

    find_violation(run, range(50), "is true at no moment")


async def slow_answer(world, key):
    """Node 3 asks; while the answers are on their way, node 1 disables the key."""
    await trio.sleep(3)
    for other in (1, 2):
        world.network.block(other, 3)
    asked = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.look, 3, key)
        await trio.sleep(0.1)
        await world.operate(1, key, disabled=True)
        acknowledged = trio.current_time()
        await trio.sleep(asked + 0.8 - acknowledged)
        world.network.heal()
    assert world.lookups[-1].end > asked + 0.7
    assert not world.lookups[-1].disabled  # which was true when it asked
    await trio.sleep(acknowledged + 2.1 - trio.current_time())
    await world.look(3, key)
    world.check_lookups()


@in_world(push=False)
async def test_an_answer_counts_from_when_it_was_asked_for(world, key):
    await slow_answer(world, key)


@in_world(push=False, mutate=counts_from_the_answer)
async def test_that_it_does_so_is_noticed(world, key):
    with pytest.raises(ViolationError):
        await slow_answer(world, key)


CHANGES = [
    Change(True, 10, 11, "ok"),
    Change(False, 20, 21, "failed"),
    Change(False, 30),
    Change(True, 40, 41, "ok"),
]


@pytest.mark.parametrize(
    ("start", "end", "disabled", "true"),
    [
        (5, 6, False, True), (5, 6, True, False), (5, 10.5, True, True), (12, 12, True, True),
        (12.9, 12.9, False, True), (13.1, 13.1, False, False), (25, 25, False, False), (35, 35, False, True),
        (35, 35, True, True), (42.9, 42.9, False, True), (43.1, 50, False, False), (50, 50, True, True),
    ],
)  # fmt: skip
def test_the_checker_knows_what_may_have_been_seen(start, end, disabled, true):
    lookup = Lookup(1, start, end, disabled)
    if true:
        check_lookup(lookup, CHANGES, 2.0)
    else:
        with pytest.raises(ViolationError):
            check_lookup(lookup, CHANGES, 2.0)


async def test_nobody_can_be_told():
    assert await tell_nobody([b"n"]) is None
