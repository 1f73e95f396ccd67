"""An opened folder is ours alone, and stays the one that was opened: its lock, and its guard."""

import fcntl
import os
from pathlib import Path

from cluster.drives.drive import DriveState
from cluster.drives.format import inspect
from cluster.errors import ConfigError
from cluster.ids import DriveId


class DriveLock:
    """The drive is ours alone, on this machine."""

    def __init__(self, root: Path) -> None:
        self._fd = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._fd)
            raise ConfigError(
                f"{root} is in use by another storectl process: stop that one first"
            ) from error

    def release(self) -> None:
        """Let go of it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class RootGuard:
    """Notices that the folder is not the one that was opened: unmounted, swapped, emptied."""

    def __init__(self, root: Path, drive: DriveId) -> None:
        self._root, self._drive = root, drive
        stat = root.stat()
        self._identity = (stat.st_dev, stat.st_ino)

    def check(self) -> tuple[DriveState, str] | None:
        """What is wrong with the folder; None: it is the one."""
        try:
            stat = self._root.stat()
        except OSError:
            return DriveState.MISSING, f"{self._root} is gone: mount the drive and restart the node"
        if (stat.st_dev, stat.st_ino) != self._identity:
            return (
                DriveState.MISSING,
                f"{self._root} is another folder than before: was the drive unmounted?",
            )
        found = inspect(self._root)
        if found.format is None:
            return (
                DriveState.MISSING,
                f"{self._root} has lost its format.json: put the drive back, or replace it",
            )
        if found.format.drive != self._drive:
            return DriveState.WRONG, f"{self._root} carries another drive's identity"
        return None
