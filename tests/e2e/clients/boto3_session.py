"""A day with boto3: run by tests/e2e/test_clients.py in an environment of its own. ENDPOINT ACCESS SECRET CHECKSUMS."""

import hashlib
import io
import os
import sys
import urllib.request

import boto3
import botocore.exceptions
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

endpoint, access, secret, checksums = sys.argv[1:5]
client = boto3.client(
    "s3",
    endpoint_url=endpoint,
    aws_access_key_id=access,
    aws_secret_access_key=secret,
    region_name="us-east-1",
    config=Config(
        signature_version="s3v4",
        s3={"addressing_style": "path"},
        request_checksum_calculation=checksums,
        response_checksum_validation=checksums,
        retries={"max_attempts": 1},
    ),
)
BUCKET = f"boto3-{checksums.replace('_', '-')}"


def code_of(call, **arguments):
    try:
        call(**arguments)
    except botocore.exceptions.ClientError as error:
        return error.response["Error"]["Code"]
    raise AssertionError(f"{call.__name__} should have been refused")


def buckets():
    client.create_bucket(Bucket=BUCKET)
    client.head_bucket(Bucket=BUCKET)
    assert BUCKET in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]
    assert client.get_bucket_location(Bucket=BUCKET)["LocationConstraint"] in (None, "")
    assert code_of(client.head_bucket, Bucket="no-such-bucket-here") == "404"
    assert code_of(client.get_bucket_policy, Bucket=BUCKET) == "NoSuchBucketPolicy"


def objects():
    for size in (0, 1, 4095, 4096, 4097, 65536, 262144, 262145, 1 << 20, (9 << 20) + 17):
        body = os.urandom(size)
        put = client.put_object(
            Bucket=BUCKET,
            Key=f"sizes/{size}",
            Body=body,
            Metadata={"size": str(size)},
            ContentType="x/y",
        )
        assert put["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
        got = client.get_object(Bucket=BUCKET, Key=f"sizes/{size}")
        assert got["Body"].read() == body
        assert got["ContentType"] == "x/y"
        assert got["Metadata"] == {"size": str(size)}
        head = client.head_object(Bucket=BUCKET, Key=f"sizes/{size}")
        assert head["ContentLength"] == size
        assert head["ETag"] == put["ETag"]
        if size > 2:
            part = client.get_object(
                Bucket=BUCKET, Key=f"sizes/{size}", Range=f"bytes=1-{size - 2}"
            )
            assert part["Body"].read() == body[1:-1]
            tail = client.get_object(Bucket=BUCKET, Key=f"sizes/{size}", Range="bytes=-1")
            assert tail["Body"].read() == body[-1:]
    assert code_of(client.get_object, Bucket=BUCKET, Key="missing") == "NoSuchKey"
    assert (
        code_of(client.get_object, Bucket=BUCKET, Key="sizes/1", Range="bytes=5-6")
        == "InvalidRange"
    )
    client.delete_object(Bucket=BUCKET, Key="missing")


def odd_keys():
    keys = [
        "a b",
        "plus+and%25",
        "ünï/ço∂é",
        "..",
        "a//b",
        "/leading",
        "q?x=y&z",
        "tab\tkey",
        "k",
        "k/",
        "k/x",
    ]
    for key in keys:
        client.put_object(Bucket=BUCKET, Key=f"odd/{key}", Body=key.encode())
    for key in keys:
        assert client.get_object(Bucket=BUCKET, Key=f"odd/{key}")["Body"].read() == key.encode()
    listed = [
        item["Key"] for item in client.list_objects_v2(Bucket=BUCKET, Prefix="odd/")["Contents"]
    ]
    assert listed == sorted((f"odd/{key}" for key in keys), key=str.encode)


def conditions():
    client.put_object(Bucket=BUCKET, Key="once", Body=b"1", IfNoneMatch="*")
    assert (
        code_of(client.put_object, Bucket=BUCKET, Key="once", Body=b"2", IfNoneMatch="*")
        == "PreconditionFailed"
    )
    etag = client.head_object(Bucket=BUCKET, Key="once")["ETag"]
    client.put_object(Bucket=BUCKET, Key="once", Body=b"3", IfMatch=etag)
    assert (
        code_of(client.put_object, Bucket=BUCKET, Key="once", Body=b"4", IfMatch=etag)
        == "PreconditionFailed"
    )
    assert client.get_object(Bucket=BUCKET, Key="once")["Body"].read() == b"3"
    assert (
        code_of(client.get_object, Bucket=BUCKET, Key="once", IfMatch=etag) == "PreconditionFailed"
    )


def listings():
    client.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "never there"}]})
    for i in range(30):
        client.put_object(Bucket=BUCKET, Key=f"list/{i % 3}/{i:03}", Body=b"x")
    seen = []
    for page in client.get_paginator("list_objects_v2").paginate(
        Bucket=BUCKET, Prefix="list/", PaginationConfig={"PageSize": 7}
    ):
        assert page["KeyCount"] <= 7
        seen += [item["Key"] for item in page.get("Contents", [])]
    assert seen == sorted(f"list/{i % 3}/{i:03}" for i in range(30))
    rolled = client.list_objects_v2(Bucket=BUCKET, Prefix="list/", Delimiter="/")
    assert [p["Prefix"] for p in rolled["CommonPrefixes"]] == ["list/0/", "list/1/", "list/2/"]
    assert "Contents" not in rolled
    old = client.list_objects(Bucket=BUCKET, Prefix="list/", Delimiter="/", MaxKeys=2)
    assert old["IsTruncated"]
    assert old["NextMarker"] == "list/1/"
    versions = client.list_object_versions(Bucket=BUCKET, Prefix="list/")["Versions"]
    assert all(item["VersionId"] == "null" and item["IsLatest"] for item in versions)
    assert len(versions) == 30


