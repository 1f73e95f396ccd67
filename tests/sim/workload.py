"""Clients: what they do to buckets and objects, and what they saw. The same for one node and for a cluster."""

import contextlib
from itertools import count

import attrs
import trio

from cluster.errors import (
    ClusterError,
    ExistsError,
    NotEmptyError,
    NotFoundError,
    OutcomeUnknownError,
    PreconditionError,
    UnavailableError,
)
from cluster.objects.model import Absent, ValidatorIn
from cluster.objects.source import object_source
from cluster.register.keys import object_row
from tests.sim.checkers import PREFIX, ListPage, Op, ViolationError
from tests.sim.content import border_sizes, content, put_request, tag_of, value_of
from tests.sim.uploads import Multipart

TURNS = {
    "put": 20, "get": 22, "head": 6, "delete": 12, "remove": 3, "create": 7, "replace": 8, "copy": 4,
    "open": 4, "part": 5, "complete": 5, "abort": 1, "list parts": 1, "list uploads": 2, "list": 12,
    "buckets": 1, "drop bucket": 2, "clear bucket": 1,
}  # fmt: skip
UPLOAD_TURNS = {"open", "part", "complete", "abort", "list parts", "list uploads"}
KEYS = (b"a", b"b/1", b"b/2", b"b/2/x", b"b0", b"c", b"c/", b"d/e/f")
SPANS = ((b"", b""), (b"", b""), (b"", b"/"), (b"", b"/"), (b"b", b"/"), (b"b/", b"/"), (b"b/", b""), (b"c", b""))  # fmt: skip
LIVE_SECONDS = 5.0  # what an operation may take when nothing is broken any more


@attrs.define(kw_only=True)
class Habits:
    """What the clients of a seed like to do."""

    names: tuple[str, ...]
    keys: tuple[bytes, ...]
    heat: tuple[int, ...]  # weights of the keys
    sizes: tuple[int, ...]
    pauses: tuple[float, ...]
    patience: tuple[float, ...] = (0.01, 30, 30, 30, 30)
    clients: int
    turns: int
    leaps: int  # how often days pass at once

    @classmethod
    def draw(cls, rng, k, block, chunk, pauses):
        """Of every seed another kind."""
        keys = KEYS[: rng.choice([1, 3, 5, len(KEYS)])]
        sizes = border_sizes(k, block, chunk)
        clients, turns = rng.choice([(2, 10), (3, 10), (4, 10), (5, 13), (1, 30)])
        return cls(
            names=("sim", "other", "third")[: rng.choice([1, 1, 2, 3])],
            keys=keys,
            heat=tuple(rng.choice([1, 1, 6]) for _ in keys),
            sizes=rng.choice([sizes, sizes, (0, 1, 100), (*sizes[:-1], 100, 100, 100)]),
            pauses=pauses,
            clients=clients,
            turns=turns,
            leaps=rng.choice([0, 0, 0, 1, 3]),
        )


