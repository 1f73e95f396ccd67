"""What an error of the operating system says of a drive. Pure.

The first write or fsync that fails for good takes a drive out: an fsync that is tried again reports success for pages that were lost
(Rebello et al., 2020). Being full, or short of file descriptors, is no reason: nothing was acknowledged, and the next try may succeed.
"""

import enum
import errno


class Trouble(enum.Enum):
    """How bad it is."""

    FULL = "full"
    PASSING = "passing"  # the process lacks something, or the folder is not what it was: the guard finds out
    BROKEN = "broken"


_KINDS = {
    errno.ENOSPC: Trouble.FULL,
    errno.EDQUOT: Trouble.FULL,
    errno.EMFILE: Trouble.PASSING,
    errno.ENFILE: Trouble.PASSING,
    errno.ENOMEM: Trouble.PASSING,
    errno.EAGAIN: Trouble.PASSING,
    errno.EINTR: Trouble.PASSING,
    errno.EEXIST: Trouble.PASSING,
    errno.ENOENT: Trouble.PASSING,
    errno.ENOTDIR: Trouble.PASSING,
    errno.EACCES: Trouble.PASSING,
    errno.EPERM: Trouble.PASSING,
}


def judge(error: OSError) -> Trouble:
    """Errors that are not known to be harmless are the drive's end. One without a number was judged where it arose."""
    return Trouble.PASSING if error.errno is None else _KINDS.get(error.errno, Trouble.BROKEN)
