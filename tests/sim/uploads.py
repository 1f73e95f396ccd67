"""Multipart uploads of the workload: opened by one client, filled and closed by others, whenever they please."""

from functools import partial

import attrs
import trio

from cluster.errors import ClusterError, NotFoundError, UnavailableError
from cluster.objects.model import PartChoice, Seal
from cluster.register.keys import object_row
from tests.sim.checkers import FOREVER, Op, ViolationError
from tests.sim.content import content, part_request, tag_of

MANY_PARTS = 18  # more than a record keeps


@attrs.define(kw_only=True, eq=False)
class SimUpload:
    """An upload, and what became of it. The object that it makes has one value, however often Complete is sent."""

    bucket: object
    key: bytes
    upload_id: bytes
    op: Op  # its effect on the key: a put from the first Complete to the first answer
    cuts: list[tuple[int, int]]  # of each part, in the value's bytes
    opened: tuple[float, float]
    parts: dict[int, str] = attrs.field(factory=dict)  # validators of parts that were acknowledged
    closing: float = FOREVER  # when the first Complete or Abort was sent
    closed: float = FOREVER  # when the first one was answered
    completed: list = attrs.field(factory=list)  # stamps that Complete was answered with
    is_aborted: bool = False
    abort_sent: bool = False

    def body(self, number):
        """The bytes of part `number`."""
        start, stop = self.cuts[number - 1]
        return content(self.op.value)[start:stop]

    @property
    def lacking(self):
        """Numbers of parts that were not acknowledged yet."""
        return [n for n in range(1, len(self.cuts) + 1) if n not in self.parts]

    def close(self):
        """An answer says that it is closed."""
        self.closed = min(self.closed, trio.current_time())


