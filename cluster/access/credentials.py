"""Access keys as requests present them: from memory within the lease, afterwards checked by one round of quorum reads."""

from collections.abc import Iterable

import attrs
import trio

from cluster.access.leases import Kept, Known, KnownKey, Leases, LeaseSettings
from cluster.access.records import KEYS, USERS, AccessKey, Policy, RecordError, User, is_key_id
from cluster.access.registers import read_record, read_stamp
from cluster.access.resolve import Holder, Settled, walk
from cluster.clock import Ballot
from cluster.errors import ClusterError, OverloadedError, UnavailableError
from cluster.metadata.table import Table
from cluster.secrets import Vault

MAX_LOOKS = 8  # key, user, policies, and what changes meanwhile
MAX_STRANGERS = 32  # reads under way for registers of which nothing is known


@attrs.define(eq=False)
class _Flight:
    """A read of one register, for all who wait for it."""

    landed: trio.Event = attrs.field(factory=trio.Event)
    void: bool = False  # the register has changed since it began
    error: str | None = None


class Credentials:
    """Finds out who holds an access key. `nursery` lives as long as the server: a read is nobody's alone."""

    def __init__(
        self, *, table: Table, vault: Vault, nursery: trio.Nursery,
        settings: LeaseSettings | None = None,
    ) -> None:  # fmt: skip
        self._table, self._vault, self._nursery = table, vault, nursery
        self.leases = Leases(settings if settings is not None else LeaseSettings())
        self._flights: dict[bytes, _Flight] = {}
        self._strangers = 0

    async def find(self, access_key: str) -> Holder | None:
        """Who holds the key; None: it does not exist, or is not to be used.

        Raises UnavailableError where that cannot be said: no quorum answers, and nothing recent enough is known;
        OverloadedError where too many strangers ask.
        """
        if not is_key_id(access_key):
            return None
        since = trio.current_time()
        for _ in range(MAX_LOOKS):
            step = walk(access_key, self.leases, now=trio.current_time(), since=since)
            if isinstance(step, Settled):
                return step.holder
            for name, flight in [(name, self._flight(name)) for name in step.names]:
                await flight.landed.wait()
                if flight.error is not None and not self._bridge(name):
                    raise UnavailableError(flight.error)
        raise UnavailableError("the records of this access key change faster than they can be read")

    def forget(self, names: Iterable[bytes]) -> None:
        """These registers have changed: ask before using them again."""
        for name in names:
            self.leases.forget([name])
            flight = self._flights.pop(name, None)
            if flight is not None:
                flight.void = True

    def _bridge(self, name: bytes) -> bool:
        return self.leases.note_outage(name, trio.current_time())

    def _flight(self, name: bytes) -> _Flight:
        flight = self._flights.get(name)
        if flight is None:
            kept = self.leases.find(name)
            stranger = kept is None or kept.known is None
            if stranger and self._strangers >= MAX_STRANGERS:
                raise OverloadedError("too many unknown access keys are being looked up")
            self._strangers += stranger
            flight = self._flights[name] = _Flight()
            self._nursery.start_soon(self._fly, name, flight, kept, stranger)
        return flight

    async def _fly(self, name: bytes, flight: _Flight, kept: Kept | None, stranger: bool) -> None:
        began = trio.current_time()
        try:
            known, stamp = await self._read(name, kept)
            if not flight.void:
                self.leases.keep(name, known, stamp, began)
        except ClusterError as error:
            flight.error = f"the access key cannot be looked up: {error}"
            if not isinstance(error, UnavailableError):
                self.leases.forget([name])  # a quorum has answered, with what we cannot read
        finally:
            self._strangers -= stranger
            if self._flights.get(name) is flight:
                del self._flights[name]
            flight.landed.set()

    async def _read(self, name: bytes, kept: Kept | None) -> tuple[Known | None, Ballot | None]:
        if kept is not None and await read_stamp(self._table, name) == kept.stamp:
            return kept.known, kept.stamp
        if name.startswith(KEYS):
            key = await read_record(self._table, name, AccessKey)
            return (None, None) if key is None else (self._open(key[0]), key[1])
        if name.startswith(USERS):
            return await read_record(self._table, name, User) or (None, None)
        return await read_record(self._table, name, Policy) or (None, None)

    def _open(self, key: AccessKey) -> KnownKey:
        pair = self._vault.unseal(key.sealed)
        if pair.access_key != key.key_id:
            raise RecordError(f"access key {key.key_id} holds the secret of another")
        return KnownKey(
            user=key.user, user_id=key.user_id, disabled=key.disabled, secret=pair.secret_key
        )
