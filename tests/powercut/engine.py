"""Record a workload on a LocalDrive, cut the power everywhere, start the engine on every state, and check what was promised.

Runs as a process of its own, because the recording VFS must lie below the checksum VFS, which registers itself once:
`python -m tests.powercut.engine FOLDER [MUTANT]`. Exit status 0: every state kept its promises; 1: some did not.
"""

import hashlib
import shutil
import sys
from pathlib import Path
from random import Random

import trio

from cluster.clock import BALLOT_ZERO, Ballot
from cluster.drives import format as drive_format, registers
from cluster.drives.drive import DriveError
from cluster.drives.file_ops import FileOps
from cluster.drives.local_drive import open_local_drive
from cluster.drives.settings import DriveSettings
from cluster.erasure.codec import CODEC
from cluster.erasure.shard_format import ShardHeader
from cluster.ids import BucketId, new_data_id
from cluster.register.keys import object_row
from cluster.register.messages import Accept, Accepted, Prepare, Promise, Query, Value
from cluster.register.records import BodyId, BodyRef, KeyState, Version
from tests.powercut.recorder import Log, RecordingFiles, RecordingVFS, materialise
from tests.sim.run import SimRuntime

BUCKET = BucketId(b"b" * 16)
MUTANTS = ("no-file-sync", "no-directory-sync", "early-acknowledgement", "no-log-sync")
SETTINGS = DriveSettings(
    checkpoint_bytes=64 << 10,
    free_seconds=0.02,
    min_free_bytes=0,
    min_free_ratio=0.0,
    ballast_bytes=0,
)


class Runtime(SimRuntime):
    async def offload(self, work):
        return await trio.to_thread.run_sync(work)

    def wall_ms(self):
        return 1_800_000_000_000


async def ask(drive, request):
    landed = trio.Event()
    answers = []
    drive.submit(request, lambda reply: (answers.append(reply), landed.set()))
    with trio.fail_after(10):
        await landed.wait()
    return answers[0]