def copies():
    client.copy_object(
        Bucket=BUCKET, Key="copy", CopySource={"Bucket": BUCKET, "Key": "sizes/262145"}
    )
    same = client.get_object(Bucket=BUCKET, Key="sizes/262145")["Body"].read()
    got = client.get_object(Bucket=BUCKET, Key="copy")
    assert got["Body"].read() == same
    assert got["Metadata"] == {"size": "262145"}
    client.copy_object(
        Bucket=BUCKET,
        Key="copy",
        CopySource={"Bucket": BUCKET, "Key": "copy"},
        MetadataDirective="REPLACE",
        Metadata={"new": "yes"},
    )
    assert client.head_object(Bucket=BUCKET, Key="copy")["Metadata"] == {"new": "yes"}


def multipart():
    body = os.urandom((11 << 20) + 5)
    config = TransferConfig(
        multipart_threshold=5 << 20, multipart_chunksize=5 << 20, max_concurrency=3
    )
    client.upload_fileobj(io.BytesIO(body), BUCKET, "multi", Config=config)
    head = client.head_object(Bucket=BUCKET, Key="multi")
    assert head["ETag"].endswith('-3"')
    sink = io.BytesIO()
    client.download_fileobj(BUCKET, "multi", sink, Config=config)
    assert sink.getvalue() == body
    second = client.get_object(Bucket=BUCKET, Key="multi", PartNumber=2)
    assert second["PartsCount"] == 3
    assert second["Body"].read() == body[5 << 20 : 10 << 20]
    upload = client.create_multipart_upload(Bucket=BUCKET, Key="half")["UploadId"]
    client.upload_part(Bucket=BUCKET, Key="half", UploadId=upload, PartNumber=1, Body=b"small")
    client.upload_part_copy(
        Bucket=BUCKET,
        Key="half",
        UploadId=upload,
        PartNumber=2,
        CopySource={"Bucket": BUCKET, "Key": "multi"},
        CopySourceRange="bytes=0-9",
    )
    parts = client.list_parts(Bucket=BUCKET, Key="half", UploadId=upload)["Parts"]
    assert [(part["PartNumber"], part["Size"]) for part in parts] == [(1, 5), (2, 10)]
    assert [u["Key"] for u in client.list_multipart_uploads(Bucket=BUCKET)["Uploads"]] == ["half"]
    listed = {"Parts": [{"PartNumber": p["PartNumber"], "ETag": p["ETag"]} for p in parts]}
    assert (
        code_of(
            client.complete_multipart_upload,
            Bucket=BUCKET,
            Key="half",
            UploadId=upload,
            MultipartUpload=listed,
        )
        == "EntityTooSmall"
    )
    client.abort_multipart_upload(Bucket=BUCKET, Key="half", UploadId=upload)
    assert code_of(client.list_parts, Bucket=BUCKET, Key="half", UploadId=upload) == "NoSuchUpload"


def checksummed():
    for algorithm in ("CRC32", "CRC32C", "SHA1", "SHA256", "CRC64NVME"):
        put = client.put_object(
            Bucket=BUCKET, Key=f"sum/{algorithm}", Body=b"hello", ChecksumAlgorithm=algorithm
        )
        head = client.head_object(Bucket=BUCKET, Key=f"sum/{algorithm}", ChecksumMode="ENABLED")
        assert head[f"Checksum{algorithm}"] == put[f"Checksum{algorithm}"]
        got = client.get_object(Bucket=BUCKET, Key=f"sum/{algorithm}", ChecksumMode="ENABLED")
        assert got["Body"].read() == b"hello"
    assert (
        code_of(
            client.put_object,
            Bucket=BUCKET,
            Key="sum/bad",
            Body=b"hello",
            ChecksumSHA256="A" * 43 + "=",
        )
        == "BadDigest"
    )
    assert code_of(client.head_object, Bucket=BUCKET, Key="sum/bad") == "404"


