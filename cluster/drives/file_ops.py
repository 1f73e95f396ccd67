"""The file functions that the drive engine uses, behind one object, so that tests can record each or make it fail."""

import os
from collections.abc import Sequence
from pathlib import Path


class FileOps:
    """The operating system's functions. All of them block; call them in a worker thread."""

    def create(self, path: Path) -> int:
        """Open a new file for writing. Raises FileExistsError: a name is never reused."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)

    def open_read(self, path: Path) -> int:
        """Open for reading."""
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def append(
        self, fd: int, offset: int, buffers: Sequence[bytes | bytearray | memoryview]
    ) -> int:
        """Write all buffers at `offset`; returns the bytes written."""
        total = 0
        pending = list(buffers)
        while pending:
            batch = pending[:512]  # below IOV_MAX
            wanted = sum(len(buffer) for buffer in batch)
            written = os.pwritev(fd, batch, offset + total)
            total += written
            if written == wanted:
                del pending[:512]
            else:
                pending = _drop(pending, written)
        return total

    def read(self, fd: int, buffers: Sequence[memoryview | bytearray], offset: int) -> int:
        """Fill the buffers from `offset`; returns the bytes read, fewer at the end of the file."""
        total = 0
        for at in range(0, len(buffers), 512):
            batch = buffers[at : at + 512]
            got = os.preadv(fd, batch, offset + total)
            total += got
            if got != sum(len(buffer) for buffer in batch):
                break
        return total

    def sync_file(self, fd: int) -> None:
        """The file's content and size are durable."""
        os.fdatasync(fd)

    def sync_directory(self, path: Path) -> None:
        """The directory's entries are durable."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def close(self, fd: int) -> None:
        """Close a file."""
        os.close(fd)

    def unlink(self, path: Path) -> None:
        """Remove a file; one that is gone already is fine."""
        path.unlink(missing_ok=True)

    def free_bytes(self, path: Path) -> tuple[int, int]:
        """(total, free) bytes of the file system below, free to us."""
        stat = os.statvfs(path)
        return stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize


def _drop(
    buffers: list[bytes | bytearray | memoryview], count: int
) -> list[bytes | bytearray | memoryview]:
    """What is left to write after `count` bytes of the buffers went out."""
    for index, buffer in enumerate(buffers):
        if count < len(buffer):
            return [memoryview(buffer)[count:], *buffers[index + 1 :]]
        count -= len(buffer)
    return []
