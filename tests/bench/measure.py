"""What Linux says of a process and of the disk: processor seconds, peak memory, bytes written, room."""

import os
import resource
import shutil
import time
from pathlib import Path

SECTOR_BYTES = 512  # /proc/diskstats and rusage count in these, whatever the device has
_RESET_PEAK = "5"  # proc(5), clear_refs: the peak starts again at what is resident now


def cpu_seconds(pid):
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_rss_mib(pid):
    """The peak of resident memory since the start, or since reset_peak_rss."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(x for x in lines if x.startswith("VmHWM")).split()[1]) // 1024


def reset_peak_rss(pid):
    """Forget the peak, so that the next one belongs to what comes next."""
    Path(f"/proc/{pid}/clear_refs").write_text(_RESET_PEAK)


def disk_bytes(path):
    """Bytes written to the disk below `path` since the machine started, by all of its users together."""
    device = path.stat().st_dev
    return written_bytes(Path("/proc/diskstats").read_text(), os.major(device), os.minor(device))


def written_bytes(diskstats, major, minor):
    """Bytes written to a device, from the text of /proc/diskstats. Raises LookupError: there is no such device."""
    for line in diskstats.splitlines():
        fields = line.split()
        if fields[:2] == [str(major), str(minor)]:
            return int(fields[9]) * SECTOR_BYTES
    raise LookupError(f"/proc/diskstats has no device {major}:{minor}")


def process_bytes(pid):
    """Bytes that a running process has written to files so far, as far as they go to a disk."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return int(next(x for x in lines if x.startswith("write_bytes")).split()[1])


def ended_bytes():
    """The same of all child processes that have ended and been waited for."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_oublock * SECTOR_BYTES


def wait_until_quiet(path, *, kib_a_second=256, limit_seconds=20.0):
    """Wait until the disk has had next to nothing to write for a second; False: others do not let it."""
    deadline = time.monotonic() + limit_seconds
    before = disk_bytes(path)
    while time.monotonic() < deadline:
        time.sleep(1.0)
        now = disk_bytes(path)
        if now - before <= kib_a_second << 10:
            return True
        before = now
    return False


def free_bytes(path):
    """Room that is left for a user of the file system."""
    return shutil.disk_usage(path).free


def forget_pages(folder):
    """Have the kernel drop its clean pages of the files below `folder`, so that the next reader meets the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            try:
                os.fsync(fd)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(fd)