def presigned():
    url = client.generate_presigned_url(
        "put_object", Params={"Bucket": BUCKET, "Key": "signed"}, ExpiresIn=60
    )
    urllib.request.urlopen(urllib.request.Request(url, data=b"by link", method="PUT")).close()
    url = client.generate_presigned_url(
        "get_object", Params={"Bucket": BUCKET, "Key": "signed"}, ExpiresIn=60
    )
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == b"by link"


def versions():
    bucket = f"{BUCKET}-versions"
    client.create_bucket(Bucket=bucket)
    assert "Status" not in client.get_bucket_versioning(Bucket=bucket)
    before = client.put_object(Bucket=bucket, Key="key", Body=b"before")
    assert "VersionId" not in before
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    assert client.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    bodies = [b"one", os.urandom(300_000), os.urandom(9 << 20)]
    ids = [client.put_object(Bucket=bucket, Key="key", Body=b)["VersionId"] for b in bodies[:2]]
    client.upload_fileobj(io.BytesIO(bodies[2]), bucket, "key")  # in parts
    ids.append(client.head_object(Bucket=bucket, Key="key")["VersionId"])

    for name, body in [("null", b"before"), *zip(ids, bodies, strict=True)]:
        got = client.get_object(Bucket=bucket, Key="key", VersionId=name)
        assert (got["Body"].read(), got["VersionId"]) == (body, name)
    deleted = client.delete_object(Bucket=bucket, Key="key")
    assert deleted["DeleteMarker"] is True
    marker = deleted["VersionId"]
    assert code_of(client.get_object, Bucket=bucket, Key="key") == "NoSuchKey"
    assert code_of(client.get_object, Bucket=bucket, Key="key", VersionId=marker) == (
        "MethodNotAllowed"
    )
    assert code_of(client.get_object, Bucket=bucket, Key="key", VersionId="0" * 32) == (
        "NoSuchVersion"
    )
    assert client.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    assert listed(bucket) == [marker, *ids[::-1], "null"]

    # The object comes back by deleting the marker, and an older version by copying it onto its key.
    undone = client.delete_object(Bucket=bucket, Key="key", VersionId=marker)
    assert (undone["DeleteMarker"], undone["VersionId"]) == (True, marker)
    source = {"Bucket": bucket, "Key": "key", "VersionId": ids[0]}
    copied = client.copy_object(Bucket=bucket, Key="key", CopySource=source)
    assert copied["CopySourceVersionId"] == ids[0]
    assert client.get_object(Bucket=bucket, Key="key")["Body"].read() == b"one"
    client.delete_object(Bucket=bucket, Key="key", VersionId=copied["VersionId"])
    assert client.get_object(Bucket=bucket, Key="key")["Body"].read() == bodies[2]

    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    assert client.put_object(Bucket=bucket, Key="key", Body=b"after")["VersionId"] == "null"
    assert listed(bucket) == ["null", *ids[::-1]]
    assert client.delete_object(Bucket=bucket, Key="key")["VersionId"] == "null"
    assert code_of(client.delete_bucket, Bucket=bucket) == "BucketNotEmpty"
    found = [{"Key": "key", "VersionId": name} for name in listed(bucket)]
    done = client.delete_objects(Bucket=bucket, Delete={"Objects": found})
    assert not done.get("Errors")
    assert [row.get("DeleteMarker", False) for row in done["Deleted"]] == [True, *[False] * 3]
    assert listed(bucket) == []
    client.delete_bucket(Bucket=bucket)


def listed(bucket):
    """Version ids of the only key, newest first, over pages of two."""
    pages = client.get_paginator("list_object_versions").paginate(
        Bucket=bucket, PaginationConfig={"PageSize": 2}
    )
    rows = [
        (row["LastModified"], row["IsLatest"], row["VersionId"])
        for page in pages
        for row in [*page.get("DeleteMarkers", []), *page.get("Versions", [])]
    ]
    assert [row[1] for row in rows[:1]] == [True][: len(rows)]
    assert not any(row[1] for row in rows[1:])
    return [row[2] for row in rows]


def clean_up():
    assert code_of(client.delete_bucket, Bucket=BUCKET) == "BucketNotEmpty"
    while True:
        page = client.list_object_versions(Bucket=BUCKET, MaxKeys=20)
        found = [
            {"Key": item["Key"], "VersionId": item["VersionId"]}
            for item in page.get("Versions", [])
        ]
        if not found:
            break
        assert not client.delete_objects(Bucket=BUCKET, Delete={"Objects": found}).get("Errors")
    client.delete_bucket(Bucket=BUCKET)
    assert code_of(client.head_bucket, Bucket=BUCKET) == "404"


for story in (
    buckets,
    objects,
    odd_keys,
    conditions,
    listings,
    copies,
    multipart,
    checksummed,
    presigned,
    versions,
    clean_up,
):
    story()
    print(story.__name__, "ok", flush=True)
