"""The protocol holds in thousands of faulty histories, and without any of its safeguards it is caught to fail."""

import pytest

from tests.register.histories import History, run
from tests.register.mutants import MUTANTS
from tests.register.test_schedules import SCHEDULED

# Histories within which each safeguard's absence is found; the seeds are fixed, so these are facts and not chances.
CAUGHT_WITHIN = 1000
# It takes more to find these: 1,300 to 14,300 histories, at some 600 a second.
RARE_WITHIN = 20_000
RARE = {
    "activate-before-adoption", "collect-at-accept", "collect-what-was-accepted", "no-ceiling", "orphans-of-open-uploads",
    "refuse-before-unknown", "shared-proposer",
}  # fmt: skip


@pytest.mark.slow
def test_thousands_of_faulty_histories_are_linearizable_and_lose_nothing():
    assert run(range(3000)) == (3000, None)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", sorted(MUTANTS.keys() - RARE - SCHEDULED))
def test_a_protocol_without_its_safeguard_is_caught(mutant):
    _, found = run(range(CAUGHT_WITHIN), mutant)
    assert found is not None


@pytest.mark.slow
@pytest.mark.parametrize("mutant", sorted(RARE))
def test_a_protocol_without_a_safeguard_that_is_seldom_needed_is_caught(mutant):
    _, found = run(range(RARE_WITHIN), mutant)
    assert found is not None


def test_the_histories_are_worth_something():
    histories = [History(seed) for seed in range(300)]
    for history in histories:
        history.run()
    done = [op for history in histories for op in history.ops if op.outcome == "ok"]
    assert sum(op.kind == "get" for op in done) > 1000
    assert sum(op.kind != "get" for op in done) > 500
    for what, at_least in (("purges", 10), ("orphans", 50), ("activated", 50)):
        assert sum(history.counts[what] for history in histories) > at_least


def test_one_seed_is_one_history():
    first, again = History(11), History(11)
    first.run()
    again.run()
    assert first.ops == again.ops
