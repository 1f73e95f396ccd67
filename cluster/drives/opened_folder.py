"""A drive's folder, opened: its lock, its index and what the index remembered. Everything here blocks: for threads."""

from pathlib import Path

import apsw

from cluster.drives.ballast import Ballast
from cluster.drives.file_ops import FileOps
from cluster.drives.group_commit import COMMIT_SEQ, FORGOT
from cluster.drives.index import Index
from cluster.drives.index_rows import Batch
from cluster.drives.root_guard import DriveLock, RootGuard
from cluster.ids import DriveId

NO_ROOM = "there is no room even for deletions: make some on its file system"


class OpenedFolder:
    """Opening recovers the index from its log, which may read all of that. Raises ConfigError where another process has the drive, OSError, apsw.Error."""

    def __init__(
        self, root: Path, drive: DriveId, files: FileOps, vfs: str, *, ballast_bytes: int
    ) -> None:
        self.root, self._vfs = root, vfs
        self.is_out_of_room = False  # not even the ballast was enough for the last batch
        self._lock = DriveLock(root)
        try:
            self.writer = Index(root, vfs=vfs, writable=True)
            files.sync_directory(root)
            self.control = self.writer.control()
            self.was_clean = self.writer.value("clean") == b"1"
            self.last_body = self.writer.last_body()
            self.durable = int(self.writer.value(COMMIT_SEQ) or 0)
            self.forgot = (self.writer.value(FORGOT) or b"").decode()
            self.writer.apply(Batch(ctl={"clean": b"0"}))
            self.checkpointer = Index(root, vfs=vfs)
            self.guard = RootGuard(root, drive)
            self._ballast = Ballast(root, files, ballast_bytes)
            self._ballast.restore()
        except BaseException:
            self._lock.release()
            raise

    def open_reader(self) -> Index:
        """Another connection."""
        return Index(self.root, vfs=self._vfs)

    def apply(self, batch: Batch) -> None:
        """Commit a batch. A full file system costs the ballast first. Raises apsw.Error, OSError."""
        try:
            self.writer.apply(batch)
        except apsw.FullError:
            self._ballast.release()
            try:
                self.writer.apply(batch)  # the failed transaction was rolled back as a whole
            except apsw.FullError:
                self.is_out_of_room = True
                raise

    def checkpoint(self, limit: int) -> bool:
        """Shorten the log where it is longer than `limit` bytes; False: it is not. Raises apsw.Error."""
        if self.writer.log_bytes <= limit:
            return False
        try:
            self.checkpointer.checkpoint()
        except apsw.FullError:
            self._ballast.release()
            return False
        except apsw.BusyError:
            return False  # a reader is in the way: next time
        return True

    def close(self) -> None:
        """Close the index. Only when no thread is in it any more."""
        self.checkpointer.close()
        self.writer.close()

    def release(self) -> None:
        """Let another process have the folder. Never blocks."""
        self._lock.release()
