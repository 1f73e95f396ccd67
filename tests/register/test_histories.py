"""The protocol holds in thousands of faulty histories, and without any of its safeguards it is caught to fail."""

import pytest

from tests.register.histories import History, run


@pytest.mark.slow
def test_thousands_of_faulty_histories_are_linearizable_and_lose_nothing():
    assert run(range(6000)) == (6000, None)


# Histories within which each safeguard's absence is found; the seeds are fixed, so these are facts and not chances.
@pytest.mark.parametrize(
    ("mutant", "within"),
    [
        ("no-confirm", 1000),
        ("no-ring", 1000),
        ("collect-at-accept", 3000),
        ("propose-unstaged", 1000),
        ("no-bury", 1000),
        ("small-quorum", 1000),
    ],
)
def test_a_protocol_without_its_safeguard_is_caught(mutant, within):
    _, found = run(range(within), mutant)
    assert found is not None


def test_forgotten_promises_are_caught_on_a_pinned_schedule():
    # Found once in some eight thousand histories: a drive forgets a promise while the proposal is on its way.
    _, found = run(range(8039, 8040), "no-ceiling")
    assert found is not None
    assert run(range(8039, 8040)) == (1, None)


def test_one_seed_is_one_history():
    first, again = History(11), History(11)
    first.run()
    again.run()
    assert first.ops == again.ops
