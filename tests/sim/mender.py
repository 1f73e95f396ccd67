"""What repair of shards will do, done by hand: every shard that a record names and a drive lacks is computed and put there."""

from cluster.drives.drive import STAGING, DriveError
from cluster.drives.index_rows import unpack_bodies
from cluster.erasure.codec import codec_for
from cluster.erasure.shard_format import ShardHeader, block_crc
from cluster.register.keys import owner_row
from cluster.register.records import decode_parts, decode_state


async def mend(world):
    """Each position of every part that a newest record names, chosen or not yet, as far as its drive takes shards."""
    for row, head in world.newest().items():
        for version in decode_state(head.state).versions:
            for part in [*version.parts, *listed(world, row, version)]:
                await mend_part(world, row, part)


def listed(world, row, version):
    """The parts of a version that has too many for its record."""
    if version.body is None or not version.body.count:
        return []
    for drive in world.drives:
        head = drive.platter.index.rows.get(row)
        rowid = unpack_bodies(head.bodies).get(version.body.id) if head is not None else None
        data = drive.platter.index.body(rowid) if rowid is not None else None
        if data is not None:
            return decode_parts(data)
    return []


async def mend_part(world, row, part):
    """Compute what is missing of it from any k intact shards."""
    held, lacking, drives = {}, [], world.sets[part.set_id]
    for position, drive in enumerate(drives):
        shard = intact(drive, part.data_id, position)
        if shard is None:
            lacking.append(position)
        else:
            held[position] = shard
    if not lacking or len(held) < part.k:
        return
    home = world.home_of(row)
    codec = codec_for(part.k, part.m, part.codec)
    some = dict(list(held.items())[: part.k])
    blocks = {position: [] for position in lacking}
    for number in range(len(next(iter(some.values())).blocks)):
        known = {position: memoryview(s.blocks[number][0]) for position, s in some.items()}
        length = len(next(iter(known.values())))
        for position, data in zip(lacking, codec.rebuild(known, length, lacking), strict=True):
            blocks[position].append(data)
    for position in lacking:
        drive = drives[position]
        if drive.state not in STAGING or drive.faults.hung:
            continue
        header = ShardHeader(
            data_id=part.data_id, owner=owner_row(row), position=position, k=part.k, m=part.m,
            block=part.block, codec=part.codec, home=None if part.set_id == home else home,
        )  # fmt: skip
        try:
            # Past the oracle: what is mended may have been collected meanwhile, which a PUT's shard never is.
            stage = getattr(drive, "_bare", drive).open_stage(header, 0)
            await stage.write(blocks[position])
            await stage.close(next(iter(some.values())).digests)
        except DriveError:
            continue


def intact(drive, data_id, position):
    """The shard, if the drive has it and every block is what was written."""
    if not drive.platter.holds(data_id, position):
        return None
    shard = drive.platter.shards[data_id, position]
    for number, (payload, crc) in enumerate(shard.blocks):
        if block_crc(data_id, position, number, payload) != crc:
            return None
    return shard