def body_of(number, size):
    return (hashlib.sha256(b"%d" % number).digest() * (size // 32 + 1))[:size]


def header_of(number):
    data_id = new_data_id(1_800_000_000_000 + number, 1, Random(number))
    return ShardHeader(
        data_id=data_id,
        owner=object_row(BUCKET, b"k"),
        position=0,
        k=1,
        m=0,
        block=65536,
        codec=CODEC,
    )


async def workload(drive, log):
    """Registers with inline bodies, small shards and large ones; each acknowledgement is written into the log."""
    for number in range(1, 13):
        row = object_row(BUCKET, b"key-%d" % (number % 5))
        ballot = Ballot(1_800_000_000_000 + number * 400, 0, 1)
        body = body_of(number, 3000)
        ref = BodyRef(id=BodyId(b"%016d" % number), size=len(body), digest=b"")
        version = Version(
            version_id=None, delete_marker=False, stamp=ballot, op_hlc=ballot.hlc, size=len(body), validator=str(number),
            attributes=b"", mtime_ms=0, body=ref,
        )  # fmt: skip
        promise = await ask(drive, Prepare(row=row, ballot=ballot, epoch=1, bucket_epoch=0))
        assert isinstance(promise, Promise), promise
        log.add("ack", data=b"promise:%d" % ballot.hlc)
        accepted = await ask(
            drive,
            Accept(
                row=row,
                ballot=ballot,
                epoch=1,
                bucket_epoch=0,
                base=BALLOT_ZERO,
                state=KeyState(versions=(version,)),
                bodies={ref.id: body},
            ),
        )
        assert isinstance(accepted, Accepted), accepted
        log.add("ack", data=b"row:%d:%d" % (number % 5, number))
        size = (4000, 150_000)[number % 2]
        stage = drive.open_stage(header_of(number), size)
        payload = body_of(number, size)
        await stage.write([payload[at : at + 65536] for at in range(0, size, 65536)])
        await stage.close(bytes(16))
        log.add("ack", data=b"shard:%d:%d" % (number, size))


async def verify(root, form, acks):
    """What a start finds. Raises AssertionError where a promise was broken."""
    async with open_local_drive(
        root, form.cluster, form.me, Runtime(Random(2)), settings=SETTINGS
    ) as drive:
        for ack in acks:
            kind, *facts = ack.decode().split(":")
            if kind == "row":
                value = await ask(
                    drive,
                    Query(
                        row=object_row(BUCKET, b"key-%d" % int(facts[0])),
                        epoch=1,
                        bucket_epoch=0,
                        bodies=True,
                    ),
                )
                assert isinstance(value, Value), value
                live = value.register.state.live
                assert live is not None, f"row {facts} is gone"
                assert int(live.validator) >= int(facts[1]), (
                    f"row {facts} went back to {live.validator}"
                )
                assert value.bodies[live.body.id] == body_of(int(live.validator), 3000), (
                    "wrong body"
                )
            elif kind == "promise":
                low = Ballot(int(facts[0]), 0, 1)
                row = object_row(BUCKET, b"another")
                reply = await ask(drive, Prepare(row=row, ballot=low, epoch=1, bucket_epoch=0))
                assert not isinstance(reply, Promise), f"promise {facts} was forgotten"
            else:
                number, size = int(facts[0]), int(facts[1])
                lengths = [min(65536, size - at) for at in range(0, size, 65536)]
                try:
                    blocks = await drive.read_blocks(header_of(number), 0, lengths)
                except DriveError as error:
                    raise AssertionError(f"shard {number}: {error!r}") from error
                assert b"".join(blocks) == body_of(number, size)
                assert await drive.stat_shard(header_of(number).data_id, 0) == size


def mutate(mutant):
    if mutant == "no-file-sync":
        RecordingFiles.sync_file = lambda self, fd: None
    elif mutant == "no-directory-sync":
        RecordingFiles.sync_directory = lambda self, path: None
    elif mutant == "early-acknowledgement":
        registers.Registers.when_shown = lambda self, seq, reply, answer: reply(answer)
    elif mutant == "no-log-sync":
        from tests.powercut.recorder import RecordingFile

        RecordingFile.xSync = lambda self, flags: None
    else:
        assert mutant is None, mutant


def main(folder, mutant=None):
    mutate(mutant)
    scratch = Path(folder)
    root, base = scratch / "drive", scratch / "base"
    log = Log()
    log.root = str(root)
    vfs = RecordingVFS(log)  # unregistered when it is collected
    plan = drive_format.decide(
        [drive_format.inspect(root)],
        code=None,
        arrange=lambda n: ("1+0", [(0, 0)]),
        new_id=lambda: Random(1).randbytes(16),
    )
    drive_format.carry_out(plan, FileOps())
    drive_format.finish(plan, FileOps())
    form = drive_format.inspect(root).format
    shutil.copytree(root, base)

    async def record():
        async with open_local_drive(
            root,
            form.cluster,
            form.me,
            Runtime(Random(1)),
            settings=SETTINGS,
            files=RecordingFiles(log),
        ) as drive:
            await workload(drive, log)

    trio.run(record)
    assert vfs.log is log
    entries, log.root = log.entries, log.root
    rng = Random(5)
    states = broken = 0
    step = max(1, len(entries) // 60)
    recorded = Log()
    recorded.entries, recorded.root = list(entries), log.root
    log.root = "\0nothing"  # what the checks do is not recorded
    for cut in range(1, len(recorded.entries) + 1, step):
        acks = [io.data for io in recorded.entries[:cut] if io.kind == "ack"]
        for variant in ("nothing", "everything", "some"):
            into = scratch / "state"
            shutil.rmtree(into, ignore_errors=True)
            materialise(base, recorded, cut, into, variant, rng)
            states += 1
            try:
                trio.run(verify, into, form, acks)
            except BaseException as error:
                broken += 1
                while isinstance(error, BaseExceptionGroup):
                    error = error.exceptions[0]
                print(f"cut {cut} of {len(entries)}, {variant}: {error!r}")
                if mutant is not None or broken > 5:
                    return 1
    print(f"{states} states, {broken} broken")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
