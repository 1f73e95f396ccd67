"""The cache of access keys over real registers, in virtual time: what it costs, what it says, and when it gives up."""

import itertools

import pytest
import trio
from msgspec.structs import replace

from cluster.access.credentials import MAX_STRANGERS
from cluster.access.directory import AccessChanged, tell_nobody
from cluster.access.leases import LeaseSettings
from cluster.access.records import AccessKey, key_name
from cluster.access.registers import read_record, write_record
from cluster.errors import (
    ConfigError,
    ExistsError,
    NotFoundError,
    OutcomeUnknownError,
    OverloadedError,
    QuorumError,
    UnavailableError,
)
from tests.access.world import TINY, over_drives, refuse_drives, restore_drives

STRANGER = "SK" + "2" * 18


async def with_key(node, *policies):
    await node.directory.add_user("ann", policies)
    return await node.directory.create_key("ann")


@over_drives()
async def test_a_key_is_found_on_every_node_with_its_secret_and_policies(world, make):
    one, two = make(), make()
    await one.directory.set_policy("mine", "{}")
    pair = await with_key(one, "readonly", "mine")
    for node in (one, two):
        holder = await node.credentials.find(pair.access_key)
        assert (holder.user, holder.secret) == ("ann", pair.secret_key)
        assert len(holder.documents) == 2


@over_drives()
async def test_within_the_lease_nothing_is_read_and_then_one_round(world, make):
    node = make()
    pair = await with_key(node, "readwrite")
    await node.credentials.find(pair.access_key)
    node.reads.clear()
    began = trio.current_time()
    while trio.current_time() < began + 10:
        assert await node.credentials.find(pair.access_key) is not None
        await trio.sleep(0.01)
    assert len(node.reads) <= 2 * 5  # the key's register and the user's, every 2 s


@over_drives()
async def test_concurrent_lookups_share_one_read_and_strangers_are_remembered(world, make):
    node = make()

    async def look():
        assert await node.credentials.find(STRANGER) is None

    for _ in range(2):
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(look)
    assert len(node.reads) == 1
    await trio.sleep(2.1)
    await look()
    assert len(node.reads) == 2
    assert await node.credentials.find("AKIAIOSFODNN7EXAMPLE") is None
    assert len(node.reads) == 2  # no key of ours looks like that


@over_drives(settings=LeaseSettings(max_absent=50))
async def test_a_flood_of_strangers_is_bounded_and_does_not_keep_holders_out(world, make):
    node = make()
    pair = await with_key(node)
    await node.credentials.find(pair.access_key)
    await trio.sleep(2.5)
    for drive in world.drives:
        drive.faults.hung = True
    outcomes = []

    async def look(key):
        try:
            outcomes.append(await node.credentials.find(key))
        except UnavailableError as error:
            outcomes.append(type(error))

    async with trio.open_nursery() as nursery:
        for letters in itertools.product("ABCDEFGHIJ", repeat=3):
            nursery.start_soon(look, f"SK{'A' * 15}{''.join(letters)}")
        await trio.sleep(0.1)
        assert outcomes.count(OverloadedError) == 1000 - MAX_STRANGERS
        restore_drives(world)
        nursery.start_soon(look, pair.access_key)
    assert any(getattr(o, "user", None) == "ann" for o in outcomes)


@over_drives()
async def test_a_change_reaches_a_node_that_is_not_told_within_the_lease(world, make):
    one, two = make(), make()
    pair = await with_key(one, "readwrite")
    assert await two.credentials.find(pair.access_key) is not None
    for change, name in [
        (one.directory.set_key_disabled, pair.access_key),
        (one.directory.set_user_disabled, "ann"),
    ]:
        for disabled in (True, False):
            await change(name, disabled=disabled)
            assert (await one.credentials.find(pair.access_key) is None) is disabled
            await trio.sleep(2.001)
            assert (await two.credentials.find(pair.access_key) is None) is disabled
    await one.directory.detach("ann", "readwrite")
    await trio.sleep(2.001)
    assert (await two.credentials.find(pair.access_key)).documents == ()


@over_drives()
async def test_a_removed_user_takes_its_keys_along_and_the_next_of_that_name_does_not_get_them(
    world, make
):
    node = make()
    pair = await with_key(node)
    assert await node.credentials.find(pair.access_key) is not None
    await node.directory.remove_user("ann")
    assert await node.credentials.find(pair.access_key) is None
    assert await node.directory.keys() == []
    await node.directory.add_user("ann")
    assert await node.credentials.find(pair.access_key) is None


