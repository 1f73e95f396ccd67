"""A drive that missed something, or lost a row, comes to hold what the others hold."""

import attrs
import pytest
import trio

from cluster.clock import BALLOT_ZERO
from cluster.drives.unlearnt import PATIENCE_SECONDS
from cluster.healing.catch_up import CaughtUp, catch_up, compare, pass_hints
from cluster.ids import RowKey
from cluster.layout import SYSTEM
from cluster.register.anti_entropy import DropHints, Have, Hints, RowAt, RowPage, Wanted
from cluster.register.keys import system_row
from cluster.register.messages import Accepted, Done, Learn, NotVoting, Query, Value
from tests.contracts.benches import accept, live
from tests.healing.world import world


async def test_a_drive_gets_what_it_heard_that_it_missed(autojump_clock):
    async with world() as w:
        await w.put(inline=b"old")
        with w.hung(3):
            done = await w.put(inline=b"new")
            await trio.sleep(1)
        assert (await w.held(3)).register.ballot < done.ballot
        await w.learn(3, done.ballot)
        assert await catch_up(w.copier, w.drives[3]) == CaughtUp(brought=1)
        value = await w.held(3)
        assert (value.register.ballot, value.register.chosen) == (done.ballot, True)
        assert list(value.bodies.values()) == [b"new"]
        assert await catch_up(w.copier, w.drives[3]) == CaughtUp()


async def test_have_makes_a_drive_want_what_it_lacks(autojump_clock):
    async with world() as w:
        with w.hung(0):
            done = await w.put()
            await trio.sleep(1)
        await w.ask(0, Have(rows=[RowAt(w.ref().row, done.ballot)], epoch=1))
        assert (await catch_up(w.copier, w.drives[0])).brought == 1
        assert (await w.held(0)).register.ballot == done.ballot


async def test_a_corrupt_row_gets_its_state_and_bodies_back(autojump_clock):
    async with world() as w:
        done = await w.put(inline=b"data")
        await trio.sleep(1)
        w.drives[2].crash()
        w.drives[2].platter.index.corrupt.add(w.ref().row)
        assert isinstance(await w.held(2), NotVoting)
        await trio.sleep(2)
        assert await catch_up(w.copier, w.drives[2]) == CaughtUp(brought=1)
        await trio.sleep(1)
        values = [await w.held(position) for position in range(4)]
        assert all(isinstance(value, Value) for value in values)
        assert {value.register.ballot for value in values} == {values[2].register.ballot}
        assert values[2].register.ballot > done.ballot
        assert values[2].register.chosen
        assert list(values[2].bodies.values()) == [b"data"]


async def test_what_no_quorum_can_confirm_is_left(autojump_clock):
    async with world() as w:
        done = await w.put()
        await trio.sleep(1)
        await w.learn(3, done.ballot._replace(hlc=done.ballot.hlc + 1))
        with w.hung(0, 1, 2):
            assert await catch_up(w.copier, w.drives[3]) == CaughtUp(left=1)


@pytest.mark.parametrize("kind", ["hung", "another layout"])
async def test_a_drive_that_does_not_answer_is_left_alone(autojump_clock, kind):
    async with world() as w:
        await w.learn(3, (await w.put()).ballot)
        w.drives[3].faults.hung = kind == "hung"
        if kind == "another layout":
            await w.drives[3].layout.keep(2, b"")
        assert await catch_up(w.copier, w.drives[3]) == CaughtUp()


async def test_peers_tell_what_was_missed_until_the_drive_has_it(autojump_clock):
    async with world(rows=2) as w:
        with w.hung(3):
            for number in range(5):
                await w.put(b"%d" % number)
                await trio.sleep(1)
        peers, cursors = w.drives[:3], {}
        assert await pass_hints(w.copier, w.drives[0], peers, {}) == 0
        lacked = []
        for _ in range(3):
            lacked.append(await pass_hints(w.copier, w.drives[3], peers[:1], cursors))
            await catch_up(w.copier, w.drives[3])
        assert lacked == [2, 2, 1]
        for number in range(5):
            assert (await w.held(3, b"%d" % number)) == await w.held(0, b"%d" % number)
        # Now that it has them, they are forgotten, peer by peer.
        for _ in range(4):
            assert await pass_hints(w.copier, w.drives[3], peers, cursors) == 0
        await trio.sleep(1)
        assert [drive.platter.index.hints for drive in peers] == [{}, {}, {}]


