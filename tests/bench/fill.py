"""Fills the drives of a stopped node with small objects, faster than its front end takes them.

`python -m tests.bench.fill DRIVES STATE BUCKET COUNT` opens the drives as the node does, and has them accept the registers of
COUNT objects in big batches: the same rows as PUTs make, through the same acceptors, indexes and group commits.
"""

import hashlib
import random
import sys

import trio
import xxhash
from msgspec.structs import replace

from cli.machine import Machine
from cluster.clock import BALLOT_ZERO
from cluster.config import Config
from cluster.ids import OpId, new_data_id
from cluster.node import open_node
from cluster.placement import home_set
from cluster.register.acceptor import CEILING_LEASE_MS
from cluster.register.keys import object_row
from cluster.register.messages import Accept, Accepted, Learn
from cluster.register.mutations import PutVersion, apply
from cluster.register.records import EMPTY, Applied, BodyId, BodyRef, Version
from s3.object_meta import ObjectMeta, encode

BATCH = 1000  # objects in flight: far below what a drive takes before it says that it is overloaded
BODY_BYTES = 16


def key_of(number):
    """The key of object `number`; in order, as a backup program writes them."""
    return b"filled/%08d" % number


def body_of(number):
    """Its bytes."""
    return number.to_bytes(BODY_BYTES, "big")


async def fill(node, bucket, count):
    """Have every drive accept the registers of `count` objects, and learn that they are chosen."""
    by_id = {drive.drive_id: drive for drive in node.drives}
    homes = {
        s.set_id: [by_id[position.drive] for position in s.positions] for s in node.layout.sets
    }
    rng = random.Random(1)
    # What the node before us may have promised reaches so far ahead of the clock: below, every ballot is refused.
    await trio.sleep(CEILING_LEASE_MS / 1000)
    for start in range(0, count, BATCH):
        accepts = [
            (
                homes[home_set(bucket.bucket_id, key_of(number), bucket.generation)],
                _accept(node, bucket, number, rng),
            )
            for number in range(start, min(start + BATCH, count))
        ]
        await _until_accepted(accepts)
        for drives, accept in accepts:
            for drive in drives:
                drive.submit(Learn(row=accept.row, ballot=accept.ballot), lambda _: None)


def _accept(node, bucket, number, rng):
    """The first state of an object's register, as the proposer of a PUT makes it.

    There is no PREPARE: the bucket is new and the drives are locked by this process, so nobody else can have proposed
    anything that a promise would show.
    """
    ballot = node.table.clock.tick()
    body = body_of(number)
    ref = BodyRef(
        id=BodyId(new_data_id(ballot.hlc, node.plan.node, rng)),
        size=len(body),
        digest=xxhash.xxh3_128_digest(body),
    )
    version = Version(
        version_id=None, delete_marker=False, stamp=BALLOT_ZERO, op_hlc=ballot.hlc, size=len(body),
        validator=hashlib.md5(body).hexdigest(), attributes=encode(ObjectMeta()),
        mtime_ms=ballot.hlc, body=ref,
    )  # fmt: skip
    applied = Applied(op_id=OpId(rng.randbytes(16)), ballot=ballot, removed=())
    state = replace(apply(PutVersion(version=version), EMPTY, ballot), ring=(applied,))
    return Accept(
        row=object_row(bucket.bucket_id, key_of(number)), ballot=ballot, epoch=node.layout.epoch,
        bucket_epoch=bucket.epoch, base=BALLOT_ZERO, state=state, bodies={ref.id: body},
    )  # fmt: skip


async def _until_accepted(accepts):
    """Submit all, and wait until every drive has made every one durable: no drive is to lag behind the others."""
    left = sum(len(drives) for drives, _ in accepts)
    done, refusals = trio.Event(), []

    def on_reply(reply):
        nonlocal left
        left -= 1
        if not isinstance(reply, Accepted):
            refusals.append(reply)
        if not left:
            done.set()

    for drives, accept in accepts:
        for drive in drives:
            drive.submit(accept, on_reply)
    with trio.fail_after(60):
        await done.wait()
    assert not refusals, f"a drive refused: {refusals[0]}"


async def main(drives, state, bucket, count):
    """Open, fill, close."""
    machine = Machine(lambda event: print(event, file=sys.stderr))
    config = Config(drives=(drives,), state=state, min_free_mib=0, min_free_ratio=0.0)
    async with open_node(config, machine, {}) as node:
        await fill(node, await node.store.get_bucket(bucket), int(count))


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
