"""A file that is in the way on purpose: given up when the index has no room, so that deletes still work on a full drive."""

import os
from pathlib import Path

from cluster.drives.file_ops import FileOps

NAME = "ballast"


class Ballast:
    """Space set aside. All methods block."""

    def __init__(self, root: Path, files: FileOps, wanted_bytes: int) -> None:
        self._path, self._root, self._files = root / NAME, root, files
        self._wanted = wanted_bytes

    def restore(self) -> None:
        """Set the space aside again, where ten times as much is free. Without fallocate there is no ballast."""
        total, free = self._files.free_bytes(self._root)
        size = min(self._wanted, total // 100)
        if self._path.exists() or free < 10 * size or size < 4096:
            return
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError:
            self.release()
        finally:
            os.close(fd)

    def release(self) -> None:
        """Give the space up."""
        self._files.unlink(self._path)
