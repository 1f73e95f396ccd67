"""What commands may send to the admin socket, and what they are told when it cannot be taken."""

import json

import pytest

from cli.access_calls import CALLS
from cli.admin_socket import AdminHandler
from cluster.errors import OutcomeUnknownError, QuorumError
from s3.messages import Headers, RequestHead
from tests.access.world import over_drives
from tests.s3.client import Raw


class Untouchable:
    """A directory that must not be changed."""

    def __getattr__(self, name):
        def changed(*args, **kwargs):
            raise AssertionError(f"{name} was called")

        return changed


class Node:
    def __init__(self, directory):
        self.directory = directory


async def call(directory, method, target, body=b""):
    path, _, query = target.partition("?")
    head = RequestHead(
        method=method, path=path.encode(), query=query.encode(), headers=Headers([]), remote=""
    )
    answer = await AdminHandler(Node(directory)).handle(head, Raw(body))
    return answer.status, json.loads(answer.body)


@over_drives()
async def test_users_keys_and_policies_from_end_to_end(world, make):
    directory = make().directory

    async def tell(path, **arguments):
        status, content = await call(directory, "POST", path, json.dumps(arguments).encode())
        assert status == 200, content
        return content

    document = '{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": ["s3:*", "s3:Foo"], "Resource": "*"}}'
    assert await tell("/policy/set", policy="mine", document=document) == {
        "without_effect": ["s3:Foo"]
    }
    await tell("/user/add", user="ann", policies="mine,readonly")
    pair = await tell("/key/create", user="ann")
    assert set(pair) == {"access_key", "secret_key"}
    await tell("/user/detach", user="ann", policy="readonly")
    for kind, argument, name in (("key", "key", pair["access_key"]), ("user", "user", "ann")):
        for verb, disabled in (("disable", True), ("enable", False)):
            await tell(f"/{kind}/{verb}", **{argument: name})
            _, (row,) = await call(directory, "GET", f"/{kind}s")
            assert row["disabled"] is disabled
            assert "secret" not in json.dumps(row)
    assert await call(directory, "GET", "/policy?policy=mine") == (200, {"document": document})
    assert [row["policy"] for row in (await call(directory, "GET", "/policies"))[1]] == [
        "readonly", "readwrite", "mine"
    ]  # fmt: skip
    await tell("/key/remove", key=pair["access_key"])
    await tell("/user/remove", user="ann")
    await tell("/policy/remove", policy="mine")
    for path in ("/users", "/keys"):
        assert await call(directory, "GET", path) == (200, [])


@pytest.mark.parametrize("path", sorted({p.decode() for m, p in CALLS if m == "POST"}))
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"nonsense",
        b'{"user": 1}',
        b"\xff",
        b'{"user": "' + b"x" * 200_000 + b'"}',
    ],
)
async def test_arguments_that_cannot_be_used_are_400_and_reach_nothing(path, body):
    status, content = await call(Untouchable(), "POST", path, body)
    assert status == 400
    assert content["error"]


async def test_a_call_under_another_method_does_nothing():
    assert (await call(Untouchable(), "GET", "/user/remove?user=ann"))[0] == 404


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (QuorumError(2, 1), "1 of 2 needed drives answered; nothing was changed"),
        (OutcomeUnknownError("it may have"), "it may have"),
    ],
)
async def test_without_a_quorum_a_change_is_503_with_its_reason(error, says):
    class Away:
        async def remove_key(self, key):
            raise error

    status, content = await call(Away(), "POST", "/key/remove", b'{"key": "SK"}')
    assert (status, content["error"]) == (503, says)
