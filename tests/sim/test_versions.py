"""The simulator over versioned buckets, and its checker: it explains what may happen, and nothing else."""

import attrs
import pytest
from msgspec.structs import replace

from cluster.clock import Ballot
from cluster.objects import buckets
from cluster.objects.model import NULL_VERSION, Version, Versioning
from cluster.register import mutations
from cluster.register.proposer import Proposer
from tests.sim.checkers import ViolationError
from tests.sim.run import simulate
from tests.sim.seeds import find_violation, sweep
from tests.sim.version_checker import (
    MARKER,
    ModeChange,
    Observations,
    VersionOp,
    check_versions,
)
from tests.sim.versions import cluster_scenario, scenario

BATCHES = 4
SHARE, CLUSTER_SHARE = 4, 16  # of the seeds of the other worlds
MUTANT_SEEDS = 300


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.parametrize("batch", range(BATCHES))
def test_seeds(request, batch):
    seeds = request.config.getoption("--seeds") // SHARE
    sweep(scenario, range(batch, seeds, BATCHES), "versions")


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.parametrize("batch", range(BATCHES))
def test_seeds_on_three_nodes(request, batch):
    seeds = request.config.getoption("--seeds") // CLUSTER_SHARE
    sweep(cluster_scenario, range(batch, seeds, BATCHES), "versions-cluster")


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.parametrize("world", [scenario, cluster_scenario])
def test_one_seed_is_one_run(world):
    assert simulate(world, seed=3).digest == simulate(world, seed=3).digest


# -- what goes unnoticed is not checked


@pytest.mark.sim
@pytest.mark.slow
def test_a_null_version_that_replaces_the_others_is_caught(monkeypatch):
    right = mutations._introduce

    def wrong(version, base, ballot, *, named):
        return right(version, base if named else replace(base, versions=()), ballot, named=named)

    monkeypatch.setattr(mutations, "_introduce", wrong)
    find_violation(scenario, range(MUTANT_SEEDS), "no order explains")


@pytest.mark.sim
@pytest.mark.slow
def test_a_confirmation_that_changes_a_stamp_is_caught(monkeypatch):
    right = Proposer._propose

    def wrong(self, state, base, then, bodies=None):
        if self.operation.mutation is None and state.versions:
            newest = replace(state.versions[0], stamp=self._ballot)
            state = replace(state, versions=(newest, *state.versions[1:]))
            then = attrs.evolve(then, state=state)
        return right(self, state, base, then, bodies)

    monkeypatch.setattr(Proposer, "_propose", wrong)
    find_violation(scenario, range(MUTANT_SEEDS), "is not its stamp")


@pytest.mark.sim
@pytest.mark.slow
def test_a_change_of_mode_without_its_fence_is_caught(monkeypatch):
    async def wrong(members, fence, watch):
        return members

    monkeypatch.setattr(buckets, "fence_set", wrong)
    find_violation(scenario, range(300, 600), "no order explains")  # one in three hundred shows it


# -- the checker

ENABLED = [ModeChange(Versioning.ENABLED, -2.0, -1.0)]
SUSPENDED = [*ENABLED, ModeChange(Versioning.SUSPENDED, -1.0, -0.5)]
FIRST, SECOND, THIRD = b"1" * 16, b"2" * 16, b"3" * 16


def op(kind, start, end=None, **more):
    outcome = more.pop("outcome", "ok" if end is not None else "unknown")
    times = {"start": start} | ({} if end is None else {"end": end})
    return VersionOp(kind=kind, key=b"k", outcome=outcome, **times, **more)


def put(at, value, version_id):
    return op("put", at, at + 1, value=value, version_id=version_id)


def listed(at, *seen):
    return op("list", at, at + 1, seen=list(seen))


