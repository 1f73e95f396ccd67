"""No read misses a chosen value while members change, and without each rule one does."""

import attrs
import pytest

from cluster.quorum import Quorum
from cluster.topology import changes
from tests.topology.histories import History, stale

HISTORIES = 3000


@pytest.mark.slow
def test_no_read_is_stale_while_drives_are_replaced_and_moved():
    assert stale(range(HISTORIES)) is None


def test_the_histories_are_worth_something():
    histories = [History(seed) for seed in range(200)]
    for history in histories:
        history.run()
    assert sum(h.reads for h in histories) > 2000
    assert sum(h.activations for h in histories) > 40
    assert sum(h.chosen > 0 for h in histories) > 150


@attrs.frozen
class _Lax:
    """A quorum object in which one of the numbers is one too small."""

    n: int
    read_less: int = 0
    accept_less: int = 0

    @property
    def read(self):
        return Quorum(self.n).read - self.read_less

    @property
    def accept(self):
        return Quorum(self.n).accept - self.accept_less


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mutant"),
    [
        ("Quorum", lambda n: _Lax(n, read_less=1)),  # synced from one too few
        ("Quorum", lambda n: _Lax(n, accept_less=1)),  # adopted by one too few
    ],
    ids=["sync", "activation"],
)
def test_without_a_rule_a_read_is_stale(monkeypatch, name, mutant):
    monkeypatch.setattr(changes, name, mutant)
    assert stale(range(HISTORIES)) is not None
