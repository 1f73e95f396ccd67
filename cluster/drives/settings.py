"""Bounds and periods of drives."""

import attrs

from cluster.register.acceptor import Limits


@attrs.frozen(kw_only=True)
class DriveSettings:
    """Bounds and periods of one drive."""

    cache_bytes: int = 24 << 20
    read_grace_ms: int = 15 * 60 * 1000  # superseded data stays that long, for reads in flight
    collect_seconds: float = 5.0
    collect_batch: int = 256
    guard_seconds: float = 10.0
    free_seconds: float = 1.0
    hung_seconds: float = 30.0
    checkpoint_bytes: int = 32 << 20  # of the log; at most a 64th of a small file system
    ballast_bytes: int = (
        256 << 20
    )  # given up when the index has no room; at most 1 % of a small file system
    min_free_bytes: int = 1 << 30  # at most a tenth of a small file system
    min_free_ratio: float = 0.02
    bad_shards_allowed: int = 3  # distinct shards with read errors before the drive is taken out
    limits: Limits = attrs.field(factory=Limits)
