"""The store over six drives, of which up to two are broken at a time, against a dict."""

import contextlib
import shutil
import tempfile
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
import trio
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from cluster.drives.drive import Drive
from cluster.errors import NotEmptyError, NotFoundError, PreconditionError
from cluster.ids import UploadId
from cluster.objects.context import ObjectSettings
from cluster.objects.model import Bucket, PartChoice, Seal
from cluster.objects.store import ObjectStore
from cluster.register.mutations import Absent, Precondition, ValidatorIn
from cluster.register.records import Part, Upload
from tests.objects.faulty_drive import FaultyDrive, Mode
from tests.objects.local_store import noise, open_store, put_request, read_all, read_range

T = TypeVar("T")
QUICK = ObjectSettings(retry_seconds=1.0, overflow_seconds=0.5, stall_seconds=0.5)
KEYS = st.sampled_from([b"a", b"a/1", b"a/2", b"b/1/x", b"b/2", b"c", b"\x00", b"\xff\xff"])
SIZES = st.sampled_from([0, 1, 4096, 4097, 70_000, 262_144, 262_145, 800_000])
MODES: st.SearchStrategy[Mode] = st.sampled_from(
    ["fine", "faulty", "gone", "full", "filling", "broken-reads", "broken-stages"]
)


class Host:
    """A store in a Trio run of its own thread."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="store-machine-"))
        self.drives: list[FaultyDrive] = []
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            trio.run(self._main)
        except (Exception, KeyboardInterrupt) as error:
            self._failure = error
        finally:
            self._ready.set()

    async def _main(self) -> None:
        def wrap(_: int, drive: Drive) -> Drive:
            self.drives.append(FaultyDrive(drive))
            return self.drives[-1]

        async with open_store(self.root, settings=QUICK, wrap=wrap) as local:
            self.store: ObjectStore = local.store
            self.token = trio.lowlevel.current_trio_token()
            self._stop = trio.Event()
            self._ready.set()
            await self._stop.wait()

    def call(self, verb: Callable[..., Awaitable[T]], *args: object) -> T:
        return trio.from_thread.run(verb, *args, trio_token=self.token)

    def close(self) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            trio.from_thread.run_sync(self._stop.set, trio_token=self.token)
        self._thread.join()
        shutil.rmtree(self.root)
        if self._failure is not None:
            raise self._failure


def _judge(_: Upload, parts: Sequence[Part]) -> Seal:
    return Seal(validator=f"multi-{len(parts)}", attributes=b"")


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.host = Host()
        self.objects: dict[bytes, tuple[str, bytes]] = {}
        self.uploads: dict[UploadId, tuple[bytes, dict[int, tuple[str, bytes]]]] = {}

    def teardown(self) -> None:
        self.host.close()

    @property
    def store(self) -> ObjectStore:
        return self.host.store

    @initialize()
    def create(self) -> None:
        self.bucket: Bucket = self.host.call(self.store.create_bucket, "bucket", "me", b"")

    @rule(modes=st.lists(MODES, max_size=2), positions=st.permutations(range(6)))
    def break_drives(self, modes: list[Mode], positions: list[int]) -> None:
        for position in range(6):
            self.host.drives[position].mode = "fine"
        for mode, position in zip(modes, positions, strict=False):
            self.host.drives[position].mode = mode

    @rule(key=KEYS, size=SIZES, seed=st.integers(0, 9), only_new=st.booleans())
    def put(self, key: bytes, size: int, seed: int, only_new: bool) -> None:
        data = noise(size, seed)
        expect: tuple[Precondition, ...] = (Absent(),) if only_new else ()
        request = put_request(data, expect=expect)
        if only_new and key in self.objects:
            with pytest.raises(PreconditionError):
                self.host.call(self.store.put, self.bucket, key, request)
            return
        version = self.host.call(self.store.put, self.bucket, key, request)
        self.objects[key] = (version.validator, data)

    @rule(key=KEYS, matching=st.booleans())
    def delete(self, key: bytes, matching: bool) -> None:
        expect = (ValidatorIn(validators=("other",)),) if not matching else ()
        if expect and key in self.objects:
            with pytest.raises(PreconditionError):
                self.host.call(self.store.delete, self.bucket, key, expect)
            return
        self.host.call(self.store.delete, self.bucket, key, expect)
        self.objects.pop(key, None)

    @rule(key=KEYS, cut=st.tuples(st.floats(0, 1), st.floats(0, 1)))
    def get(self, key: bytes, cut: tuple[float, float]) -> None:
        if key not in self.objects:
            with pytest.raises(NotFoundError):
                self.host.call(self.store.get, self.bucket, key)
            return
        validator, data = self.objects[key]
        found = self.host.call(self.store.get, self.bucket, key)
        assert (found.version.validator, found.version.size) == (validator, len(data))
        start, stop = sorted(int(part * len(data)) for part in cut)
        assert self.host.call(read_range, found, start, stop) == data[start:stop]
        assert self.host.call(read_all, self.store, self.bucket, key) == data

    @rule(
        prefix=st.sampled_from([b"", b"a", b"a/", b"b/", b"x"]),
        delimiter=st.sampled_from([b"", b"/"]),
        limit=st.integers(1, 4),
    )
    def list_keys(self, prefix: bytes, delimiter: bytes, limit: int) -> None:
        expected: list[bytes] = []
        for key in sorted(key for key in self.objects if key.startswith(prefix)):
            at = key.find(delimiter, len(prefix)) if delimiter else -1
            entry = key[: at + 1] if at >= 0 else key
            if entry not in expected:
                expected.append(entry)
        seen: list[bytes] = []
        start: bytes | None = b""
        while start is not None:
            page = self.host.call(self._page, prefix, delimiter, start, limit)
            seen += page[0]
            start = page[1]
        assert seen == expected

    async def _page(
        self, prefix: bytes, delimiter: bytes, start: bytes, limit: int
    ) -> tuple[list[bytes], bytes | None]:
        page = await self.store.list(
            self.bucket, prefix=prefix, delimiter=delimiter, start=start, limit=limit
        )
        return [entry.key for entry in page.entries], page.resume

    @rule(key=KEYS)
    def open_upload(self, key: bytes) -> None:
        upload = self.host.call(self.store.create_upload, self.bucket, key, b"")
        self.uploads[upload] = (key, {})

    @precondition(lambda self: self.uploads)
    @rule(data=st.data(), number=st.integers(1, 20), size=SIZES, seed=st.integers(0, 9))
    def put_part(self, data: st.DataObject, number: int, size: int, seed: int) -> None:
        upload = data.draw(st.sampled_from(sorted(self.uploads)))
        key, parts = self.uploads[upload]
        body = noise(size, seed)
        request = put_request(body)
        part = self.host.call(self.store.put_part, self.bucket, key, upload, number, request)
        parts[number] = (part.validator, body)

    @precondition(lambda self: self.uploads)
    @rule(data=st.data(), completed=st.booleans())
    def close_upload(self, data: st.DataObject, completed: bool) -> None:
        upload = data.draw(st.sampled_from(sorted(self.uploads)))
        key, parts = self.uploads.pop(upload)
        if not completed or not parts:
            self.host.call(self.store.abort_upload, self.bucket, key, upload)
            return
        choices = [PartChoice(number=n, validator=parts[n][0]) for n in sorted(parts)]
        complete = self.store.complete_upload
        version = self.host.call(complete, self.bucket, key, upload, choices, _judge)
        again = self.host.call(complete, self.bucket, key, upload, choices, _judge)
        assert again.stamp == version.stamp
        self.objects[key] = (version.validator, b"".join(parts[n][1] for n in sorted(parts)))

    @rule()
    def delete_bucket(self) -> None:
        if self.objects:
            with pytest.raises(NotEmptyError):
                self.host.call(self.store.delete_bucket, self.bucket)
            self.bucket = self.host.call(self.store.get_bucket, "bucket")
        else:
            self.host.call(self.store.delete_bucket, self.bucket)
            with pytest.raises(NotFoundError):
                self.host.call(self.store.get_bucket, "bucket")
            self.uploads.clear()
            self.create()


StoreMachine.TestCase.settings = settings(
    max_examples=12,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestStoreMachine = pytest.mark.slow(StoreMachine.TestCase)
