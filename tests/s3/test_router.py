"""Routing: AWS's own list of operations, every sub-resource on its own, keys as they are."""

import gzip
import json
from pathlib import Path
from typing import Any

import botocore
import pytest
from hypothesis import given, strategies as st

from s3.errors import S3Error
from s3.messages import Headers, RequestHead
from s3.ops import HANDLERS
from s3.router import Route, route

PLAIN = {
    "ListBuckets", "ListObjects", "CreateBucket", "HeadBucket", "DeleteBucket", "GetObject", "PutObject", "HeadObject",
    "DeleteObject",
}  # fmt: skip


def route_of(
    method: str,
    path: str,
    query: str = "",
    *headers: tuple[bytes, bytes],
    domains: tuple[str, ...] = (),
) -> Route:
    head = RequestHead(
        method=method, path=path.encode(), query=query.encode(), headers=Headers(headers), remote=""
    )
    return route(head, domains)


def aws_model() -> dict[str, Any]:
    folder = Path(botocore.__file__).parent / "data/s3/2006-03-01"
    zipped = folder / "service-2.json.gz"
    if zipped.exists():
        return json.loads(gzip.decompress(zipped.read_bytes()))
    return json.loads((folder / "service-2.json").read_text())


MODEL = aws_model()


@pytest.mark.parametrize("name", sorted(MODEL["operations"]))
def test_no_operation_of_aws_is_taken_for_a_plain_one(name: str) -> None:
    operation = MODEL["operations"][name]
    path, _, query = operation["http"]["requestUri"].partition("?")
    path = path.replace("{Bucket}", "bkt").replace("{Key+}", "k")
    shape = MODEL["shapes"].get(operation.get("input", {}).get("shape"), {})
    headers = []
    for required in shape.get("required", []):
        member = shape["members"][required]
        if member.get("location") == "querystring":
            query += f"&{member['locationName']}=1"
        if required == "CopySource":
            headers.append((b"x-amz-copy-source", b"bkt/k"))
    query += f"&x-id={name}"
    found = route_of(operation["http"]["method"], path, query, *headers).operation
    assert found in HANDLERS
    if name in HANDLERS:
        assert found == name
    elif name != "ListDirectoryBuckets":
        assert found not in PLAIN


@pytest.mark.parametrize(
    ("method", "path", "query", "operation"),
    [
        ("GET", "/", "", "ListBuckets"),
        ("GET", "/", "x-id=ListBuckets", "ListBuckets"),
        ("GET", "/bkt", "", "ListObjects"),
        ("GET", "/bkt/", "list-type=2&prefix=", "ListObjectsV2"),
        ("GET", "/bkt", "list-type=1", "ListObjects"),
        ("PUT", "/bkt", "inventory", "NotImplemented"),
        ("PUT", "/bkt", "inventory=", "NotImplemented"),
        ("PUT", "/bkt", "tagging", "NotImplemented"),
        ("PUT", "/bkt", "versioning", "PutBucketVersioning"),
        ("POST", "/bkt", "versioning", "NotImplemented"),
        ("PUT", "/bkt", "something-new", "NotImplemented"),
        ("DELETE", "/bkt", "cors", "NotImplemented"),
        ("DELETE", "/bkt", "uploadId=1", "NotImplemented"),
        ("DELETE", "/bkt/", "tagging", "NotImplemented"),
        ("POST", "/bkt", "", "NotImplemented"),
        ("POST", "/bkt", "delete=", "DeleteObjects"),
        ("PUT", "/bkt/k", "acl", "NotImplemented"),
        ("PUT", "/bkt/k", "partNumber=1", "NotImplemented"),
        ("PUT", "/bkt/k", "partNumber=1&uploadId=x", "UploadPart"),
        ("PUT", "/bkt/k", "x-id=PutObject", "PutObject"),
        ("PUT", "/bkt/k", "X-Amz-Security-Token=", "PutObject"),
        ("PUT", "/bkt/k", "legal-hold", "NotImplemented"),
        ("DELETE", "/bkt/k", "versionId=null", "DeleteObject"),
        ("DELETE", "/bkt/k", "tagging", "NotImplemented"),
        ("DELETE", "/bkt/k", "policy", "NotImplemented"),
        ("DELETE", "/bkt/k", "uploadId=x", "AbortMultipartUpload"),
        ("GET", "/bkt/k", "uploadId=x", "ListParts"),
        ("GET", "/bkt/k", "torrent", "NotImplemented"),
        ("POST", "/bkt/k", "uploads", "CreateMultipartUpload"),
        ("POST", "/bkt/k", "select&select-type=2", "NotImplemented"),
        ("POST", "/bkt/k", "restore", "NotImplemented"),
        ("HEAD", "/bkt/k", "partNumber=2", "HeadObject"),
        ("HEAD", "/bkt", "", "HeadBucket"),
    ],
)
def test_the_operation_of_a_request(method: str, path: str, query: str, operation: str) -> None:
    assert route_of(method, path, query).operation == operation


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("PUT", "/", b"GET"), ("PATCH", "/bkt", b"GET, PUT, HEAD, DELETE"), ("OPTIONS", "/bkt/k", b"GET, PUT, HEAD, DELETE")],
)  # fmt: skip
def test_a_method_that_is_none(method: str, path: str, allowed: bytes) -> None:
    with pytest.raises(S3Error) as caught:
        route_of(method, path)
    assert caught.value.status == 405
    assert caught.value.headers == ((b"Allow", allowed),)


