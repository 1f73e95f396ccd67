"""A drive of a history: the real acceptor over rows and shards in dictionaries, every change durable at once."""

from bisect import bisect_left

import attrs

from cluster.clock import floor_at
from cluster.drives.roll_up import roll_up
from cluster.ids import RowKey
from cluster.register.acceptor import CORRUPT, Chosen, Control, Promised, Write, collectable
from cluster.register.anti_entropy import Have, Held, Install, Purge, Wanted, Wants
from cluster.register.keys import is_part
from cluster.register.messages import (
    CHOSEN,
    LIVE,
    Accept,
    Accepted,
    Done,
    Learn,
    Page,
    Prepare,
    Query,
    Scan,
    ScanRow,
    Value,
)
from cluster.register.mutations import record_data
from cluster.register.records import BOTTOM, Register
from tests.register.mutants import Weakened


@attrs.frozen
class Stage:
    """A shard is written, and durable when it is answered."""

    data_id: bytes


@attrs.frozen
class Pull:
    """SYNC of all rows; or, of a healthy drive, whatever it holds."""

    epoch: int


@attrs.frozen
class Rows:
    """Answer to Pull."""

    rows: dict
    floor: object  # the garbage collector's, or that of all promises
    epoch: int


class Drive:
    """The durable side of one drive, and its acceptor."""

    def __init__(self, position, limits, mutant, epoch=1):
        self.position, self.limits, self.mutant = position, limits, mutant
        self.control = Control(epoch=epoch)
        self.rows: dict[RowKey, Register | object] = {}
        self.changes: dict[RowKey, int] = {}  # of rows, counted; purges too
        self.shards, self.gone_shards = set(), set()
        self.seen = set()  # data in states that were known chosen here
        self.voting, self.up, self.lost = True, True, False
        self.boot()

    def boot(self):
        if self.mutant == "no-ceiling":
            self.control.ceiling_ms = 0
        self.acceptor = Weakened(self.control, set_id=0, position=self.position, limits=self.limits)
        self.acceptor.mutant, self.acceptor.voting = self.mutant, self.voting
        self.up = True

    def vote(self, voting):
        self.voting = self.acceptor.voting = voting

    def held(self, row):
        return self.rows.get(row, BOTTOM)

    def register(self, row):
        """What it holds, for whoever looks from outside."""
        held = self.held(row)
        return held if isinstance(held, Register) else BOTTOM

    def put(self, row, held):
        self.rows[row] = held
        self.changes[row] = self.changes.get(row, 0) + 1

    def corrupt(self, row):
        """Found when it is read again after a restart: what the process remembered of it is gone, too."""
        if row in self.rows:
            if self.up:
                self.boot()
            self.rows[row] = BOTTOM if self.mutant == "corrupt-is-absent" else CORRUPT
            self.acceptor.note_corrupt(row)

    def answer(self, message):
        acceptor = self.acceptor
        match message:
            case Stage(data_id=data_id):
                if data_id not in self.gone_shards:
                    self.shards.add(data_id)
                    return Done()
                return None
            case Prepare():
                decision = acceptor.prepare(message, self.held(message.row))
                return decision.reply if isinstance(decision, Promised) else decision
            case Accept():
                return self._accept(message)
            case Learn():
                chosen = acceptor.learn(message, self.held(message.row))
                if isinstance(chosen, Chosen):
                    self.rows[message.row] = chosen.register
                    self.collect(message.row)
                return None
            case Query():
                held = self.held(message.row)
                refusal = acceptor.gate(message.row, message.epoch, message.bucket_epoch)
                return refusal or (Value(held) if isinstance(held, Register) else None)
            case _:
                return acceptor.gate_epoch(message.epoch) or self._help(message)

    def _accept(self, message):
        held = self.held(message.row)
        decision = self.acceptor.accept(message, held, ())
        if isinstance(decision, Write):
            self.put(message.row, decision.register)
            if self.mutant == "collect-at-accept" and isinstance(held, Register):
                self.unlink(record_data(held.state) - record_data(message.state))
            if self.mutant == "collect-what-was-accepted":
                self.seen |= record_data(message.state)
        if isinstance(decision, Write | Accepted):
            return Accepted(1) if self.voting else None
        return decision

    def _help(self, message):
        if isinstance(message, Have | Purge | Scan | Pull):
            refusal = self.acceptor.gate_vote(message.epoch)
            if refusal is not None:
                return refusal
        match message:
            case Have(rows=rows):
                held = [self.held(named.row) for named in rows]
                return Held([h.ballot if isinstance(h, Register) else None for h in held], 0)
            case Purge(rows=rows):
                for named in rows:
                    if self.acceptor.purge(named, self.held(named.row)):
                        self.put(named.row, BOTTOM)
                return Done()
            case Wanted():
                return Wants([], sum(self.changes.values()))
            case Install():
                return self.install(message)
            case Pull():
                floor = self.control.gc_floor
                if self.mutant != "sync-without-ceilings":
                    floor = max(floor, floor_at(self.control.ceiling_ms))
                return Rows(dict(self.rows), floor, self.control.epoch)
            case Scan():
                return self._scan(message)

    def install(self, message, *, seen=None):
        changed = sum(self.changes.values()) > message.version
        if self.mutant == "install-by-content":
            changed = False
        decision = self.acceptor.install(message, self.held(message.row), (), changed=changed)
        if not isinstance(decision, Write | Chosen):
            return decision
        self.put(message.row, decision.register)
        if decision.register.chosen:
            self.collect(message.row)
        return Done()

    def _scan(self, message):
        rows = [
            ScanRow(row, held.ballot.pack(), _flags(held, self.mutant), b"")
            if isinstance(held, Register)
            else ScanRow(row, None, 0, b"")
            for row, held in sorted(self.rows.items(), key=lambda item: item[0])
            if held != BOTTOM
        ]
        if self.mutant == "listing-skips-corrupt":
            rows = [row for row in rows if row.ballot is not None]

        def scan(start, stop, limit):
            return rows[bisect_left([row.row for row in rows], start) :][:limit]

        found, following = roll_up(
            scan, message.start, None, message.limit, message.delimiter, message.prefix_len
        )
        return Page(found, following)

    # -- shards

    def unlink(self, data):
        self.gone_shards |= data & self.shards
        self.shards -= data

    def collect(self, row):
        """What a chosen state makes superfluous, without any grace."""
        held = self.rows[row]
        if is_part(row):
            return  # kept until the upload is closed
        gone = {
            data_id
            for data_id in self.shards
            if not held.state.uploads
            and collectable(held, data_id, seen_chosen=data_id in self.seen, limits=self.limits)
        }
        self.unlink(gone)
        self.seen |= record_data(held.state)


def _flags(held, mutant):
    # A witness is live or not known chosen; the mutant takes the drive's word that nothing live is there.
    is_chosen = held.chosen or mutant == "witness-must-be-live"
    return (CHOSEN if is_chosen else 0) | (LIVE if held.state.live is not None else 0)
