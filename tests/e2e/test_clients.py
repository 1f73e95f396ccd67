"""Real clients, unmodified, each in an environment of its own, against a real node.

A missing client fails the run and names the package: it is never skipped.
"""

import os
import shutil
import subprocess
import urllib.parse
from pathlib import Path

import pytest

from tests.e2e.node import NodeProcess, running_node

pytestmark = pytest.mark.e2e
HERE = Path(__file__).parent / "clients"
# What the machine says about AWS or proxies must not reach a client that talks to loopback.
CLEAN_ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.upper().startswith(("AWS_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"))
}
ENVIRONMENTS = Path(__file__).parents[2] / ".cache" / "clients"


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    with running_node(tmp_path_factory.mktemp("clients")) as started:
        yield started


def in_environment(name: str, program: str) -> str:
    path = ENVIRONMENTS / name / "bin" / program
    assert path.exists(), (
        f"{name} is not installed: `make clients` installs tests/e2e/clients/{name}.txt"
    )
    return str(path)


def debian(program: str) -> str:
    path = shutil.which(program)
    assert path, (
        f"{program} is not installed: `make debian-packages` (or apt-get install {program})"
    )
    return path


def run(*command: str, env: dict[str, str] | None = None, stdin: bytes | None = None) -> str:
    done = subprocess.run(
        command,
        env=CLEAN_ENVIRONMENT | (env or {}),
        input=stdin or b"",
        capture_output=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, (
        f"{command} exited with {done.returncode}:\n{done.stdout.decode()}\n{done.stderr.decode()}"
    )
    return done.stdout.decode()


def session(name: str, node: NodeProcess, *more: str) -> None:
    run(
        in_environment(name, "python"),
        str(HERE / f"{name}_session.py"),
        node.endpoint,
        node.access_key,
        node.secret_key,
        *more,
    )


@pytest.mark.parametrize("checksums", ["when_supported", "when_required"])
def test_boto3(node, checksums):
    session("boto3", node, checksums)


def test_minio_py(node):
    session("minio", node)


def test_s3fs(node):
    session("s3fs", node)


def test_aws_cli(node, tmp_path):
    keys = {
        "AWS_ACCESS_KEY_ID": node.access_key,
        "AWS_SECRET_ACCESS_KEY": node.secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
    }
    program = in_environment("awscli", "aws")

    def aws(*arguments):
        return run(program, "--endpoint-url", node.endpoint, *arguments, env=keys)

    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "small.txt").write_bytes(b"small")
    (tree / "sub" / "large.bin").write_bytes(os.urandom((20 << 20) + 3))
    aws("s3", "mb", "s3://by-awscli")
    aws("s3", "cp", str(tree), "s3://by-awscli/tree", "--recursive")
    listed = aws("s3", "ls", "s3://by-awscli", "--recursive")
    assert "tree/small.txt" in listed
    assert "tree/sub/large.bin" in listed
    aws("s3", "sync", "s3://by-awscli/tree", str(tmp_path / "back"))
    assert (tmp_path / "back" / "sub" / "large.bin").read_bytes() == (
        tree / "sub" / "large.bin"
    ).read_bytes()
    aws("s3", "mv", "s3://by-awscli/tree/small.txt", "s3://by-awscli/moved")
    aws("s3api", "head-object", "--bucket", "by-awscli", "--key", "moved")
    aws("s3", "rb", "s3://by-awscli", "--force")


def test_s3cmd(node, tmp_path):
    host = urllib.parse.urlsplit(node.endpoint).netloc
    options = [
        f"--access_key={node.access_key}", f"--secret_key={node.secret_key}", f"--host={host}", f"--host-bucket={host}",
        "--no-ssl", "--region=us-east-1", f"--config={tmp_path / 'none'}", "--multipart-chunk-size-mb=5",
    ]  # fmt: skip
    (tmp_path / "none").touch()

    def s3cmd(*arguments):
        return run(in_environment("s3cmd", "s3cmd"), *options, *arguments)

    body = tmp_path / "body"
    body.write_bytes(os.urandom((12 << 20) + 1))
    s3cmd("mb", "s3://by-s3cmd")
    s3cmd("put", str(body), "s3://by-s3cmd/dir/body with space")
    assert "dir/body with space" in s3cmd("ls", "-r", "s3://by-s3cmd")
    s3cmd("get", "s3://by-s3cmd/dir/body with space", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == body.read_bytes()
    s3cmd("cp", "s3://by-s3cmd/dir/body with space", "s3://by-s3cmd/copy")
    s3cmd("del", "-r", "--force", "s3://by-s3cmd")
    s3cmd("rb", "s3://by-s3cmd")


def test_rclone(node, tmp_path):
    remote = {
        "RCLONE_CONFIG": str(tmp_path / "rclone.conf"),
        "RCLONE_CONFIG_STORE_TYPE": "s3",
        "RCLONE_CONFIG_STORE_PROVIDER": "Other",
        "RCLONE_CONFIG_STORE_ACCESS_KEY_ID": node.access_key,
        "RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY": node.secret_key,
        "RCLONE_CONFIG_STORE_ENDPOINT": node.endpoint,
        "RCLONE_CONFIG_STORE_REGION": "us-east-1",
        "RCLONE_CONFIG_STORE_CHUNK_SIZE": "5M",
        "RCLONE_CONFIG_STORE_UPLOAD_CUTOFF": "5M",
    }
    program = debian("rclone")
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "empty").write_bytes(b"")
    (tree / "sub" / "large.bin").write_bytes(os.urandom((11 << 20) + 3))
    run(program, "mkdir", "store:by-rclone", env=remote)
    run(program, "sync", str(tree), "store:by-rclone/tree", env=remote)
    run(program, "check", "--download", str(tree), "store:by-rclone/tree", env=remote)
    run(program, "copy", "store:by-rclone/tree/sub", "store:by-rclone/other", env=remote)
    assert "large.bin" in run(program, "lsf", "store:by-rclone/other", env=remote)
    run(program, "purge", "store:by-rclone", env=remote)


def test_curl(node, tmp_path):
    signed = ["--silent", "--show-error", "--fail-with-body", "--aws-sigv4", "aws:amz:us-east-1:s3",
              "--user", f"{node.access_key}:{node.secret_key}", "--header", "x-amz-content-sha256: UNSIGNED-PAYLOAD"]  # fmt: skip
    program = debian("curl")
    body = tmp_path / "body"
    body.write_bytes(b"by curl")
    run(program, *signed, "--request", "PUT", f"{node.endpoint}/by-curl")
    run(
        program,
        *signed,
        "--upload-file",
        str(body),
        f"{node.endpoint}/by-curl/key",
    )
    assert run(program, *signed, f"{node.endpoint}/by-curl/key") == "by curl"
    assert "<Key>key</Key>" in run(program, *signed, f"{node.endpoint}/by-curl?list-type=2")
    run(program, *signed, "--request", "DELETE", f"{node.endpoint}/by-curl/key")
    run(program, *signed, "--request", "DELETE", f"{node.endpoint}/by-curl")
