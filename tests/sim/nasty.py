"""What a seed may set to its worst: queues, rings, times, caches. Most seeds turn a few of them, some none."""

import contextlib
from types import ModuleType

import attrs

from cluster.core import CoreSettings
from cluster.drives import dead_buckets, group_commit, group_read, roll_up, rpc_messages
from cluster.drives.remote_node import PeerSettings
from cluster.drives.server import ServerSettings
from cluster.healing.settings import HealingSettings
from cluster.layout import BLOCK_BYTES, CHUNK_BYTES
from cluster.membership.detector import DetectorSettings
from cluster.metadata import scan
from cluster.metadata.commit import TableSettings
from cluster.objects.context import ObjectSettings
from cluster.register.acceptor import MAX_PUT_MS, OP_TTL_MS, Limits

# Bounds that no settings object holds. Changed for one run at a time, in this process alone.
CONSTANTS: tuple[tuple[ModuleType, str, int], ...] = (
    (scan, "PAGE_ROWS", 2),
    (roll_up, "_PAGE_ROWS", 1),
    (roll_up, "ROWS_SEEN", 3),
    (rpc_messages, "MAX_BATCH", 2_000),
    (rpc_messages, "MAX_OPERATIONS", 1),
    (group_commit, "MAX_OPERATIONS", 6),
    (group_read, "MAX_READS", 4),
    (dead_buckets, "ROWS_AT_A_TIME", 1),
)


@attrs.define(kw_only=True)
class Nasty:
    """The settings of a run. `turned` names what is not as usual, for the trace."""

    core: CoreSettings
    limits: Limits
    block: int
    chunk: int
    grace_ms: int
    cache_bytes: int
    drop_replies: float  # the share of a drive's answers that never arrive
    constants: tuple[tuple[ModuleType, str, int], ...]
    turned: tuple[str, ...]

    @classmethod
    def draw(
        cls, rng, *, round_seconds, hedge_seconds, grace_ms, shares=(0.0, 0.1, 0.1, 0.3), layout_seconds=5.0
    ):  # fmt: skip
        """A kind of seed: how much is turned, then what."""
        share = rng.choice(shares)
        turned = []

        def turn(name, usual, *worse):
            if rng.random() >= share:
                return usual
            turned.append(name)
            return rng.choice(worse)

        block, chunk = turn("shape", (8192, 65_536), (BLOCK_BYTES, CHUNK_BYTES), (8192, 1))
        ttl_ms = turn("op_ttl", OP_TTL_MS, 2_000, 5_000)
        limits = Limits(
            op_ttl_ms=ttl_ms,
            max_put_ms=turn("max_put", MAX_PUT_MS, 5_000, 20_000),
            ceiling_lease_ms=turn("ceiling", 1000, 0, 50),
            promises_kept=turn("promises", 65_536, 1, 3),
        )
        healing = HealingSettings(
            limits=limits,
            purge_margin_ms=1_000,
            rows=turn("healing_rows", 256, 1, 3),
            at_once=turn("healing_at_once", 16, 1),
            steward_seconds=0.5,
            layout_seconds=layout_seconds,
            catch_up_seconds=turn("catch_up", 1.0, 0.3),
            forget_seconds=turn("forget", 2.0, 0.4),
            round_seconds=1.0,
        )
        core = CoreSettings(
            healing=healing,
            table=TableSettings(
                round_seconds=turn("round", round_seconds, 0.1),
                hedge_seconds=turn("hedge", hedge_seconds, 0.0, 1.0),
                reread_seconds=turn("reread", 0.02, 0.0),
                straggler_seconds=turn("straggler", 1.0, 0.0),
                op_ttl_ms=ttl_ms,
                ring_kept=turn("ring", 64, 1, 2, 8),
            ),
            objects=ObjectSettings(
                buffer_budget=turn("budget", 96 << 20, 4 * max(16 * block, chunk + 16 * block)),
                straggler_min_seconds=turn("straggler_min", 0.05, 0.0),
                straggler_max_seconds=turn("straggler_max", 0.2, 0.0, 1.0),
                straggler_feed_seconds=turn("straggler_feed", 1.0, 0.0, 10.0),
                queue_chunks=turn("queue", 4, 1),
                overflow_seconds=turn("overflow", 1.0, 0.0),
                stage_seconds=3.0,
                retry_seconds=turn("retry", 3.0, 0.3),
                fast_fill_seconds=turn("fast_fill", 0.25, 0.0),
                hedge_share=turn("read_hedge", 0.03, 0.0, 1.0),
                hedge_min_seconds=turn("read_hedge_min", 0.02, 0.0),
                ack=turn("ack", "shards", "node"),
                stall_seconds=turn("stall", 2.0, 0.002),
            ),
            peers=PeerSettings(
                call_seconds=5.0,
                ping_seconds=1.0,
                ping_timeout_seconds=1.0,
                max_waiting=turn("max_waiting", 4096, 12),
            ),
            server=ServerSettings(max_calls=turn("max_calls", 1024, 8)),
            # So that nodes are suspected and condemned within the seconds that faults last.
            detector=DetectorSettings(
                ping=2.0, suspect=3.0, offline=4.0, report=4.0, redial=0.5, tick=0.5
            ),
        )
        return cls(
            core=core,
            limits=limits,
            block=block,
            chunk=chunk,
            grace_ms=turn("grace", grace_ms, 0),
            cache_bytes=turn("cache", 1 << 20, 0, 4_000),
            drop_replies=turn("drop", 0.0, 0.02, 0.1),
            constants=tuple(
                entry for entry in CONSTANTS if turn(entry[1].strip("_").lower(), 0, 1)
            ),
            turned=(),
        )._named(turned)  # fmt: skip

    def _named(self, turned):
        self.turned = tuple(turned)
        return self

    @contextlib.contextmanager
    def applied(self):
        """The bounds that are module constants, for the time of a run."""
        usual = [(module, name, getattr(module, name)) for module, name, _ in self.constants]
        for module, name, value in self.constants:
            setattr(module, name, value)
        try:
            yield
        finally:
            for module, name, value in usual:
                setattr(module, name, value)


class LossyFace:
    """A drive whose answers may get lost on their way, until `rate` is set to 0."""

    def __init__(self, drive, rng, rate):
        self._drive, self._rng, self.rate = drive, rng, rate

    def __getattr__(self, name):
        return getattr(self._drive, name)

    def submit(self, request, reply):
        def maybe(message):
            if not self.rate or self._rng.random() >= self.rate:
                reply(message)

        self._drive.submit(request, maybe)
