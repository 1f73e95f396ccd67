"""Users, access keys and policies on a real node, through storectl and boto3's core."""

import json
import time

import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from cli import exits
from tests.e2e.node import running_node

pytestmark = pytest.mark.e2e
POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": "s3:*", "Resource": ["arn:aws:s3:::own", "arn:aws:s3:::own/*"]},
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::shared/open/*"},
        {"Effect": "Deny", "Action": "s3:Delete*", "Resource": "*"},
    ],
}  # fmt: skip


def client(node, access_key, secret_key):
    return botocore.session.Session().create_client(
        "s3", endpoint_url=node.endpoint, region_name="us-east-1", aws_access_key_id=access_key,
        aws_secret_access_key=secret_key, config=Config(retries={"max_attempts": 1}),
    )  # fmt: skip


def code(call, **arguments):
    """The error that a call gets."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return caught.value.response["Error"]["Code"]


def done(node, *command, status=exits.OK):
    ended = node.storectl(*command)
    assert ended.returncode == status, ended
    return ended.stdout if status == exits.OK else ended.stderr


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    with running_node(tmp_path_factory.mktemp("access")) as started:
        yield started


@pytest.fixture(scope="module")
def root(node):
    with_root = client(node, node.access_key, node.secret_key)
    for name in ("own", "shared"):
        with_root.create_bucket(Bucket=name)
        for key in ("open/1", "shut/1"):
            with_root.put_object(Bucket=name, Key=key, Body=b"hello")
    return with_root


def new_user(node, name, *policies):
    options = [part for policy in policies for part in ("--policy", policy)]
    done(node, "user", "add", name, *options)
    pair = json.loads(done(node, "key", "create", name, "--json"))
    return pair, client(node, pair["access_key"], pair["secret_key"])


def test_a_user_may_do_what_its_policy_allows(node, root, tmp_path):
    (tmp_path / "policy.json").write_text(json.dumps(POLICY))
    done(node, "policy", "set", "mine", str(tmp_path / "policy.json"))
    _, ann = new_user(node, "ann", "mine")
    ann.put_object(Bucket="own", Key="k", Body=b"x" * 100_000)
    assert ann.get_object(Bucket="own", Key="k")["Body"].read() == b"x" * 100_000
    assert [o["Key"] for o in ann.list_objects_v2(Bucket="own")["Contents"]] == [
        "k", "open/1", "shut/1"
    ]  # fmt: skip
    assert ann.get_object(Bucket="shared", Key="open/1")["Body"].read() == b"hello"
    source = {"Bucket": "shared", "Key": "open/1"}
    ann.copy_object(Bucket="own", Key="copy", CopySource=source)
    for call, arguments in [
        (ann.get_object, {"Bucket": "shared", "Key": "shut/1"}),
        (ann.get_object, {"Bucket": "shared", "Key": "open/none"}),
        (ann.put_object, {"Bucket": "shared", "Key": "open/1"}),
        (ann.list_objects_v2, {"Bucket": "shared"}),
        (ann.delete_object, {"Bucket": "own", "Key": "k"}),
        (ann.create_bucket, {"Bucket": "third"}),
        (ann.copy_object, {"Bucket": "own", "Key": "copy", "CopySource": "shared/shut/1"}),
    ]:
        assert code(call, **arguments) == "AccessDenied"
    deleted = ann.delete_objects(Bucket="own", Delete={"Objects": [{"Key": "k"}]})
    assert [error["Code"] for error in deleted["Errors"]] == ["AccessDenied"]
    assert code(ann.get_object, Bucket="own", Key="none") == "NoSuchKey"
    assert [bucket["Name"] for bucket in ann.list_buckets()["Buckets"]] == ["own"]


def test_what_is_disabled_is_refused_within_the_bound_and_let_in_again(node, root):
    pair, bob = new_user(node, "bob", "readonly")
    bob.get_object(Bucket="shared", Key="open/1")
    assert code(bob.put_object, Bucket="shared", Key="k") == "AccessDenied"
    for what, name in (("key", pair["access_key"]), ("user", "bob")):
        done(node, what, "disable", name)
        assert code(bob.get_object, Bucket="shared", Key="open/1") == "InvalidAccessKeyId"
        done(node, what, "enable", name)
        bob.get_object(Bucket="shared", Key="open/1")
    done(node, "user", "detach", "bob", "readonly")
    assert code(bob.get_object, Bucket="shared", Key="open/1") == "AccessDenied"
    done(node, "user", "attach", "bob", "readwrite")
    bob.put_object(Bucket="shared", Key="k")
    done(node, "key", "remove", pair["access_key"])
    assert code(bob.get_object, Bucket="shared", Key="k") == "InvalidAccessKeyId"
    other = client(node, pair["access_key"], "another-secret")
    assert code(other.list_buckets) == "InvalidAccessKeyId"


def test_a_wrong_secret_is_told_from_an_unknown_key_as_aws_does(node, root):
    pair, _ = new_user(node, "eve", "readonly")
    wrong = client(node, pair["access_key"], "not-the-secret")
    assert code(wrong.list_buckets) == "SignatureDoesNotMatch"
    unknown = client(node, "SK" + "2" * 18, pair["secret_key"])
    assert code(unknown.list_buckets) == "InvalidAccessKeyId"


def test_commands_show_what_there_is_and_say_what_is_wrong(node, root, tmp_path):
    done(node, "user", "add", "cid", "--policy", "readonly")
    done(node, "key", "create", "cid")
    users = json.loads(done(node, "user", "list", "--json"))
    (cid,) = [user for user in users if user["user"] == "cid"]
    assert (cid["disabled"], cid["policies"]) == (False, ["readonly"])
    assert "cid" in done(node, "user", "list")
    assert "cid" in done(node, "key", "list")
    assert "secret" not in done(node, "key", "list", "--json")
    assert "built in" in done(node, "policy", "list")
    assert "s3:Get*" in done(node, "policy", "show", "readonly")
    bad = tmp_path / "bad.json"
    statement = {"Effect": "Allow", "Action": "s3:*", "Resource": "*", "Condition": {}}
    bad.write_text(json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    typo = tmp_path / "typo.json"
    statement = {"Effect": "Deny", "Action": "s3:GetObjct", "Resource": "*"}
    typo.write_text(json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    warned = node.storectl("policy", "set", "typo", str(typo))
    assert (warned.returncode, "s3:GetObjct" in warned.stderr) == (exits.OK, True)
    for status, says, command in [
        (exits.CONFIG, "Condition is not supported", ("policy", "set", "bad", str(bad))),
        (exits.CONFIG, "built in", ("policy", "set", "readonly", str(typo))),
        (exits.CONFIG, "letters", ("user", "add", "c d")),
        (exits.FAILED, "exists", ("user", "add", "cid")),
        (exits.NOT_FOUND, "no such user", ("key", "create", "nobody")),
        (exits.NOT_FOUND, "no such policy", ("user", "attach", "cid", "none")),
        (exits.NOT_FOUND, "no such access key", ("key", "disable", "SK" + "2" * 18)),
    ]:
        assert says in done(node, *command, status=status)
    done(node, "policy", "remove", "typo")
    done(node, "user", "remove", "cid")
    assert "cid" not in done(node, "key", "list")


def test_it_outlives_a_restart_and_no_secret_is_in_a_log_or_on_a_drive(tmp_path):
    with running_node(tmp_path, arguments=()) as node:
        with_root = client(node, node.access_key, node.secret_key)
        with_root.create_bucket(Bucket="own")
        pair, dan = new_user(node, "dan", "readwrite")
        dan.put_object(Bucket="own", Key="k", Body=b"x")
        code(client(node, pair["access_key"], "wrong").list_buckets)
        assert node.stop() == 0
        node.start()
        dan = client(node, pair["access_key"], pair["secret_key"])
        assert dan.get_object(Bucket="own", Key="k")["Body"].read() == b"x"
        assert node.stop() == 0
        logs = "".join(log.read_text() for log in tmp_path.glob("log-*.txt"))
        assert pair["secret_key"] not in logs
        raw = b"".join(p.read_bytes() for p in node.drive(1).rglob("*") if p.is_file())
        assert pair["access_key"].encode() in raw
        assert pair["secret_key"].encode() not in raw


def test_when_too_few_drives_answer_what_is_known_is_used_and_changes_fail(tmp_path):
    with running_node(tmp_path, drives=3) as node:
        node.stop()
        node.settings = {**node.settings, "STORECTL_ACCESS_OUTAGE_SECONDS": "8"}
        node.start()
        pair, fay = new_user(node, "fay", "readonly")

        def ask():
            """A request that reaches no drive once the key is let in: such a bucket there cannot be."""
            return code(fay.list_parts, Bucket="no_bucket", Key="k", UploadId="0" * 32)

        for number in (1, 2):
            node.drive(number).rename(tmp_path / f"away{number}")
        status, tries = exits.OK, 0
        while status == exits.OK:
            assert ask() == "NoSuchBucket"
            tries += 1
            assert tries < 60
            status = node.storectl("user", "add", f"user{tries}").returncode
        assert status == exits.UNAVAILABLE
        assert ask() == "NoSuchBucket"
        refused = node.storectl("key", "disable", pair["access_key"])
        assert refused.returncode == exits.UNAVAILABLE
        assert code(client(node, "SK" + "2" * 18, "x").list_buckets) == "ServiceUnavailable"
        deadline = time.monotonic() + 20
        while ask() != "ServiceUnavailable":
            assert time.monotonic() < deadline
            time.sleep(0.2)
        for number in (1, 2):
            (tmp_path / f"away{number}").rename(node.drive(number))
        deadline = time.monotonic() + 20
        while ask() != "NoSuchBucket":
            assert time.monotonic() < deadline
            time.sleep(0.2)