@over_drives(settings=TINY)
async def test_without_a_quorum_what_is_known_is_used_for_a_while_and_the_rest_is_503(world, make):
    node = make()
    pair = await with_key(node)
    began = trio.current_time()
    assert await node.credentials.find(pair.access_key) is not None
    await refuse_drives(world)
    await trio.sleep(TINY.lease + 0.1)
    assert await node.credentials.find(pair.access_key) is not None
    with pytest.raises(UnavailableError):
        await node.credentials.find(STRANGER)
    reads = len(node.reads)
    asked = trio.current_time()
    while trio.current_time() < asked + TINY.lease * 0.9:
        assert await node.credentials.find(pair.access_key) is not None
        await trio.sleep(0.01)
    assert len(node.reads) <= reads + 2  # in vain once, not for every request
    await trio.sleep(began + TINY.outage - trio.current_time())
    with pytest.raises(UnavailableError):
        await node.credentials.find(pair.access_key)
    restore_drives(world)
    await trio.sleep(1)
    assert await node.credentials.find(pair.access_key) is not None


@over_drives(settings=TINY)
async def test_a_change_without_a_quorum_fails_and_takes_no_effect(world, make):
    node = make()
    pair = await with_key(node)
    await refuse_drives(world)
    for change in (
        lambda: node.directory.set_key_disabled(pair.access_key, disabled=True),
        lambda: node.directory.add_user("bob"),
        lambda: node.directory.create_key("ann"),
        lambda: node.directory.set_policy("mine", "{}"),
        lambda: node.directory.remove_user("ann"),
    ):
        with pytest.raises(QuorumError):
            await change()
    restore_drives(world)
    await trio.sleep(5)
    assert await node.credentials.find(pair.access_key) is not None
    assert [user.name for user in await node.directory.users()] == ["ann"]
    assert [key.key_id for key in await node.directory.keys()] == [pair.access_key]
    assert await node.directory.policies() == []


@over_drives()
async def test_a_read_that_a_change_overtook_is_not_kept(world, make):
    node = make()
    pair = await with_key(node)
    read = node.credentials._table.read
    wait = trio.Event()

    async def slow(ref, **kwargs):
        reading = await read(ref, **kwargs)
        await wait.wait()
        return reading

    node.credentials._table.read = slow
    async with trio.open_nursery() as nursery:
        found = []

        async def look():
            found.append(await node.credentials.find(pair.access_key))

        nursery.start_soon(look)
        await trio.sleep(0.1)
        node.credentials._table.read = read
        await make().directory.set_key_disabled(pair.access_key, disabled=True)
        node.credentials.forget([key_name(pair.access_key)])
        wait.set()
    assert found == [None]


@over_drives()
async def test_what_is_refused_says_why(world, make):
    directory = make().directory
    await directory.add_user("ann")
    await directory.set_policy("mine", "{}")
    await directory.attach("ann", "mine")
    for error, call in [
        (ExistsError, lambda: directory.add_user("ann")),
        (ConfigError, lambda: directory.add_user("a b")),
        (NotFoundError, lambda: directory.add_user("bob", ["none"])),
        (NotFoundError, lambda: directory.attach("ann", "none")),
        (NotFoundError, lambda: directory.attach("bob", "readonly")),
        (NotFoundError, lambda: directory.detach("ann", "readonly")),
        (NotFoundError, lambda: directory.create_key("bob")),
        (NotFoundError, lambda: directory.set_key_disabled(STRANGER, disabled=True)),
        (NotFoundError, lambda: directory.remove_key(STRANGER)),
        (NotFoundError, lambda: directory.remove_policy("none")),
        (ConfigError, lambda: directory.remove_policy("mine")),
        (ConfigError, lambda: directory.remove_policy("readonly")),
        (ConfigError, lambda: directory.set_policy("readonly", "{}")),
        (ConfigError, lambda: directory.set_policy("long", "x" * 30_000)),
    ]:
        with pytest.raises(error):
            await call()
    await directory.detach("ann", "mine")
    await directory.remove_policy("mine")
    with pytest.raises(NotFoundError):
        await directory.policy("mine")


@over_drives()
async def test_a_change_is_an_event_without_its_secret(world, make):
    node = make()
    pair = await with_key(node)
    await node.directory.remove_key(pair.access_key)
    events = [event for event in node.runtime.events if isinstance(event, AccessChanged)]
    name = f"access/key/{pair.access_key}"
    assert [event.register for event in events] == ["access/user/ann", name, name]
    assert pair.secret_key not in repr(node.runtime.events)


