"""Nodes of their own over the same drives in virtual time, each with what access keys need."""

import attrs
import trio

from cluster.access.credentials import Credentials
from cluster.access.directory import Directory, tell_nobody
from cluster.access.leases import LeaseSettings
from cluster.metadata.table import Table
from cluster.secrets import Vault
from tests.sim.run import simulate
from tests.sim.single_node import SingleNode

SEALING_KEY = b"k" * 32


@attrs.define
class AccessNode:
    """One node's side. `reads` counts the quorum reads of its table."""

    table: Table
    runtime: object
    vault: Vault
    credentials: Credentials
    directory: Directory
    reads: list[bytes] = attrs.field(factory=list)


def open_access(table, runtime, nursery, *, notify=tell_nobody, settings=None) -> AccessNode:
    vault, reads = Vault(), []
    vault.open(SEALING_KEY)
    read = table.read

    async def counted(ref, **kwargs):
        reads.append(ref.row)
        return await read(ref, **kwargs)

    table.read = counted
    credentials = Credentials(table=table, vault=vault, nursery=nursery, settings=settings)
    directory = Directory(
        table=table, runtime=runtime, vault=vault, credentials=credentials, notify=notify
    )
    return AccessNode(table, runtime, vault, credentials, directory, reads)


def over_drives(*, settings=None):
    """A test in virtual time that gets a world of drives and a maker of nodes over them."""

    def decorate(test):
        def run():
            async def main(rng, trace):
                async with trio.open_nursery() as nursery:
                    world = SingleNode(rng, nursery, trace)

                    def make(notify=tell_nobody, settings=settings):
                        context = world.coordinator(nursery)._context
                        return open_access(
                            context.table, context.runtime, nursery, notify=notify,
                            settings=settings,
                        )  # fmt: skip

                    await test(world, make)
                    nursery.cancel_scope.cancel()

            simulate(main, seed=1, limit=100_000)

        run.__name__ = test.__name__
        return run

    return decorate


async def refuse_drives(world):
    """No quorum any more: all drives but one go silent."""
    for drive in world.drives[1:]:
        drive.faults.hung = True


def restore_drives(world):
    for drive in world.drives:
        drive.faults.hung = False


TINY = LeaseSettings(lease=0.5, outage=3.0, max_known=4, max_absent=4)
