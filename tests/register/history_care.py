"""What the cluster does by itself in a history: replaced drives, purges, orphans, catching up, repairs."""

from msgspec.structs import replace

from cluster.healing.judgement import Verdict, judge
from cluster.ids import data_id_hlc
from cluster.register.anti_entropy import Changed, Have, Held, Install, Purge, RowAt, Wanted, Wants
from cluster.register.messages import Learn
from cluster.register.mutations import record_data
from cluster.register.proposer import Committed
from cluster.register.records import Register
from tests.register.history_clients import ROW, Client
from tests.register.history_drive import Pull, Rows

# Without the ceilings of Qw drives; these have adopted the epoch, too, so that the activation rule hides behind them.
_QR_IS_ENOUGH = {"sync-from-one-too-few", "sync-without-ceilings", "activate-before-adoption"}


class Care(Client):
    """Scripts of the cluster's own."""

    # -- catching up

    def catch_up(self, drive):
        """INSTALL of what another drive knows to be chosen; the pull may take its time."""
        layout = self.h.layouts[self.node.epoch]
        version = yield from self._version(drive)
        source = self.h.rng.choice([d for d in layout.drives if d is not drive] or [drive])
        found = yield from self.ask_one(source, Pull(layout.epoch))
        yield self.sleep(self.h.rng.choice([5, 50, 500, 3000, 9000]))
        if version is None or not isinstance(found, Rows):
            return
        for row, held in found.rows.items():
            if isinstance(held, Register) and held.chosen:
                yield from self.ask_one(drive, _install(row, held, version, drive.control.epoch))
                self.h.heal(drive)

    def _version(self, drive):
        wants = yield from self.ask_one(drive, Wanted(limit=1, epoch=drive.control.epoch))
        return wants.version if isinstance(wants, Wants) else None

    def repair(self):
        """An identity write: above all that a corrupt row can have held."""
        yield from self.commit(ROW, None, rewrite=True, tries=4)

    # -- tombstones

    def purge(self, own):
        h, layout = self.h, self.h.layouts[self.node.epoch]
        held = own.register(ROW)
        is_old = self.clock.tick().hlc > held.ballot.hlc + h.limits.op_ttl_ms
        if not (is_old and held.chosen and held.state.is_tombstone):
            return
        named = [RowAt(ROW, held.ballot)]
        replies = yield self.ask(
            layout.drives,
            Have(rows=named, epoch=layout.epoch),
            lambda r: len(r) == len(layout.drives),
        )
        ballots = [r.ballots[0] if isinstance(r, Held) else None for r in replies.values()]
        by_all = len(ballots) == len(layout.drives) and None not in ballots
        if (by_all and min(ballots) >= held.ballot) or h.mutant == "purge-what-some-lack":
            h.counts["purges"] += 1
            for drive in layout.drives:
                h.send(self.node, drive, Learn(row=ROW, ballot=held.ballot), _ignore)
            yield self.ask(layout.drives, Purge(rows=named, epoch=layout.epoch), lambda _: False)
        elif by_all:
            yield from self._pass_on(own, layout, replies, held.ballot)

    def _pass_on(self, own, layout, replies, ballot):
        for index, reply in replies.items():
            if reply.ballots[0] < ballot:
                drive = layout.drives[index]
                version = yield from self._version(drive)
                found = yield from self.ask_one(own, Pull(layout.epoch))
                held = found.rows.get(ROW) if isinstance(found, Rows) else None
                if version is not None and isinstance(held, Register) and held.chosen:
                    yield from self.ask_one(drive, _install(ROW, held, version, layout.epoch))

    # -- shards without an owner

    def collect_orphans(self, drive):
        h = self.h
        horizon = self.clock.tick().hlc - h.limits.max_put_ms - h.limits.op_ttl_ms
        for data_id in [x for x in sorted(drive.shards) if data_id_hlc(x) < horizon]:
            if data_id in record_data(drive.register(ROW).state):
                continue
            if h.mutant != "orphans-by-age":
                found = yield from self.read(ROW)
                if found is None:
                    return
                verdict = self._judge(found, data_id)
                if verdict is Verdict.FENCE:
                    step = yield from self.commit(ROW, None, rewrite=True)
                    if not isinstance(step, Committed):
                        return
                    found = Register(ballot=step.ballot, state=step.state, chosen=True)
                    verdict = self._judge(found, data_id)
                if verdict is not Verdict.COLLECT:
                    continue
            yield self.sleep(h.rng.choice([0, 0, 300]))
            h.counts["orphans"] += data_id in drive.shards
            drive.unlink({data_id})

    def _judge(self, found, data_id):
        found = replace(found, chosen=True)
        if self.h.mutant == "orphans-of-open-uploads":
            found = replace(found, state=replace(found.state, uploads=()))
        return judge(found, (), data_id, self.h.limits)

    # -- a drive takes another's place

    def rebuild(self, new, since):
        """SYNC from a read quorum of others that serve the epoch, then the activation rule, then a vote."""
        h = self.h
        before, place = h.layouts[since - 1], new.position
        taken = set()
        while not self._has_enough(before, taken):
            yield self.sleep(100)
            others = [d for d in before.drives if not d.lost and d not in taken]
            if new.up and others:
                source = h.rng.choice(others)
                if (yield from self._sync(new, source, since)):
                    taken.add(source)
        while not self._adopted(before, since):
            yield self.sleep(100)
        h.heal(new)
        h.counts["activated"] += 1
        h.change_layout(new, place, votes=True)

    def _sync(self, new, source, since):
        h = self.h
        version = yield from self._version(new)
        epoch = source.control.epoch if h.mutant == "sync-before-adoption" else new.control.epoch
        found = yield from self.ask_one(source, Pull(epoch))
        if version is None or not isinstance(found, Rows):
            return False
        if found.epoch < since and h.mutant != "sync-before-adoption":
            return False
        for row, held in found.rows.items():
            if not isinstance(held, Register):
                return False  # not absent: it has to be repaired first
            if h.mutant == "sync-what-is-chosen" and not held.chosen:
                continue
            if not new.up:
                return False
            if isinstance(new.install(_install(row, held, version, new.control.epoch)), Changed):
                return False
            version = sum(new.changes.values())
        new.acceptor.raise_floor(found.floor)
        return True

    def _has_enough(self, before, taken):
        """Rows of Qr others; ceilings of Qw drives that voted before, or of all that are not gone."""
        if len(taken) < before.electorate.read.needed - (self.h.mutant == "sync-from-one-too-few"):
            return False
        if self.h.mutant in _QR_IS_ENOUGH:
            return True
        is_all = all(drive in taken or drive.lost for drive in before.drives)
        return is_all or len(taken) >= before.electorate.accept[0].needed

    def _adopted(self, before, since):
        if self.h.mutant == "activate-before-adoption":
            return True
        hold = sum(drive.lost or drive.control.epoch >= since for drive in before.drives)
        return hold >= before.electorate.accept[0].needed


def _install(row, held, version, epoch):
    return Install(
        row=row, ballot=held.ballot, epoch=epoch, version=version, state=held.state, chosen=held.chosen
    )  # fmt: skip


def _ignore(*_):
    pass