LEGAL = {
    "newest first": [put(0, "a", FIRST), put(2, "b", SECOND), listed(4, (SECOND, "b"), (FIRST, "a"))],
    "at once, either way": [
        op("put", 0, 5, value="a", version_id=FIRST),
        op("put", 0, 5, value="b", version_id=SECOND),
        listed(6, (FIRST, "a"), (SECOND, "b")),
    ],
    "a marker hides and its removal shows": [
        put(0, "a", FIRST),
        op("delete", 2, 3, version_id=SECOND),
        op("get", 4, 5, seen=MARKER),
        op("get-version", 4, 5, version_id=FIRST, seen="a"),
        op("remove", 6, 7, version_id=SECOND, seen=True),
        op("get", 8, 9, seen="a"),
    ],
    "unknown may be there": [op("put", 0, value="a"), listed(2, (FIRST, "a"))],
    "unknown may never be": [op("put", 0, value="a"), listed(2)],
    "a lost marker": [op("delete", 0), listed(2, (THIRD, MARKER)), op("remove", 4, 5, version_id=THIRD, seen=True), listed(6)],
}  # fmt: skip
ILLEGAL = {
    "order": [put(0, "a", FIRST), put(2, "b", SECOND), listed(4, (FIRST, "a"), (SECOND, "b"))],
    "lost": [put(0, "a", FIRST), put(2, "b", SECOND), listed(4, (SECOND, "b"))],
    "twice": [put(0, "a", FIRST), listed(4, (FIRST, "a"), (FIRST, "a"))],
    "back again": [
        put(0, "a", FIRST),
        op("remove", 2, 3, version_id=FIRST, seen=True),
        listed(4, (FIRST, "a")),
    ],
    "removed twice": [
        put(0, "a", FIRST),
        op("remove", 2, 3, version_id=FIRST, seen=True),
        op("remove", 4, 5, version_id=FIRST, seen=True),
    ],
    "hidden": [put(0, "a", FIRST), op("get", 2, 3, seen=None)],
    "no marker": [put(0, "a", FIRST), op("delete", 2, 3, version_id=SECOND), op("get", 4, 5, seen="a")],
    "of the old mode": [put(0, "a", NULL_VERSION)],
    "in place of a marker": [op("create", 0, 1, value="a", version_id=FIRST), op("create", 2, 3, value="b", version_id=SECOND)],
}  # fmt: skip


@pytest.mark.parametrize("history", LEGAL.values(), ids=LEGAL)
def test_what_may_happen_is_explained(history):
    observed = Observations({(b"k", "a"): (None, FIRST)})
    check_versions([attrs.evolve(op) for op in history], ENABLED, observed)


@pytest.mark.parametrize("history", ILLEGAL.values(), ids=ILLEGAL)
def test_what_may_not_happen_is_not(history):
    with pytest.raises(ViolationError, match="no order explains"):
        check_versions([attrs.evolve(op) for op in history], ENABLED, Observations())


def test_a_suspended_bucket_replaces_its_null_version_alone():
    history = [
        op("put", -1.9, -1.8, value="a", version_id=FIRST),
        put(0, "b", NULL_VERSION),
        put(2, "c", NULL_VERSION),
        listed(4, (NULL_VERSION, "c"), (FIRST, "a")),
    ]
    check_versions(history, SUSPENDED, Observations())
    wrong = [*history[:3], listed(4, (NULL_VERSION, "c"))]
    with pytest.raises(ViolationError):
        check_versions(wrong, SUSPENDED, Observations())


def test_a_version_keeps_its_stamp_and_its_name():
    stamp = Ballot(5, 0, 1)
    version = Version(
        version_id=stamp.pack(), delete_marker=False, stamp=stamp, op_hlc=5, size=0, validator="", attributes=b"", mtime_ms=1,
    )  # fmt: skip
    later = replace(version, stamp=Ballot(6, 0, 1), version_id=Ballot(6, 0, 1).pack())
    observed = Observations()
    assert observed.note_all(b"k", [("a", version, True)]) == [(stamp.pack(), "a")]
    with pytest.raises(ViolationError, match="another version"):
        observed.note(b"k", "a", later)
    with pytest.raises(ViolationError, match="not its stamp"):
        observed.note(b"k", "b", replace(later, version_id=stamp.pack()))
    with pytest.raises(ViolationError, match="order"):
        observed.note_all(b"k", [("a", version, True), ("b", later, False)])
    with pytest.raises(ViolationError, match="latest"):
        observed.note_all(b"k", [("b", later, False), ("a", version, False)])
