"""When what was read may still be used: by a table, and as a rule."""

import pytest
from hypothesis import given, strategies as st

from cluster.access.leases import Kept, Leases, LeaseSettings
from cluster.access.records import Policy

SETTINGS = LeaseSettings(lease=2.0, outage=60.0, max_known=3, max_absent=2)
POLICY = Policy(name="p", document="{}")


@pytest.mark.parametrize(
    ("began", "in_vain", "now", "since", "usable"),
    [
        (10.0, None, 12.0, 12.0, True),  # the end of the lease
        (10.0, None, 12.1, 12.1, False),
        (10.0, None, 15.0, 10.0, True),  # read for this very request, slowly
        (10.0, None, 15.0, 10.1, False),
        (10.0, 14.0, 15.0, 15.0, True),  # asked in vain a moment ago
        (10.0, 12.0, 15.0, 15.0, False),  # too long ago: ask again
        (10.0, 69.0, 70.0, 70.0, True),
        (10.0, 69.0, 70.1, 70.1, False),  # the outage lasts too long
    ],
)
def test_the_table_of_leases(began, in_vain, now, since, usable):
    leases = Leases(SETTINGS)
    leases.keep(b"n", POLICY, None, began)
    if in_vain is not None:
        leases.note_outage(b"n", in_vain)
    assert leases.is_usable(leases.find(b"n"), now=now, since=since) is usable


def test_what_is_absent_is_never_used_without_a_quorum():
    leases = Leases(SETTINGS)
    leases.keep(b"n", None, None, 10.0)
    assert leases.is_usable(leases.find(b"n"), now=11.0, since=11.0)
    assert not leases.note_outage(b"n", 13.0)
    assert not leases.is_usable(leases.find(b"n"), now=13.0, since=13.0)


def test_strangers_displace_strangers_only_and_the_tables_are_bounded():
    leases = Leases(SETTINGS)
    leases.keep(b"known", POLICY, None, 1.0)
    for number in range(100):
        leases.keep(b"stranger%d" % number, None, None, 1.0)
    assert leases.find(b"known") is not None
    assert leases.find(b"stranger99") is not None
    assert len(leases) == 3
    for number in range(100):
        leases.keep(b"known%d" % number, POLICY, None, 1.0)
    assert len(leases) == 5


def test_of_a_full_table_what_was_read_longest_ago_goes():
    leases = Leases(SETTINGS)
    for name in (b"a", b"b", b"c", b"a", b"d"):
        leases.keep(name, POLICY, None, 1.0)
    assert leases.find(b"a") is not None
    assert leases.find(b"b") is None


TIMES = st.floats(0, 200, allow_nan=False)


@given(began=TIMES, in_vain=st.none() | TIMES, since=TIMES, waited=TIMES)
def test_without_outage_nothing_older_than_the_lease_is_used(began, in_vain, since, waited):
    now = since + waited
    leases = Leases(SETTINGS)
    leases.keep(b"n", POLICY, None, began)
    if in_vain is not None:
        leases.note_outage(b"n", in_vain)
    kept = leases.find(b"n")
    assert isinstance(kept, Kept)
    if leases.is_usable(kept, now=now, since=since):
        fresh = began >= since - SETTINGS.lease
        bridged = in_vain is not None and now - began <= SETTINGS.outage
        assert fresh or bridged
