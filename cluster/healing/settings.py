"""Bounds and ages of healing, and which rows a set has. Pure."""

import attrs

from cluster.ids import SYSTEM_BUCKET, RowKey
from cluster.layout import SYSTEM, Layout
from cluster.metadata.table import RegisterRef
from cluster.register.acceptor import Limits

# What is rewritten here was accepted before: it introduces nothing, so no fence of a bucket need stop it.
ANY_BUCKET_EPOCH = 1 << 62
_AFTER_SYSTEM = RowKey(SYSTEM_BUCKET + b"t")


@attrs.frozen(kw_only=True)
class HealingSettings:
    """Of one round; the simulator makes the ages tiny. `limits` must be those of the drives."""

    limits: Limits = attrs.field(factory=Limits)
    purge_margin_ms: int = 10 * 60 * 1000  # so that a raised floor meets no live proposal
    rows: int = 256  # looked at, of whatever kind
    page_bytes: int = 1 << 20
    at_once: int = 16  # rows under way
    steward_seconds: float = 5.0  # between two looks at what is under way in the layout
    layout_seconds: float = 30.0  # between two looks for a layout that nobody told of
    catch_up_seconds: float = 5.0
    forget_seconds: float = 60.0  # between two rounds over tombstones and orphans
    bury_seconds: float = 3600.0  # between two looks for buckets whose end nobody was told of
    round_seconds: float = 5.0  # a drive that has not answered by then counts as silent

    @property
    def purge_after_ms(self) -> int:
        """The age of a tombstone that may go."""
        return self.limits.op_ttl_ms + self.purge_margin_ms

    @property
    def orphan_after_ms(self) -> int:
        """The age from which nobody can introduce a body any more."""
        return self.limits.max_put_ms + self.limits.op_ttl_ms


def span_of(set_id: int) -> tuple[RowKey, RowKey | None]:
    """Where the rows of a set begin and end on its drives; SYSTEM: the system registers."""
    return (RowKey(b""), _AFTER_SYSTEM) if set_id == SYSTEM else (_AFTER_SYSTEM, None)


def healing_ref(row: RowKey, set_id: int) -> RegisterRef:
    """A register as healing addresses it."""
    return RegisterRef(row, set_id, ANY_BUCKET_EPOCH)


def is_settled(layout: Layout, set_id: int) -> bool:
    """Whether the members of a set are all that hold its rows: nobody rebuilds, nobody copies in advance."""
    if set_id == SYSTEM:
        if layout.system_next or layout.system_previous:
            return False
        if layout.system_set == SYSTEM:
            return True
        set_id = layout.system_set
    positions = layout.erasure_set(set_id).positions
    return all(position.voting and position.learner is None for position in positions)