class Workload(Multipart):
    """All clients of a run together. `acknowledged(row, stamp)` is told of every write, the moment it is acknowledged."""

    def __init__(self, rng, trace, habits):
        super().__init__()
        self.rng, self.trace, self.habits = rng, trace, habits
        self.history: list[Op] = []  # of keys: (incarnation, key)
        self.names: list[Op] = []  # of bucket names
        self.pages: list[ListPage] = []
        self.numbers = count(1)
        self.held = {}  # the bucket of each name as somebody last saw it: perhaps no longer so
        self.acknowledged = lambda row, stamp: None

    async def turn(self, store, who):
        """One thing that a client does."""
        rng = self.rng
        name = rng.choice(self.habits.names)
        kind = rng.choices(list(TURNS), list(TURNS.values()))[0]
        if kind == "buckets":
            await self.list_buckets(store, who)
            return
        bucket = self.held.get(name) if rng.random() < 0.3 else None
        if bucket is None:
            answered, bucket = await self.find(store, name, who)
            if answered and bucket is None:
                await self.create_bucket(store, name, who)
        if bucket is None:
            return
        if kind in {"drop bucket", "clear bucket"}:
            await self.drop_bucket(store, bucket, who, clear=kind == "clear bucket")
        elif kind == "list":
            await self.list_pages(store, bucket, who)
        elif kind in UPLOAD_TURNS:
            await self.upload_turn(kind, store, bucket, who)
        else:
            await self.on_key(kind, store, bucket, self.draw_key(), who)

    def draw_key(self):
        """Some keys are hot."""
        return self.rng.choices(self.habits.keys, self.habits.heat)[0]

    def draw_value(self):
        """A number that nobody wrote before, and a size."""
        return next(self.numbers), self.rng.choice(self.habits.sizes)

    # -- how an operation ends

    async def attempt(self, op, who, work, *words):
        """Carry it out and note how it ended. True: it was answered."""
        op.start = trio.current_time()
        error = None
        try:
            with trio.move_on_after(self.rng.choice(self.habits.patience)) as scope:
                await work()
                op.outcome = "ok"
            if scope.cancelled_caught:
                op.outcome = "failed" if op.kind == "put" and op.value is None else "unknown"
        except (PreconditionError, ExistsError, NotEmptyError) as caught:
            op.outcome, error = "refused", caught
        except OutcomeUnknownError as caught:
            op.outcome, error = "unknown", caught
        except ClusterError as caught:
            op.outcome, error = "failed", caught
        done = op.outcome in {"ok", "refused"}
        op.end = trio.current_time() if done else float("inf")
        self.trace.say(who, *(words or (op.kind,)), op.key, op.value, op.outcome, error or "")
        return done

    def note_gone(self, bucket, start, error):
        """Somebody was told that the bucket is no more."""
        if isinstance(error, NotFoundError) and error.kind == "bucket":
            self.held.pop(bucket.name, None)
            self.names.append(
                Op(kind="lacks", key=bucket.name, expected=int(bucket.owner), start=start,
                   end=trio.current_time(), outcome="ok")
            )  # fmt: skip

    @contextlib.contextmanager
    def watching(self, bucket):
        """Notes when the bucket turns out to be gone."""
        start = trio.current_time()
        try:
            yield
        except NotFoundError as error:
            self.note_gone(bucket, start, error)
            raise

    # -- buckets

    async def find(self, store, name, who):
        """Whether there was an answer, and the bucket of that name; None: there is none."""
        found = []
        op = Op(kind="get", key=name)
        self.names.append(op)

        async def look():
            try:
                found.append(await store.get_bucket(name))
                op.value = int(found[0].owner)
            except NotFoundError:
                op.value = None

        answered = await self.attempt(op, who, look, "find")
        if answered and found:
            self.held[name] = found[0]
            return True, found[0]
        return answered, None

    async def create_bucket(self, store, name, who):
        """Each incarnation has its own number, which its owner's name keeps."""
        op = Op(kind="create", key=name, value=next(self.numbers))
        self.names.append(op)

        async def work():
            self.held[name] = await store.create_bucket(name, str(op.value), b"")

        return await self.attempt(op, who, work, "create bucket"), None

    async def list_buckets(self, store, who):
        """What it says of each name is a look at that name."""
        found = []

        async def look():
            found.extend(await store.list_buckets())

        whole = Op(kind="get", key="all buckets")
        if await self.attempt(whole, who, look):
            incarnations = {bucket.name: int(bucket.owner) for bucket in found}
            if len(incarnations) != len(found) or incarnations.keys() - set(self.habits.names):
                raise ViolationError(f"listed buckets that nobody made, or one twice: {found}")
            self.names += [
                attrs.evolve(whole, key=name, value=incarnations.get(name))
                for name in self.habits.names
            ]

    async def drop_bucket(self, store, bucket, who, *, clear):
        """Delete a bucket, after its keys or in spite of them: whether there was an answer, and nothing else."""
        if clear:
            for key in self.habits.keys:
                await self.on_key("delete", store, bucket, key, who)
        op = Op(kind="delete", key=bucket.name, expected=int(bucket.owner))
        self.names.append(op)
        gone = False

        async def work():
            nonlocal gone
            try:
                with self.watching(bucket):
                    await store.delete_bucket(bucket)
            except NotFoundError as error:
                # An answer too: somebody finished what an earlier try began.
                gone = error.kind == "bucket"
                raise

        answered = await self.attempt(op, who, work, "drop bucket", op.expected)
        if op.outcome == "failed":
            op.outcome = "unknown"  # whoever meets it half done finishes it
        return answered or gone, None

    # -- keys

    async def on_key(self, kind, store, bucket, key, who):
        """One operation on one key."""
        if kind == "copy":
            return await self.copy(store, bucket, key, who)
        op = Op(kind="get" if kind == "head" else kind, key=(int(bucket.owner), key))
        if kind in {"put", "create", "replace"}:
            op.value = self.draw_value()
        if kind in {"replace", "remove"}:
            seen = [other.value for other in self.history if other.key == op.key and other.value]
            op.expected = self.rng.choice(seen) if seen else (0, 0)
        self.history.append(op)

        async def work():
            with self.watching(bucket):
                await self.carry_out(kind, store, bucket, op)

        return await self.attempt(op, who, work, kind), op.value

    async def carry_out(self, kind, store, bucket, op):
        """What the store is asked for."""
        key = op.key[1]
        match kind:
            case "get" | "head":
                op.value = await self.read(store, bucket, key, head_only=kind == "head")
            case "delete":
                await store.delete(bucket, key)
            case "remove":
                expect = (ValidatorIn(validators=(tag_of(op.expected),)),)
                await store.delete(bucket, key, expect)
            case "put":
                await self.put(store, bucket, op)
            case "create":
                await self.put(store, bucket, op, (Absent(),))
            case "replace":
                await self.put(store, bucket, op, (ValidatorIn(validators=(tag_of(op.expected),)),))

    async def put(self, store, bucket, op, expect=(), source=None):
        request = put_request(op.value, self.rng, expect, source)
        version = await store.put(bucket, op.key[1], request)
        self.acknowledged(object_row(bucket.bucket_id, op.key[1]), version.stamp)

    async def copy(self, store, bucket, key, who, *, origin=None):
        """A copy of whatever lies under another key, perhaps in another bucket; or of the `origin`, a bucket and a key."""
        op = Op(kind="put", key=(int(bucket.owner), key))
        self.history.append(op)
        where = self.rng.choice([bucket, *self.held.values()])

        async def work():
            try:
                found = await store.get(*(origin or (where, self.draw_key())))
            except NotFoundError as error:
                raise UnavailableError("there is nothing to copy") from error
            source = await object_source(found)
            try:
                op.value = value_of(found.version.validator)
                with self.watching(bucket):
                    await self.put(store, bucket, op, source=source)
            finally:
                await source.aclose()

        return await self.attempt(op, who, work, "copy"), op.value

    async def read(self, store, bucket, key, *, head_only=False):
        """The value under the key, its bytes looked at; None: absent."""
        try:
            found = await store.get(bucket, key)
        except NotFoundError as error:
            if error.kind == "bucket":
                raise
            return None
        value = value_of(found.version.validator)
        if found.version.size != value[1]:
            raise ViolationError(f"{key!r}: {found.version.size} bytes of {value}")
        if not head_only:
            whole = await self.read_bytes(found, 0, value[1])
            if whole != content(value):
                raise ViolationError(f"{key!r}: wrong bytes for {value}")
            if whole and self.rng.random() < 0.3:
                start = self.rng.randrange(len(whole))
                stop = self.rng.choice([start + 1, self.rng.randint(start + 1, len(whole))])
                with contextlib.suppress(UnavailableError):  # it was replaced meanwhile
                    if await self.read_bytes(found, start, stop) != whole[start:stop]:
                        raise ViolationError(f"{key!r}: wrong bytes in {start}..{stop}")
        return value

    @staticmethod
    async def read_bytes(found, start, stop):
        reader = await found.open(start, stop)
        data = []
        try:
            while (buffers := await reader.next()) is not None:
                data += [bytes(buffer) for buffer in buffers]
        finally:
            with trio.CancelScope(shield=True):
                await reader.aclose()
        return b"".join(data)

    # -- listings

    async def list_pages(self, store, bucket, who):
        """One page or a walk over several."""
        rng = self.rng
        prefix, delimiter = rng.choice(SPANS)
        start = rng.choice([b"", b"", b"", b"b/2", b"c"])
        limit = rng.choice([1, 2, 3, 1000])
        last = b""
        for _ in range(rng.choice([1, 2, 9])):
            answered, page = await self.list_page(
                store, bucket, who, prefix, delimiter, start, limit
            )
            if not answered:
                return
            if page.shown:
                if last and min(page.shown) <= last:
                    raise ViolationError(f"the walk was at {last!r} already: {page}")
                last = max(page.shown)
            if page.resume is None:
                return
            if page.resume <= start:
                raise ViolationError(f"the walk does not go on: {page}")
            start = page.resume

    async def list_page(self, store, bucket, who, prefix, delimiter, start, limit):
        """Whether there was an answer, and the page."""
        found = []

        async def work():
            with self.watching(bucket):
                found.append(
                    await store.list(
                        bucket, prefix=prefix, delimiter=delimiter, start=start, limit=limit
                    )
                )

        op = Op(kind="get", key=(int(bucket.owner), prefix, delimiter, start, limit))
        if not await self.attempt(op, who, work, "list"):
            return False, None
        entries = found[0].entries
        shown = {
            entry.key: PREFIX if entry.is_prefix else value_of(entry.versions[0].validator)
            for entry in entries
        }
        page = ListPage(
            bucket=int(bucket.owner), prefix=prefix, delimiter=delimiter, start=start, limit=limit,
            resume=found[0].resume, shown=shown, begun=op.start, ended=op.end,
        )  # fmt: skip
        if len(shown) != len(entries):
            raise ViolationError(f"a key is there twice: {entries}")
        self.pages.append(page)
        return True, page
