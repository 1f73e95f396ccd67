"""Every write, truncation and sync of a drive, in order; and the states that a power cut at any point may leave behind.

SIGKILL proves nothing about fsync: the page cache survives it. Here the index runs on a VFS that records below the checksum VFS, and
shard files go through a recording FileOps. A state after a cut holds what was synced, and any part of what was not: none of it, all of
it, or a random subset torn at 512 bytes. A new file whose folder was not synced may be missing altogether.
"""

import os
import shutil
from pathlib import Path
from random import Random

import apsw
import attrs

from cluster.drives.file_ops import FileOps

SECTOR = 512


@attrs.frozen
class Io:
    """One entry of the log: write, truncate, sync, create, sync-dir, unlink, or ack (a promise to a client)."""

    kind: str
    path: str = ""
    offset: int = 0
    data: bytes = b""


class Log:
    """What happened, in order."""

    def __init__(self):
        self.entries: list[Io] = []
        self.root = ""

    def add(self, kind, path="", offset=0, data=b""):
        if not path or path.startswith(self.root):
            self.entries.append(Io(kind, path, offset, bytes(data)))


class RecordingFiles(FileOps):
    """FileOps that writes down what it does."""

    def __init__(self, log):
        self.log = log
        self.paths = {}

    def create(self, path):
        fd = super().create(path)
        self.paths[fd] = str(path)
        self.log.add("create", str(path))
        return fd

    def append(self, fd, offset, buffers):
        count = super().append(fd, offset, buffers)
        self.log.add("write", self.paths[fd], offset, b"".join(buffers))
        return count

    def sync_file(self, fd):
        self.log.add("sync", self.paths[fd])

    def sync_directory(self, path):
        self.log.add("sync-dir", str(path))

    def unlink(self, path):
        super().unlink(path)
        self.log.add("unlink", str(path))


class RecordingVFS(apsw.VFS):
    """Below the checksum VFS: what it records is what would lie on the disk."""

    def __init__(self, log):
        self.log = log
        super().__init__("recorder", "unix", makedefault=True)

    def xDelete(self, name, sync_directory):  # noqa: N802
        super().xDelete(name, sync_directory)
        self.log.add("unlink", name)

    def xOpen(self, name, flags):  # noqa: N802
        return RecordingFile(self.log, name, flags)


class RecordingFile(apsw.VFSFile):
    def __init__(self, log, name, flags):
        self.log = log
        self.path = name.filename() if isinstance(name, apsw.URIFilename) else (name or "")
        if self.path and not Path(self.path).exists():
            log.add("create", self.path)
        super().__init__("unix", name, flags)

    def xWrite(self, data, offset):  # noqa: N802
        super().xWrite(data, offset)
        self.log.add("write", self.path, offset, data)

    def xTruncate(self, size):  # noqa: N802
        super().xTruncate(size)
        self.log.add("truncate", self.path, size)

    def xSync(self, flags):  # noqa: N802
        self.log.add("sync", self.path)


@attrs.define
class _File:
    """A file on the way to its state after the cut."""

    durable: bytearray = attrs.field(factory=bytearray)
    pending: list = attrs.field(factory=list)
    entry_durable: bool = False

    def apply(self, io: Io, rng: Random | None = None):
        if io.kind == "truncate":
            del self.durable[io.offset :]
            return
        pieces = [(io.offset, io.data)]
        if rng is not None:  # torn: some sectors of it
            pieces = [
                (at, io.data[at - io.offset : at - io.offset + SECTOR])
                for at in range(io.offset, io.offset + len(io.data), SECTOR)
                if rng.random() < 0.5
            ]
        for offset, data in pieces:
            if len(self.durable) < offset:
                self.durable.extend(bytes(offset - len(self.durable)))
            self.durable[offset : offset + len(data)] = data


def materialise(base: Path, log: Log, cut: int, into: Path, variant: str, rng: Random):
    """Build the folder as it may be after a power cut behind entry `cut`; `base` is its state before the log began."""
    shutil.copytree(base, into)
    files: dict[str, _File] = {}

    def file_of(path):
        if path not in files:
            old = into / os.path.relpath(path, log.root)
            files[path] = _File(bytearray(old.read_bytes()), [], True) if old.exists() else _File()
        return files[path]

    for io in log.entries[:cut]:
        match io.kind:
            case "write" | "truncate":
                file_of(io.path).pending.append(io)
            case "create":
                files[io.path] = _File()
            case "sync":
                file = file_of(io.path)
                for entry in file.pending:
                    file.apply(entry)
                file.pending = []
                if ".db" in io.path:
                    file.entry_durable = (
                        True  # SQLite syncs the folder of a file that it has created
                    )
            case "sync-dir":
                for path, file in files.items():
                    if str(Path(path).parent) == io.path:
                        file.entry_durable = True
            case "unlink":
                files.pop(io.path, None)
                (into / os.path.relpath(io.path, log.root)).unlink(missing_ok=True)
    for path, file in files.items():
        target = into / os.path.relpath(path, log.root)
        if not file.entry_durable and (
            variant == "nothing" or (variant == "some" and rng.random() < 0.5)
        ):
            target.unlink(missing_ok=True)
            continue
        for entry in file.pending:
            if variant == "everything":
                file.apply(entry)
            elif variant == "some" and rng.random() < 0.7:
                file.apply(entry, rng if rng.random() < 0.5 else None)
        target.write_bytes(file.durable)
    shm = into / "meta.db-shm"
    shm.unlink(missing_ok=True)
