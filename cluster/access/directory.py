"""Changes of users, access keys and policies: each one compare-and-set on one register, told to the peers afterwards.

A change that no quorum takes has no effect. One that was acknowledged is obeyed by every node within the lease, by
those that hear of it at once.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import attrs
import trio
from msgspec.structs import replace

from cluster.access.builtin import BUILT_IN
from cluster.access.credentials import Credentials
from cluster.access.records import (
    KEYS,
    MAX_DOCUMENT,
    MAX_POLICIES,
    POLICIES,
    USERS,
    AccessKey,
    Policy,
    R,
    User,
    check_name,
    key_name,
    name_of,
    policy_name,
    user_name,
)
from cluster.access.registers import list_records, read_record, remove_record, write_record
from cluster.clock import Ballot
from cluster.errors import (
    ConfigError,
    ExistsError,
    NotFoundError,
    OutcomeUnknownError,
    PreconditionError,
    UnavailableError,
)
from cluster.metadata.table import Table
from cluster.runtime import Runtime
from cluster.secrets import KeyPair, Vault, draw_key_pair

MAX_TRIES = 8
Notify = Callable[[Sequence[bytes]], Awaitable[None]]


async def tell_nobody(_names: Sequence[bytes]) -> None:
    """The `notify` of a node without peers."""


@attrs.frozen
class AccessChanged:
    """Event: a user, an access key or a policy was changed, or may have been. Holds no secret."""

    register: str
    certain: bool


class Directory:
    """Create, change, list and remove. All raise QuorumError (nothing took effect) and OutcomeUnknownError."""

    def __init__(
        self, *, table: Table, runtime: Runtime, vault: Vault, credentials: Credentials,
        notify: Notify = tell_nobody,
    ) -> None:  # fmt: skip
        self._table, self._runtime, self._vault = table, runtime, vault
        self._credentials, self._notify = credentials, notify

    # -- users

    async def add_user(self, name: str, policies: Sequence[str] = ()) -> User:
        """Raises ConfigError, ExistsError, NotFoundError("policy")."""
        user = User(
            name=check_name("user", name), user_id=self._runtime.rng.randbytes(16), disabled=False,
            policies=_policies(policies), created_ms=self._runtime.wall_ms(),
        )  # fmt: skip
        for policy in user.policies:
            await self.policy(policy)
        await self._create(user, f"user {name} exists")
        return user

    async def users(self) -> Sequence[User]:
        """All, by name."""
        return await list_records(self._table, USERS, User)

    async def set_user_disabled(self, name: str, *, disabled: bool) -> None:
        """All keys of a disabled user are refused. Raises NotFoundError("user")."""
        await self._change(user_name(name), User, lambda user: replace(user, disabled=disabled))

    async def attach(self, name: str, policy: str) -> None:
        """Raises NotFoundError("user", "policy"), ConfigError."""
        await self.policy(policy)
        await self._change(
            user_name(name), User,
            lambda user: replace(user, policies=_policies([*user.policies, policy])),
        )  # fmt: skip

    async def detach(self, name: str, policy: str) -> None:
        """Raises NotFoundError("user", or "policy" where it is not attached)."""

        def without(user: User) -> User:
            if policy not in user.policies:
                raise NotFoundError("policy", f"{policy} of user {name}")
            return replace(user, policies=tuple(p for p in user.policies if p != policy))

        await self._change(user_name(name), User, without)

    async def remove_user(self, name: str) -> None:
        """With all its keys, which are refused from the moment when the user is gone. Raises NotFoundError("user")."""
        user = await self._remove(user_name(name), User)
        try:
            for key in await self.keys():
                if key.user_id == user.user_id:
                    with suppress(NotFoundError):
                        await self._remove(key_name(key.key_id), AccessKey, told=True)
        except UnavailableError as error:
            raise OutcomeUnknownError(
                f"user {name} is gone, and its keys are refused; some are still listed: {error}"
            ) from error

    # -- access keys

    async def create_key(self, user: str) -> KeyPair:
        """A new pair; its secret cannot be had again. Raises NotFoundError("user")."""
        found, _ = await self._read(user_name(user), User)
        pair = draw_key_pair(self._runtime.rng)
        key = AccessKey(
            key_id=pair.access_key, sealed=self._vault.seal(pair, self._runtime.rng), user=found.name,
            user_id=found.user_id, disabled=False, created_ms=self._runtime.wall_ms(),
        )  # fmt: skip
        await self._create(key, f"key {key.key_id} exists")
        return pair

    async def keys(self) -> Sequence[AccessKey]:
        """All, by id."""
        return await list_records(self._table, KEYS, AccessKey)

    async def set_key_disabled(self, key_id: str, *, disabled: bool) -> None:
        """Raises NotFoundError("access key")."""
        await self._change(key_name(key_id), AccessKey, lambda key: replace(key, disabled=disabled))

    async def remove_key(self, key_id: str) -> None:
        """Raises NotFoundError("access key")."""
        await self._remove(key_name(key_id), AccessKey)

    # -- policies

    async def set_policy(self, name: str, document: str) -> None:
        """Write or replace a policy, whose content the caller has checked. Raises ConfigError."""
        if name in BUILT_IN:
            raise ConfigError(f"policy {name} is built in")
        if len(document.encode()) > MAX_DOCUMENT:
            raise ConfigError(f"policy {name}: more than {MAX_DOCUMENT} bytes")
        policy = Policy(name=check_name("policy", name), document=document)
        for _ in range(MAX_TRIES):
            found = await read_record(self._table, name_of(policy), Policy)
            try:
                return await self._write(policy, None if found is None else found[1])
            except PreconditionError:
                continue
        raise UnavailableError(f"policy {name} is being changed by others")

    async def policy(self, name: str) -> str:
        """The document. Raises NotFoundError("policy")."""
        if name in BUILT_IN:
            return BUILT_IN[name]
        found, _ = await self._read(policy_name(name), Policy)
        return found.document

    async def policies(self) -> Sequence[Policy]:
        """Those that were written, by name."""
        return await list_records(self._table, POLICIES, Policy)

    async def remove_policy(self, name: str) -> None:
        """Raises NotFoundError("policy"), ConfigError while users have it.

        A user that gets it in the same moment is allowed nothing until it is detached: what it denied is unknown.
        """
        if name in BUILT_IN:
            raise ConfigError(f"policy {name} is built in")
        holders = [user.name for user in await self.users() if name in user.policies]
        if holders:
            raise ConfigError(f"policy {name} is attached to {', '.join(holders[:5])}: detach it")
        await self._remove(policy_name(name), Policy)

    # -- one register

    async def _read(self, name: bytes, kind: type[R]) -> tuple[R, Ballot]:
        found = await read_record(self._table, name, kind)
        if found is None:
            what, _, own = name.decode().removeprefix("access/").partition("/")
            raise NotFoundError("access key" if kind is AccessKey else what, own)
        return found

    async def _create(self, record: User | AccessKey, otherwise: str) -> None:
        try:
            await self._write(record, None)
        except PreconditionError:
            raise ExistsError(otherwise) from None

    async def _change(self, name: bytes, kind: type[R], change: Callable[[R], R]) -> None:
        for _ in range(MAX_TRIES):
            record, stamp = await self._read(name, kind)
            try:
                return await self._write(change(record), stamp)
            except PreconditionError:
                continue  # somebody else has changed it
        raise UnavailableError(f"{name.decode()} is being changed by others")

    async def _remove(self, name: bytes, kind: type[R], *, told: bool = False) -> R:
        """`told`: nobody needs to hear of it, what it meant is void already."""
        for _ in range(MAX_TRIES):
            record, stamp = await self._read(name, kind)
            try:
                await remove_record(self._table, name, stamp)
            except PreconditionError:
                continue
            except OutcomeUnknownError:
                await self._tell(name, certain=False)
                raise
            if told:
                self._credentials.forget([name])
            else:
                await self._tell(name)
            return record
        raise UnavailableError(f"{name.decode()} is being changed by others")

    async def _write(self, record: User | AccessKey | Policy, over: Ballot | None) -> None:
        try:
            await write_record(self._table, record, over)
        except OutcomeUnknownError:
            await self._tell(name_of(record), certain=False)
            raise
        await self._tell(name_of(record))

    async def _tell(self, name: bytes, *, certain: bool = True) -> None:
        """Here at once; the peers get as long as the lease, after which they ask anyway."""
        self._runtime.emit(AccessChanged(name.decode(), certain))
        self._credentials.forget([name])
        with trio.move_on_after(self._credentials.leases.settings.lease):
            await self._notify([name])


def _policies(names: Sequence[str]) -> tuple[str, ...]:
    distinct = tuple(sorted(set(names)))
    if len(distinct) > MAX_POLICIES:
        raise ConfigError(f"at most {MAX_POLICIES} policies per user")
    return distinct
