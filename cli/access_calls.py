"""Admin calls about users, access keys and policies: a table from method and path to what is done. A secret is said once."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from cluster.access.builtin import BUILT_IN
from cluster.errors import ConfigError
from cluster.node import Node
from s3.ops.permissions import all_actions
from s3.policy import PolicyError, parse_policy, without_effect

Arguments = Mapping[str, str]
Call = Callable[[Node, Arguments], Awaitable[Any]]


def _given(arguments: Arguments, name: str) -> str:
    value = arguments.get(name)
    if not value:
        raise ConfigError(f"{name} is missing")
    return value


async def _users(node: Node, _: Arguments) -> Any:
    return [
        {"user": u.name, "disabled": u.disabled, "policies": list(u.policies), "created_ms": u.created_ms}
        for u in await node.directory.users()
    ]  # fmt: skip


async def _add_user(node: Node, arguments: Arguments) -> Any:
    policies = [name for name in arguments.get("policies", "").split(",") if name]
    user = await node.directory.add_user(_given(arguments, "user"), policies)
    return {"user": user.name, "policies": list(user.policies)}


async def _remove_user(node: Node, arguments: Arguments) -> Any:
    await node.directory.remove_user(_given(arguments, "user"))


def _turn_user(*, disabled: bool) -> Call:
    async def turn(node: Node, arguments: Arguments) -> Any:
        await node.directory.set_user_disabled(_given(arguments, "user"), disabled=disabled)

    return turn


async def _attach(node: Node, arguments: Arguments) -> Any:
    await node.directory.attach(_given(arguments, "user"), _given(arguments, "policy"))


async def _detach(node: Node, arguments: Arguments) -> Any:
    await node.directory.detach(_given(arguments, "user"), _given(arguments, "policy"))


async def _keys(node: Node, _: Arguments) -> Any:
    return [
        {"access_key": k.key_id, "user": k.user, "disabled": k.disabled, "created_ms": k.created_ms}
        for k in await node.directory.keys()
    ]


async def _create_key(node: Node, arguments: Arguments) -> Any:
    pair = await node.directory.create_key(_given(arguments, "user"))
    return {"access_key": pair.access_key, "secret_key": pair.secret_key}


async def _remove_key(node: Node, arguments: Arguments) -> Any:
    await node.directory.remove_key(_given(arguments, "key"))


def _turn_key(*, disabled: bool) -> Call:
    async def turn(node: Node, arguments: Arguments) -> Any:
        await node.directory.set_key_disabled(_given(arguments, "key"), disabled=disabled)

    return turn


async def _policies(node: Node, _: Arguments) -> Any:
    own = [{"policy": p.name, "built_in": False} for p in await node.directory.policies()]
    return [{"policy": name, "built_in": True} for name in BUILT_IN] + own


async def _policy(node: Node, arguments: Arguments) -> Any:
    return {"document": await node.directory.policy(_given(arguments, "policy"))}


async def _set_policy(node: Node, arguments: Arguments) -> Any:
    name, document = _given(arguments, "policy"), _given(arguments, "document")
    try:
        statements = parse_policy(document)
    except PolicyError as error:
        raise ConfigError(f"policy {name}: {error}") from None
    await node.directory.set_policy(name, document)
    return {"without_effect": without_effect(statements, all_actions())}


async def _remove_policy(node: Node, arguments: Arguments) -> Any:
    await node.directory.remove_policy(_given(arguments, "policy"))


CALLS: Mapping[tuple[str, bytes], Call] = {
    ("GET", b"/users"): _users,
    ("POST", b"/user/add"): _add_user,
    ("POST", b"/user/remove"): _remove_user,
    ("POST", b"/user/disable"): _turn_user(disabled=True),
    ("POST", b"/user/enable"): _turn_user(disabled=False),
    ("POST", b"/user/attach"): _attach,
    ("POST", b"/user/detach"): _detach,
    ("GET", b"/keys"): _keys,
    ("POST", b"/key/create"): _create_key,
    ("POST", b"/key/remove"): _remove_key,
    ("POST", b"/key/disable"): _turn_key(disabled=True),
    ("POST", b"/key/enable"): _turn_key(disabled=False),
    ("GET", b"/policies"): _policies,
    ("GET", b"/policy"): _policy,
    ("POST", b"/policy/set"): _set_policy,
    ("POST", b"/policy/remove"): _remove_policy,
}
