"""What looks at the drives has teeth: without a safeguard each invariant, the space check and liveness find something."""

import pytest
import trio

from cluster.drives import memory_drive
from cluster.drives.drive import DriveState
from cluster.drives.leftovers import Leftovers
from cluster.drives.memory_drive import MemoryDrive
from cluster.drives.registers import Registers
from cluster.drives.remote_node import RemoteNode
from cluster.healing import purge, service
from cluster.healing.copying import Copier
from cluster.healing.stray_parts import Dropped
from cluster.objects import put, staging
from cluster.register.acceptor import Acceptor
from cluster.register.anti_entropy import Have, Held
from tests.sim import cluster, single_node
from tests.sim.cluster import NODES
from tests.sim.content import put_request
from tests.sim.quiet import quiet_world
from tests.sim.run import simulate
from tests.sim.seeds import find_violation

pytestmark = [pytest.mark.sim, pytest.mark.slow]


def test_a_body_that_is_named_before_enough_shards_are_durable(monkeypatch):
    for module in (put, staging):
        monkeypatch.setattr(module, "durable_shards", lambda k, n: 1)
    find_violation(cluster.scenario, range(20), "I4")


def test_a_shard_that_changes_under_its_name(monkeypatch):
    keep_shard = MemoryDrive.keep_shard

    async def rewrite(self, header, shard):
        await keep_shard(self, header, shard)
        key = (header.data_id, header.position)
        for other in self.platter.shards.keys() - {key}:
            self.platter.shards[other] = shard

    monkeypatch.setattr(MemoryDrive, "keep_shard", rewrite)
    find_violation(single_node.scenario, range(20), "I6")


async def deleted_while_a_node_is_away(rng, trace):
    """So long that its tombstone is old, and the others would forget it."""
    async with quiet_world(rng, trace, delay=0.001, commit=0.001) as (world, bucket):
        store = world.processes[NODES[0]].store
        await store.put(bucket, b"key", put_request((1, 1), rng))
        for other in NODES[:2]:
            world.network.partition(other, NODES[2])
        await trio.sleep(5)
        await store.delete(bucket, b"key")
        world.oracle.look()
        world.calendar.leap(1)
        await trio.sleep(20)
        world.oracle.look()


def test_a_tombstone_that_goes_before_all_hold_it(monkeypatch):
    ask_each = Copier.ask_each

    async def take_silence_for_yes(self, questions):
        replies = await ask_each(self, questions)
        return [
            Held([named.ballot for named in request.rows], 0)
            if isinstance(request, Have) and not isinstance(reply, Held)
            else reply
            for reply, (_, request) in zip(replies, questions, strict=True)
        ]

    simulate(deleted_while_a_node_is_away, seed=1)
    monkeypatch.setattr(Copier, "ask_each", take_silence_for_yes)
    monkeypatch.setattr(purge, "ANSWERING", frozenset(DriveState))
    find_violation(deleted_while_a_node_is_away, [1], "I9")


def test_a_drive_that_answers_though_it_has_failed(monkeypatch):
    def show(self, seq, reply, answer):
        if seq <= self._commits.durable:
            reply(answer)

    monkeypatch.setattr(memory_drive, "ANSWERING", frozenset(DriveState))
    monkeypatch.setattr(Registers, "when_shown", show)
    find_violation(single_node.scenario, range(60), "I12")


def test_a_shard_that_nobody_owes(monkeypatch):
    monkeypatch.setattr(Acceptor, "_owed", lambda self, parts, missed: ())
    find_violation(cluster.scenario, range(20), "I17")


async def drop_nothing(*_):
    return Dropped()


def test_data_that_nobody_discards(monkeypatch):
    monkeypatch.setattr(Leftovers, "discard", lambda self, data: None)
    find_violation(cluster.space_scenario, range(20), "space, or equality")


def test_parts_that_nobody_drops(monkeypatch):
    monkeypatch.setattr(Leftovers, "_close_upload", lambda self, *_: None)
    monkeypatch.setattr(service, "drop_stray_parts", drop_nothing)
    find_violation(cluster.space_scenario, range(20), "closed upload")


def test_a_peer_that_is_full_for_ever(monkeypatch):
    exchange = RemoteNode._exchange

    async def forget_to_count_out(self, batch):
        await exchange(self, batch)
        self._unanswered += len(batch)

    monkeypatch.setattr(RemoteNode, "_exchange", forget_to_count_out)
    find_violation(cluster.scenario, range(60), "did not recover")