@pytest.mark.parametrize(
    ("path", "bucket", "key"),
    [
        ("/bkt", "bkt", None),
        ("/bkt/", "bkt", None),
        ("/bkt/k", "bkt", b"k"),
        ("/bkt/a/", "bkt", b"a/"),
        ("/bkt//a//b", "bkt", b"/a//b"),
        ("/bkt/../x/./y", "bkt", b"../x/./y"),
        ("/bkt/a+b%20c%2Fd%00", "bkt", b"a+b c/d\0"),
        ("/bkt/%2525", "bkt", b"%25"),
        ("/bkt/%E2%82%AC", "bkt", "€".encode()),
    ],
)
def test_a_path_is_decoded_once(path: str, bucket: str, key: bytes | None) -> None:
    found = route_of("GET", path)
    assert (found.bucket, found.key) == (bucket, key)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize("path", ["//", "//bkt", "//bkt/k"])
def test_a_bucket_without_a_name_is_no_list_of_buckets(method: str, path: str) -> None:
    with pytest.raises(S3Error) as caught:
        route_of(method, path)
    assert caught.value.code == "InvalidBucketName"


def test_keys_have_limits() -> None:
    assert route_of("GET", "/bkt/" + "k" * 1024).key == b"k" * 1024
    for path, code in (("/bkt/" + "k" * 1025, "KeyTooLongError"), ("/bkt/%ff", "InvalidURI")):
        with pytest.raises(S3Error) as caught:
            route_of("GET", path)
        assert caught.value.code == code


@pytest.mark.parametrize(
    ("host", "path", "bucket", "key"),
    [
        (b"bkt.s3.example.com", "/a/b", "bkt", b"a/b"),
        (b"BKT.S3.Example.com:9000", "/", "bkt", None),
        (b"my.dotted.bkt.s3.example.com", "/k", "my.dotted.bkt", b"k"),
        (b"s3.example.com", "/bkt/k", "bkt", b"k"),
        (b"10.0.0.1:9000", "/bkt/k", "bkt", b"k"),
        (b"elsewhere.com", "/bkt/k", "bkt", b"k"),
    ],
)
def test_a_bucket_in_the_host(host: bytes, path: str, bucket: str, key: bytes | None) -> None:
    found = route_of("GET", path, "", (b"host", host), domains=("s3.example.com",))
    assert (found.bucket, found.key) == (bucket, key)


@given(
    st.sampled_from(["GET", "PUT", "HEAD", "DELETE", "POST", "PATCH"]),
    st.binary(max_size=80),
    st.binary(max_size=80),
    st.binary(max_size=40),
)
def test_any_request_has_an_operation_or_an_error(
    method: str, path: bytes, query: bytes, host: bytes
) -> None:
    head = RequestHead(
        method=method, path=b"/" + path, query=query, headers=Headers([(b"host", host)]), remote=""
    )
    try:
        found = route(head, ("s3.example.com",))
    except S3Error:
        return
    assert found.operation in HANDLERS
    assert found.key != b""
