"""What an access key stands for, by a table of what its registers say."""

import attrs
import pytest
from msgspec.structs import replace

from cluster.access.builtin import BUILT_IN
from cluster.access.leases import KnownKey, Leases, LeaseSettings
from cluster.access.records import Policy, User, key_name, policy_name, user_name
from cluster.access.resolve import Ask, Settled, walk

ID = "SK" + "A" * 18
KEY = KnownKey(user="ann", user_id=b"1", disabled=False, secret="hidden")
ANN = User(name="ann", user_id=b"1", disabled=False, policies=("mine", "readonly"), created_ms=0)
MINE = Policy(name="mine", document="{mine}")
NAMES = (key_name(ID), user_name("ann"), policy_name("mine"))


def resolve(key, user, policy, now=1.0):
    leases = Leases(LeaseSettings())
    for name, known in zip(NAMES, (key, user, policy), strict=True):
        leases.keep(name, known, None, 0.0)
    return walk(ID, leases, now=now, since=now)


def test_a_good_key_is_its_user_with_the_documents_of_all_policies():
    holder = resolve(KEY, ANN, MINE).holder
    assert (holder.user, holder.secret) == ("ann", "hidden")
    assert holder.documents == ("{mine}", BUILT_IN["readonly"])
    assert "hidden" not in repr(holder) + repr(KEY)


@pytest.mark.parametrize(
    ("key", "user"),
    [
        (None, ANN),
        (attrs.evolve(KEY, disabled=True), ANN),
        (KEY, None),
        (KEY, replace(ANN, disabled=True)),
        (KEY, replace(ANN, user_id=b"2")),  # another user of that name, later
    ],
)
def test_a_key_that_is_not_to_be_used_is_nobodys(key, user):
    assert resolve(key, user, MINE) == Settled(None)


def test_a_policy_that_is_gone_leaves_nothing_allowed():
    assert resolve(KEY, ANN, None).holder.documents == ()


def test_what_is_not_known_is_asked_for_as_far_as_the_way_is_known():
    leases = Leases(LeaseSettings())
    assert walk(ID, leases, now=0, since=0) == Ask(NAMES[:1])
    leases.keep(NAMES[0], KEY, None, 0.0)
    assert walk(ID, leases, now=0, since=0) == Ask(NAMES[1:2])
    leases.keep(NAMES[1], ANN, None, 0.0)
    assert walk(ID, leases, now=0, since=0) == Ask(NAMES[2:])


def test_when_the_leases_have_run_out_all_is_asked_for_in_one_round():
    assert resolve(KEY, ANN, MINE, now=2.1) == Ask(NAMES)


def test_a_disabled_key_does_not_ask_for_its_user():
    assert resolve(attrs.evolve(KEY, disabled=True), None, None, now=2.1) == Ask(NAMES[:1])