async def test_hints_are_passed_set_by_set(autojump_clock):
    """In another set, and in the system's, the drive has another position."""
    async with world() as w:
        with w.hung(3):
            await w.put()
            await trio.sleep(1)
        system = attrs.evolve(w.copier, set_id=SYSTEM)
        for drive in (w.drives[3], w.drives[0]):
            assert await pass_hints(system, drive, w.drives[1:3], {}) == 0
        await trio.sleep(1)
        hints = [drive.platter.index.hints for drive in w.drives[1:3]]
        assert [list(one) for one in hints] == [[w.ref().row]] * 2
        assert await pass_hints(w.copier, w.drives[3], w.drives[1:3], {}) == 2


async def test_a_hint_about_something_newer_is_not_dropped(autojump_clock):
    async with world() as w:
        old = await w.put()
        await trio.sleep(1)
        with w.hung(3):
            new = await w.put()
            await trio.sleep(1)
        row = w.ref().row
        for ballot, is_left in ((old.ballot, True), (new.ballot, False)):
            drop = DropHints(position=3, places=4, rows=[RowAt(row, ballot)], epoch=1)
            assert await w.ask(0, drop) == Done()
            await trio.sleep(1)
            assert (row in w.drives[0].platter.index.hints) == is_left


async def test_hints_of_other_positions_stay(autojump_clock):
    async with world() as w:
        await w.ask(0, Learn(row=w.ref().row, ballot=(await w.put()).ballot, acceptors=0b0011))
        await trio.sleep(1)
        ballot = (await w.held(0)).register.ballot
        drop = DropHints(position=3, places=4, rows=[RowAt(w.ref().row, ballot)], epoch=1)
        await w.ask(0, drop)
        await trio.sleep(1)
        assert await w.ask(
            0, Hints(position=3, after=RowKey(b""), stop=None, limit=9, epoch=1)
        ) == RowPage([], None)
        named = [RowAt(w.ref().row, ballot)]
        assert await w.ask(
            0, Hints(position=2, after=RowKey(b""), stop=None, limit=9, epoch=1)
        ) == RowPage(named, None)


async def test_what_nobody_knows_any_more_is_not_wanted_for_ever(autojump_clock):
    """The room for wanted rows is bounded."""
    async with world() as w:
        await w.learn(3, w.clock.tick())
        assert await catch_up(w.copier, w.drives[3]) == CaughtUp(brought=1)
        assert await catch_up(w.copier, w.drives[3]) == CaughtUp()


async def accepted_by(w, *positions, key=b"key"):
    """A state that these drives accepted, and nobody was told of; its ballot."""
    ballot = w.clock.tick()
    message = accept(ballot, live(ballot), w.ref(key).row)
    for position in positions:
        assert isinstance(await w.ask(position, message), Accepted)
    return ballot


@pytest.mark.parametrize("positions", [(0, 1, 2), (0, 1), (0,)], ids=str)
async def test_what_nobody_was_told_of_is_settled_after_a_while(autojump_clock, positions):
    """A coordinator that died before LEARN hints at nothing: whoever accepted asks what became of it."""
    async with world() as w:
        await w.put()
        ballot = await accepted_by(w, *positions)
        drive = w.drives[0]
        await trio.sleep(PATIENCE_SECONDS / 2)
        assert await catch_up(w.copier, drive) == CaughtUp()
        await trio.sleep(PATIENCE_SECONDS)
        assert await catch_up(w.copier, drive) == CaughtUp(brought=1)
        await trio.sleep(1)
        held = [(await w.held(position)).register for position in range(4)]
        assert held[0].chosen
        if (
            len(positions) == 3
        ):  # chosen already: who else holds it asks for itself, who missed it compares
            assert held[0].ballot == ballot
        else:
            assert held[0].ballot > ballot
            assert held == [held[0]] * 4
        assert await catch_up(w.copier, drive) == CaughtUp()