@over_drives()
async def test_two_nodes_change_one_user_at_once_and_both_changes_stand(world, make):
    one, two = make(), make()
    await one.directory.add_user("ann")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.directory.attach, "ann", "readonly")
        nursery.start_soon(two.directory.attach, "ann", "readwrite")
    (user,) = await one.directory.users()
    assert user.policies == ("readonly", "readwrite")


@over_drives()
async def test_peers_that_do_not_listen_delay_the_removal_of_a_user_once_and_not_for_each_key(
    world, make
):
    async def notify(names):
        await trio.sleep_forever()

    node, quick = make(notify), make()
    await with_key(quick)
    for _ in range(9):
        await quick.directory.create_key("ann")
    began = trio.current_time()
    await node.directory.remove_user("ann")
    assert await quick.directory.keys() == []
    assert trio.current_time() - began < 3


@over_drives()
async def test_the_secret_is_stored_sealed(world, make):
    node = make()
    pair = await with_key(node)
    record, _ = await read_record(node.table, key_name(pair.access_key), AccessKey)
    assert pair.secret_key.encode() not in record.sealed


@over_drives()
async def test_a_change_is_told_and_a_peer_that_does_not_listen_delays_it_no_longer_than_the_lease(
    world, make
):
    told = []

    async def notify(names):
        told.extend(names)
        await trio.sleep_forever()

    node = make(notify)
    began = trio.current_time()
    await node.directory.add_user("ann")
    assert told == [b"access/user/ann"]
    assert trio.current_time() - began < 2.1
    assert await tell_nobody(told) is None


@over_drives()
async def test_a_key_whose_secret_cannot_be_opened_is_unavailable_and_brings_nothing_down(
    world, make
):
    one, two = make(), make()
    pair = await with_key(one)
    two.vault.open(b"z" * 32)
    with pytest.raises(UnavailableError, match="does not open"):
        await two.credentials.find(pair.access_key)
    record, stamp = await read_record(one.table, key_name(pair.access_key), AccessKey)
    for sealed in (b"", b"[]", b"{}", b'{"access_key": 1, "nonce": "", "sealed": ""}', b"\xff"):
        await write_record(one.table, replace(record, sealed=sealed), stamp)
        _, stamp = await read_record(one.table, key_name(pair.access_key), AccessKey)
        one.credentials.forget([key_name(pair.access_key)])
        with pytest.raises(UnavailableError, match="no sealed key"):
            await one.credentials.find(pair.access_key)
    other = await one.directory.create_key("ann")
    theirs, _ = await read_record(one.table, key_name(other.access_key), AccessKey)
    await write_record(one.table, replace(record, sealed=theirs.sealed), stamp)
    with pytest.raises(UnavailableError, match="secret of another"):
        await one.credentials.find(pair.access_key)


@over_drives()
async def test_a_record_of_a_newer_version_is_no_outage_that_the_old_one_could_bridge(world, make):
    node = make()
    pair = await with_key(node)
    assert await node.credentials.find(pair.access_key) is not None
    name = key_name(pair.access_key)
    data, _ = await node.table.read_document(name)
    await node.table.write_document(name, data[:4] + b"\x02" + data[5:])
    await trio.sleep(2.1)
    for _ in range(2):
        with pytest.raises(UnavailableError, match="format 02"):
            await node.credentials.find(pair.access_key)


@over_drives()
async def test_a_node_that_has_not_come_up_yet_says_so(world, make):
    node = make()
    pair = await with_key(node)
    node.vault._key = None
    node.credentials.forget([key_name(pair.access_key)])
    with pytest.raises(UnavailableError, match="waits for drives"):
        await node.credentials.find(pair.access_key)
    with pytest.raises(UnavailableError, match="waits for drives"):
        await node.directory.create_key("ann")


@over_drives(settings=TINY)
async def test_a_user_whose_keys_cannot_be_removed_any_more_is_gone_all_the_same(world, make):
    node = make()
    pair = await with_key(node)
    keys = node.directory.keys

    async def lost():
        await refuse_drives(world)
        return await keys()

    node.directory.keys = lost
    with pytest.raises(OutcomeUnknownError, match="user ann is gone"):
        await node.directory.remove_user("ann")
    restore_drives(world)
    await trio.sleep(5)
    assert await node.credentials.find(pair.access_key) is None
    assert [key.key_id for key in await keys()] == [pair.access_key]
    await node.directory.remove_key(pair.access_key)