class Multipart:
    """The part of the workload that knows uploads."""

    def __init__(self):
        self.uploads: list[SimUpload] = []
        self.upload_pages = []  # (incarnation, begun, ended, upload ids)
        self.part_history: list[Op] = []  # (upload id, number)

    def of(self, bucket):
        """The uploads of a bucket's incarnation that somebody may still want to close, and some that are closed."""
        return [u for u in self.uploads if u.bucket.bucket_id == bucket.bucket_id]

    async def upload_turn(self, kind, store, bucket, who):
        """Something about uploads; where there is none, one is opened."""
        known = self.of(bucket)
        still_open = [u for u in known if u.closed == FOREVER]
        if kind == "list uploads":
            await self.list_uploads(store, bucket, who)
        elif kind == "open" or not known:
            await self.open_upload(store, bucket, self.draw_key(), who)
        else:
            upload = self.rng.choice(
                still_open if still_open and self.rng.random() < 0.9 else known
            )
            match kind:
                case "part":
                    await self.send_part(store, upload, who)
                case "complete":
                    await self.complete(store, upload, who)
                case "abort":
                    await self.abort(store, upload, who)
                case "list parts":
                    await self.list_parts(store, upload, who)

    async def open_upload(self, store, bucket, key, who):
        """Open one, and perhaps send all parts and complete it at once, twice, or while it is aborted.

        Whether it was opened, and nothing else.
        """
        rng = self.rng
        value = self.draw_value()
        count = min(rng.choice([1, 1, 2, 3, MANY_PARTS]), max(value[1], 1))
        inner = sorted(rng.sample(range(1, value[1]), count - 1)) if count > 1 else []
        cuts = list(zip([0, *inner], [*inner, value[1]], strict=True))
        probe = Op(kind="open", key=(int(bucket.owner), key), value=value)
        made = []

        async def work():
            with self.watching(bucket):
                made.append(await store.create_upload(bucket, key, b""))

        if not await self.attempt(probe, who, work):
            return False, None
        op = Op(kind="put", key=probe.key, value=value, start=FOREVER, outcome="failed")
        self.history.append(op)
        upload = SimUpload(
            bucket=bucket, key=key, upload_id=made[0], op=op, cuts=cuts,
            opened=(probe.start, probe.end),
        )  # fmt: skip
        self.uploads.append(upload)
        if rng.random() < 0.7:
            for _ in cuts:
                await self.send_part(store, upload, who)
            async with trio.open_nursery() as nursery:
                for _ in range(rng.choice([0, 1, 1, 2])):
                    nursery.start_soon(self.complete, store, upload, who)
                if rng.random() < 0.15:
                    nursery.start_soon(self.abort, store, upload, who)
        return True, None

    async def send_part(self, store, upload, who):
        """A part that is lacking, or one again; sometimes something else first, which it supersedes."""
        rng = self.rng
        number = rng.choice(upload.lacking or range(1, len(upload.cuts) + 1))
        bodies = [upload.body(number)]
        if rng.random() < 0.1 and upload.closing == FOREVER:
            bodies.insert(0, b"superseded %d" % next(self.numbers))
        for body in bodies:
            request = part_request(body, rng)
            op = Op(kind="put", key=(upload.upload_id, number))
            self.part_history.append(op)
            kept = []

            async def work(request=request, kept=kept):
                with self.watching(upload.bucket):
                    kept.append(
                        await store.put_part(
                            upload.bucket, upload.key, upload.upload_id, number, request
                        )
                    )

            op.value = request.seal(0).validator
            answered = await self.attempt(op, who, work, "part", number)
            if op.outcome == "failed":
                op.outcome = (
                    "unknown"  # what was stored before the upload turned out to be closed is there
                )
            if answered and op.start > upload.closed:
                raise ViolationError(f"a part was taken after the upload was closed: {upload}")
            if not answered:
                upload.parts.pop(number, None)
                return
            if body is bodies[-1]:
                upload.parts[number] = kept[0].validator
            else:
                upload.parts.pop(number, None)

    async def complete(self, store, upload, who):
        """Complete, which may be the first or a repeat: whether there was an answer, and nothing else.

        All that it can say is judged together with its likes.
        """
        choices = [
            PartChoice(number=n, validator=part_request(upload.body(n), self.rng).seal(0).validator)
            for n in range(1, len(upload.cuts) + 1)
        ]
        if upload.lacking and self.rng.random() < 0.8:
            await self.send_part(store, upload, who)
            return True, None
        seal = Seal(validator=tag_of(upload.op.value), attributes=b"")
        whole, begun = upload.op, trio.current_time()
        whole.start = min(whole.start, begun)
        upload.closing = min(upload.closing, begun)
        if whole.outcome == "failed" and not upload.is_aborted:
            whole.outcome = "unknown"
        op = Op(kind="complete", key=whole.key, value=whole.value)
        call = partial(
            store.complete_upload, upload.bucket, upload.key, upload.upload_id, choices,
            lambda _, __: seal,
        )  # fmt: skip
        errors = []

        async def work():
            try:
                with self.watching(upload.bucket):
                    version = await call()
            except ClusterError as error:
                errors.append(error)
                raise
            upload.completed.append(version.stamp)
            self.acknowledged(object_row(upload.bucket.bucket_id, upload.key), version.stamp)

        await self.attempt(op, who, work)
        if op.outcome == "ok":
            self._completed(upload, op)
        elif errors and isinstance(errors[0], NotFoundError) and errors[0].kind == "upload":
            upload.close()
            # What was completed is remembered with the key, and forgotten with its tombstone.
            is_first = upload.closing == begun and not upload.completed
            if is_first and not upload.abort_sent:
                raise ViolationError(f"an upload that nobody closed is not there: {upload}")
        is_definite = bool(errors) and not isinstance(errors[0], UnavailableError)
        return op.outcome == "ok" or is_definite, None

    def _completed(self, upload, op):
        whole = upload.op
        upload.close()
        if len(set(upload.completed)) > 1:
            raise ViolationError(f"one upload was completed twice: {upload}")
        if upload.is_aborted:
            raise ViolationError(f"an aborted upload was completed: {upload}")
        if whole.outcome != "ok":
            whole.outcome, whole.end = "ok", op.end

    async def abort(self, store, upload, who):
        """Abort; Complete may race with it."""
        upload.closing, upload.abort_sent = min(upload.closing, trio.current_time()), True
        op = Op(kind="abort", key=upload.op.key, value=upload.op.value)

        async def work():
            with self.watching(upload.bucket):
                await store.abort_upload(upload.bucket, upload.key, upload.upload_id)

        await self.attempt(op, who, work)
        if op.outcome == "ok":
            upload.close()
            upload.is_aborted = True
            if upload.completed:
                raise ViolationError(f"a completed upload was aborted: {upload}")
            upload.op.outcome = "failed"

    async def list_parts(self, store, upload, who):
        """What it says of each number is a look at that part, unless the upload was being closed."""
        after, limit = self.rng.choice([0, 0, 1]), self.rng.choice([1, 2, 1000])
        pages = []

        async def work():
            with self.watching(upload.bucket):
                pages.append(
                    await store.list_parts(
                        upload.bucket, upload.key, upload.upload_id, after=after, limit=limit
                    )
                )

        op = Op(kind="get", key=(upload.upload_id, "parts"))
        if not await self.attempt(op, who, work, "list parts"):
            return
        if op.start > upload.closed:
            raise ViolationError(f"the parts of a closed upload were listed: {upload}")
        infos, more = pages[0]
        shown = {info.part.number: info.part.validator for info in infos}
        if list(shown) != sorted(shown) or len(infos) > limit or len(shown) != len(infos):
            raise ViolationError(f"parts are out of order, or too many: {infos}")
        if upload.closing > op.end:
            last = max(shown) if more else len(upload.cuts)
            self.part_history += [
                attrs.evolve(op, key=(upload.upload_id, n), value=shown.get(n))
                for n in range(after + 1, last + 1)
            ]

    async def list_uploads(self, store, bucket, who):
        """A page of open uploads, kept for the check at the end. Whether there was an answer, and nothing else."""
        pages = []
        limit = self.rng.choice([1, 1000])

        async def work():
            with self.watching(bucket):
                pages.append(await store.list_uploads(bucket, prefix=b"", start=b"", limit=limit))

        op = Op(kind="get", key=(int(bucket.owner), "uploads"))
        if not await self.attempt(op, who, work, "list uploads"):
            return False, None
        infos, more = pages[0]
        shown = [(info.key, info.upload.upload_id) for info in infos]
        self.upload_pages.append((bucket.bucket_id, op.start, op.end, shown, more))
        return True, None

    def check_uploads(self):
        """Open uploads are listed, closed ones are not. Raises ViolationError."""
        for bucket_id, begun, ended, shown, more in self.upload_pages:
            if [key for key, _ in shown] != sorted(key for key, _ in shown):
                raise ViolationError(f"uploads are out of order: {shown}")
            listed = {upload_id for _, upload_id in shown}
            beyond = max((key for key, _ in shown), default=b"") if more else None
            for upload in self.uploads:
                if upload.bucket.bucket_id != bucket_id:
                    if upload.upload_id in listed:
                        raise ViolationError(f"listed in another bucket: {upload}")
                    continue
                if upload.upload_id in listed:
                    if upload.opened[0] > ended or upload.closed < begun:
                        raise ViolationError(f"listed, but not open: {upload}")
                elif (
                    upload.opened[1] < begun
                    and upload.closing > ended
                    and (beyond is None or upload.key <= beyond)
                ):
                    raise ViolationError(f"open, but not listed: {upload}")