async def test_a_drive_that_was_opened_again_finds_what_it_was_not_told_of(autojump_clock):
    async with world() as w:
        ballot = await accepted_by(w, 0, 1, 2)
        w.drives[0].crash()
        await trio.sleep(2 * PATIENCE_SECONDS)
        assert await catch_up(w.copier, w.drives[0]) == CaughtUp()
        await w.drives[0].collect()
        await trio.sleep(2 * PATIENCE_SECONDS)
        assert await catch_up(w.copier, w.drives[0]) == CaughtUp(brought=1)
        register = (await w.held(0)).register
        assert (register.ballot, register.chosen) == (ballot, True)


async def test_what_was_settled_meanwhile_is_not_asked_about_for_ever(autojump_clock):
    async with world() as w:
        slow = w.drives[0]
        await accepted_by(w, 0, 1, 2)
        slow.faults.commit_seconds = 3.0  # what follows is not durable when the walk comes by
        await w.put()
        await slow.collect()
        await trio.sleep(2 * PATIENCE_SECONDS)
        assert await catch_up(w.copier, slow) == CaughtUp()


async def test_a_row_that_cannot_be_had_does_not_keep_others_from_being_asked_about(autojump_clock):
    async with world(rows=2) as w:
        ballot = await accepted_by(w, 0, 1, 2)
        for number in range(4):
            await w.learn(0, w.clock.tick(), b"missed %d" % number)
        await trio.sleep(2 * PATIENCE_SECONDS)
        wants = await w.ask(0, Wanted(limit=2, epoch=1))
        assert [want.chosen for want in wants.rows] == [False, True]
        assert wants.rows[0].ballot == ballot


async def test_asking_for_a_version_shows_and_postpones_nothing(autojump_clock):
    async with world() as w:
        await accepted_by(w, 0, 1, 2)
        await trio.sleep(2 * PATIENCE_SECONDS)
        assert (await w.ask(0, Wanted(limit=0, epoch=1))).rows == []
        assert len((await w.ask(0, Wanted(limit=10, epoch=1))).rows) == 1


async def test_rows_of_another_set_are_not_asked_for_in_this_one(autojump_clock):
    """A drive of the system set has rows of two sets; what a quorum of the wrong one holds is old, and must not be written back."""
    async with world() as w:
        row = system_row(b"layout")
        old, new = w.clock.tick(), w.clock.tick()
        for position in range(3):  # from when these drives were the system set
            await w.ask(position, accept(old, live(old), row))
        await w.ask(3, Learn(row=row, ballot=new))  # which is that drive alone now
        assert await catch_up(w.copier, w.drives[3]) == CaughtUp()
        await trio.sleep(1)
        query = Query(row=row, epoch=1, bucket_epoch=1)
        assert [(await w.ask(p, query)).register.ballot for p in range(4)] == [old] * 3 + [
            BALLOT_ZERO
        ]


async def test_what_no_hint_tells_of_is_found_by_comparing(autojump_clock):
    """The coordinator died between LEARN and the hints."""
    async with world(rows=2) as w:
        ballots = []
        for number in range(5):
            key = b"%d" % number
            ballots.append(await accepted_by(w, 0, 1, 2, key=key))
            for position in range(3):
                await w.learn(position, ballots[-1], key)
        await w.put(b"later")  # with whose commit LEARN became durable
        await trio.sleep(1)
        lacked, after, rounds = 0, None, 0
        while rounds == 0 or after is not None:
            some, after = await compare(w.copier, w.drives[3], w.drives[0], after)
            lacked, rounds = lacked + some, rounds + 1
        assert (lacked, rounds) == (5, 4)
        while (await catch_up(w.copier, w.drives[3])).brought:
            pass
        for number, ballot in enumerate(ballots):
            assert (await w.held(3, b"%d" % number)).register.ballot >= ballot


OLD = RowKey(b"a")


async def test_a_peer_that_does_not_answer_is_asked_again_from_there(autojump_clock):
    async with world() as w:
        await w.put()
        with w.hung(0):
            assert await compare(w.copier, w.drives[3], w.drives[0], OLD) == (0, OLD)
        with w.hung(3):
            assert await compare(w.copier, w.drives[3], w.drives[0], OLD) == (0, OLD)
