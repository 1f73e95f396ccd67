"""A node: its drives opened, the layout found or formed, registers and objects on top. The composition root of the cluster side."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import attrs
import trio

from cluster import secrets
from cluster.access.credentials import Credentials
from cluster.access.directory import Directory
from cluster.access.leases import LeaseSettings
from cluster.config import Config, expand_drives
from cluster.core import Core, CoreSettings, NoTransport
from cluster.drives.drive import Drive, DriveState
from cluster.drives.file_ops import FileOps
from cluster.drives.format import Plan, carry_out, decide, finish, heal_copies, inspect
from cluster.drives.seats import Seats, open_seats
from cluster.drives.settings import DriveSettings
from cluster.erasure.codec import CODEC, codec_for
from cluster.erasure.profile import parse_profile
from cluster.errors import ConfigError, QuorumError
from cluster.layout import Layout, Node as LayoutNode
from cluster.metadata.table import Table
from cluster.objects.ack import AckPolicy
from cluster.objects.context import ObjectSettings
from cluster.register.mutations import HeadIs
from cluster.runtime import Runtime
from cluster.topology import agreement
from cluster.topology.formation import arrange, form_sets
from cluster.topology.tolerance import Tolerance, tolerates

RETRY_SECONDS = 1.0


@attrs.frozen
class WaitingForDrives:
    """Event: the node was started with fewer drives than it takes to read its keys, and answers 503."""

    reason: str


class Node:
    """What runs on one machine. Made by open_node."""

    def __init__(
        self,
        plan: Plan,
        seats: Seats,
        core: Core,
    ) -> None:
        self.plan = plan
        self.seats = seats
        self.core = core
        self.table, self.store = core.table, core.store
        self.root_key: secrets.KeyPair | None = None  # None: too few drives answer to read it

    @property
    def drives(self) -> Sequence[Drive]:
        """All drives of the node, in the order in which they were formatted."""
        return self.seats.drives

    @property
    def credentials(self) -> Credentials:
        """Who holds an access key."""
        return self.core.credentials

    @property
    def directory(self) -> Directory:
        """Users, access keys and policies."""
        return self.core.directory

    @property
    def layout(self) -> Layout:
        """In force."""
        return self.core.layout

    @property
    def tolerance(self) -> Tolerance:
        """What the layout survives."""
        return tolerates(self.layout)

    async def ready(self) -> tuple[bool, str]:
        """Whether every set has its write quorum, and a line that says what is missing."""
        if self.root_key is None:
            return False, "waiting for drives: too few answer to read the layout and the keys"
        lost = self.core.quorum_lost()
        return not lost, lost or "ready"


def state_folder(config: Config, paths: Sequence[Path]) -> Path:
    """Where the node keeps its identity, keys and sockets."""
    return Path(config.state).absolute() if config.state else paths[0].parent / "storectl-state"


@asynccontextmanager
async def open_node(
    config: Config,
    runtime: Runtime,
    environment: Mapping[str, str],
) -> AsyncIterator[Node]:
    """The node, while the block runs. Raises ConfigError for what the operator must mend, QuorumError at the first start.

    A node that is started again with too few drives to read its keys waits for them: `ready` says so, and it recovers when
    they come back.
    """
    paths = expand_drives(config.drives)
    state = state_folder(config, paths)
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = FileOps()
    plan = await runtime.offload(partial(_prepare_drives, config, paths, runtime, files))
    profile = parse_profile(plan.code)
    codec_for(profile.k, profile.m)
    async with AsyncExitStack() as stack:
        settings = _drive_settings(config)
        seats = await stack.enter_async_context(
            open_seats(plan, runtime, settings=settings, files=files)
        )
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        core = Core(
            plan.node, _first_layout(plan, config), own=lambda: seats.by_id, transport=NoTransport(),
            runtime=runtime, nursery=nursery, settings=_core_settings(config),
        )  # fmt: skip
        await core.agreement.open()
        nursery.start_soon(core.run)
        node = Node(plan, seats, core)
        come_up = partial(_come_up, node, state, runtime, environment, files)
        try:
            await come_up()
        except QuorumError as error:
            if plan.forming:
                raise
            runtime.emit(WaitingForDrives(str(error)))
            nursery.start_soon(_come_up_later, come_up)
        yield node


async def _come_up(
    node: Node, state: Path, runtime: Runtime, environment: Mapping[str, str], files: FileOps
) -> None:
    """Agree on the layout, read or make the keys. Raises ConfigError, QuorumError."""
    is_new = await _agree_on_layout(node.core, node.plan)
    root_key = await _root_key(node.table, state, runtime, environment, is_new=is_new)
    await runtime.offload(partial(finish, node.plan, files))
    node.core.vault.open(secrets.sealing_key(state, runtime.rng, may_create=False))
    node.root_key = root_key


async def _come_up_later(come_up: Callable[[], Awaitable[None]]) -> None:
    while True:
        await trio.sleep(RETRY_SECONDS)
        with suppress(QuorumError):
            return await come_up()


def _prepare_drives(
    config: Config, paths: Sequence[Path], runtime: Runtime, files: FileOps
) -> Plan:
    """Look at the folders, decide, and format what is to be formatted. Blocking."""
    founds = [inspect(path) for path in paths]
    plan = decide(
        founds,
        code=config.erasure or None,
        arrange=partial(arrange, config.erasure or None),
        new_id=lambda: runtime.rng.randbytes(16),
    )
    try:
        carry_out(plan, files)
    except OSError as error:
        raise ConfigError(
            f"formatting failed: {error}. Mend it and start again: the start goes on where it stopped."
        ) from error
    for seat in plan.seats:
        if seat.state is DriveState.ACTIVE:
            heal_copies(seat.path, files)
    return plan


def _drive_settings(config: Config) -> DriveSettings:
    return DriveSettings(
        cache_bytes=config.row_cache_mib << 20,
        read_grace_ms=int(config.read_grace_seconds * 1000),
        min_free_bytes=config.min_free_mib << 20,
        min_free_ratio=config.min_free_ratio,
    )


def _core_settings(config: Config) -> CoreSettings:
    return CoreSettings(
        objects=_object_settings(config), access=LeaseSettings(outage=config.outage_seconds)
    )


def _object_settings(config: Config) -> ObjectSettings:
    ack: AckPolicy = "node" if config.ack == "node" else "shards"
    return ObjectSettings(ack=ack, buffer_budget=config.buffer_mib << 20)


def _first_layout(plan: Plan, config: Config) -> Layout:
    profile = parse_profile(plan.code)
    members = [seat.member for seat in plan.seats]
    return Layout(
        epoch=1,
        cluster=plan.cluster,
        nodes=(LayoutNode(node=plan.node, address=config.listen),),
        sets=form_sets([(m.drive, plan.node, m.set_id, m.position) for m in members], profile),
        system_set=0,
        k=profile.k,
        m=profile.m,
        codec=CODEC,
    )


async def _agree_on_layout(core: Core, plan: Plan) -> bool:
    """Write the layout's register at a first start; True: this was one. Raises ConfigError for another code."""
    table = core.table
    if await table.read_document(agreement.DOCUMENT) is None:
        if not plan.forming:
            raise ConfigError(
                "these drives were in use, and have no layout: were they rolled back? Restore them."
            )
        await table.write_document(
            agreement.DOCUMENT, core.agreement.encoded, expect=(HeadIs(stamp=None),)
        )
        return True
    agreed = await core.agreement.refresh(table)
    if agreed.codec != CODEC:
        raise ConfigError(
            f"the cluster is coded with {agreed.codec}; this program codes with {CODEC}"
        )
    for seat in plan.seats:
        member = seat.member
        if agreed.erasure_set(member.set_id).positions[member.position].drive != member.drive:
            raise ConfigError(
                "the drives' format.json and the cluster's layout disagree about the sets"
            )
    return False


async def _root_key(
    table: Table, state: Path, runtime: Runtime, environment: Mapping[str, str], *, is_new: bool
) -> secrets.KeyPair:
    """The root key pair: drawn or given at the first start, afterwards what the register says."""
    given = secrets.given_key_pair(environment)
    known = await table.read_document(secrets.DOCUMENT)
    key = secrets.sealing_key(state, runtime.rng, may_create=is_new or known is None)
    if known is None:
        pair = given if given is not None else secrets.draw_key_pair(runtime.rng)
        await table.write_document(
            secrets.DOCUMENT, secrets.seal(pair, key, runtime.rng), expect=(HeadIs(stamp=None),)
        )
    else:
        pair = secrets.unseal(known[0], key)
        if given is not None and given != pair:
            raise ConfigError(
                "the root key pair that was given is not this cluster's: leave STORECTL_ROOT_ACCESS_KEY and "
                "STORECTL_ROOT_SECRET_KEY out, or give the right ones"
            )
    credentials = json.dumps(
        {"access_key": pair.access_key, "secret_key": pair.secret_key}, indent=2
    )
    secrets.write_private(state / secrets.CREDENTIALS_FILE, credentials.encode() + b"\n")
    return pair
