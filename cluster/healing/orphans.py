"""Shards that were staged for an object that never came to be: fenced, so that it never will, then collected."""

import attrs

from cluster.drives.drive import Drive
from cluster.errors import CorruptError
from cluster.healing.copying import Copier, for_each
from cluster.healing.judgement import Verdict, judge
from cluster.healing.settings import healing_ref
from cluster.ids import DataId, RowKey
from cluster.register.anti_entropy import Discard, ShardOf, ShardPage, Unreferenced
from cluster.register.messages import Done
from cluster.register.records import KeyState, Register, decode_parts

_NO_DATA = DataId(bytes(16))


@attrs.frozen
class Collected:
    """What a round came to."""

    shards: int = 0
    next: DataId | None = None  # where the next round goes on; None: from the start


async def collect_orphans(copier: Copier, drive: Drive, after: DataId | None = None) -> Collected:
    """One round for one drive of the owners' home set. Only bodies are looked at that nobody can introduce any more.

    The states that count are read from a quorum, known to be chosen; where that is too old to rule the body out it is
    written back: the fence round of PROTOCOL 1.12.
    """
    settings = copier.settings
    horizon = copier.table.clock.tick().hlc - settings.orphan_after_ms
    if horizon <= 0:
        return Collected()
    request = Unreferenced(
        after=_NO_DATA if after is None else after,
        before=DataId(horizon.to_bytes(6, "big") + bytes(10)),
        limit=settings.rows,
        epoch=copier.epoch,
    )
    page = await copier.ask(drive, request)
    if not isinstance(page, ShardPage):
        return Collected(next=after)
    doomed: list[DataId] = []

    async def look(shard: ShardOf) -> bool:
        if await _is_orphan(copier, shard):
            doomed.append(shard.data_id)
        return True

    await for_each(page.shards, settings.at_once, look)
    if doomed:
        reply = await copier.ask(drive, Discard(data=doomed, epoch=copier.epoch))
        if not isinstance(reply, Done):
            doomed.clear()
    return Collected(len(doomed), page.next)


async def _is_orphan(copier: Copier, shard: ShardOf) -> bool:
    """Raises ClusterError."""
    ref = healing_ref(shard.owner, copier.set_id)
    reading = await copier.table.read(ref)
    chosen = Register(ballot=reading.ballot, state=reading.state, chosen=True)
    verdict = await _judge(copier, chosen, shard)
    if verdict is Verdict.FENCE:
        chosen = await copier.table.confirm(ref, rewrite=True)
        verdict = await _judge(copier, chosen, shard)
    return verdict is Verdict.COLLECT


async def _judge(copier: Copier, chosen: Register, shard: ShardOf) -> Verdict:
    listed = await _listed(copier, shard.owner, chosen.state)
    if listed is None:
        return Verdict.KEEP  # what it names is not known
    return judge(chosen, listed, shard.data_id, copier.settings.limits)


async def _listed(copier: Copier, row: RowKey, state: KeyState) -> set[DataId] | None:
    listed: set[DataId] = set()
    for version in state.versions:
        if version.body is not None and version.body.count:
            try:
                data = await copier.table.read_body(healing_ref(row, copier.set_id), version.body)
            except CorruptError:
                return None
            if data is None:
                return None
            listed.update(part.data_id for part in decode_parts(data))
    return listed
