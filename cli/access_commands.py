"""`storectl user`, `storectl key`, `storectl policy`."""

import json
import sys
from pathlib import Path
from typing import IO

import click

from cli import exits, render
from cli.asking import JSON, STATE, ask, fail, show, tell


@click.group()
def user() -> None:
    """Users: who may hold access keys."""


@user.command("add")
@click.argument("name")
@click.option("--policy", "policies", multiple=True, help="Attach this policy. May be repeated.")
@STATE
def user_add(name: str, policies: tuple[str, ...], state: Path | None) -> None:
    """A new user. Without a policy it may do nothing."""
    tell(state, "/user/add", user=name, policies=",".join(policies))
    print(f"user {name} added")


@user.command("list")
@STATE
@JSON
def user_list(*, state: Path | None, as_json: bool) -> None:
    """All users with their policies."""
    show(ask(state, "/users"), render.users, as_json=as_json)


@user.command("disable")
@click.argument("name")
@STATE
def user_disable(name: str, state: Path | None) -> None:
    """Refuse all keys of a user, everywhere within 2 s."""
    tell(state, "/user/disable", user=name)
    print(f"user {name} disabled")


@user.command("enable")
@click.argument("name")
@STATE
def user_enable(name: str, state: Path | None) -> None:
    """Let a user's keys in again."""
    tell(state, "/user/enable", user=name)
    print(f"user {name} enabled")


@user.command("remove")
@click.argument("name")
@STATE
def user_remove(name: str, state: Path | None) -> None:
    """Remove a user and all its keys. Its buckets and objects stay."""
    tell(state, "/user/remove", user=name)
    print(f"user {name} removed, with its keys")


@user.command("attach")
@click.argument("name")
@click.argument("policy")
@STATE
def user_attach(name: str, policy: str, state: Path | None) -> None:
    """Give a user a policy."""
    tell(state, "/user/attach", user=name, policy=policy)
    print(f"policy {policy} attached to user {name}")


@user.command("detach")
@click.argument("name")
@click.argument("policy")
@STATE
def user_detach(name: str, policy: str, state: Path | None) -> None:
    """Take a policy from a user."""
    tell(state, "/user/detach", user=name, policy=policy)
    print(f"policy {policy} detached from user {name}")


@click.group()
def key() -> None:
    """Access keys of users."""


@key.command("create")
@click.argument("name", metavar="USER")
@STATE
@JSON
def key_create(*, name: str, state: Path | None, as_json: bool) -> None:
    """A new access key. Its secret is shown now and never again."""
    show(tell(state, "/key/create", user=name), render.new_key, as_json=as_json)


@key.command("list")
@STATE
@JSON
def key_list(*, state: Path | None, as_json: bool) -> None:
    """All access keys with their users; not the root key."""
    show(ask(state, "/keys"), render.keys, as_json=as_json)


@key.command("disable")
@click.argument("access_key")
@STATE
def key_disable(access_key: str, state: Path | None) -> None:
    """Refuse an access key, everywhere within 2 s."""
    tell(state, "/key/disable", key=access_key)
    print(f"key {access_key} disabled")


@key.command("enable")
@click.argument("access_key")
@STATE
def key_enable(access_key: str, state: Path | None) -> None:
    """Let an access key in again."""
    tell(state, "/key/enable", key=access_key)
    print(f"key {access_key} enabled")


@key.command("remove")
@click.argument("access_key")
@STATE
def key_remove(access_key: str, state: Path | None) -> None:
    """Remove an access key for good."""
    tell(state, "/key/remove", key=access_key)
    print(f"key {access_key} removed")


@click.group()
def policy() -> None:
    """Policies: what users may do."""


@policy.command("set")
@click.argument("name")
@click.argument("file", type=click.File(encoding="utf-8"))
@STATE
def policy_set(name: str, file: IO[str], state: Path | None) -> None:
    """Write or replace a policy from a JSON file (- is standard input)."""
    try:
        document = file.read()
    except UnicodeDecodeError:
        fail(f"{file.name} is not UTF-8", exits.CONFIG)
    done = tell(state, "/policy/set", policy=name, document=document)
    print(f"policy {name} set")
    for action in done["without_effect"]:
        print(f"storectl: warning: {action} names no action of this version", file=sys.stderr)


@policy.command("list")
@STATE
@JSON
def policy_list(*, state: Path | None, as_json: bool) -> None:
    """All policies, the built-in ones too."""
    show(ask(state, "/policies"), render.policies, as_json=as_json)


@policy.command("show")
@click.argument("name")
@STATE
def policy_show(name: str, state: Path | None) -> None:
    """The document of a policy."""
    print(json.dumps(json.loads(ask(state, "/policy", policy=name)["document"]), indent=2))


@policy.command("remove")
@click.argument("name")
@STATE
def policy_remove(name: str, state: Path | None) -> None:
    """Remove a policy that no user has."""
    tell(state, "/policy/remove", policy=name)
    print(f"policy {name} removed")
