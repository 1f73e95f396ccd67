"""Buckets: their life, their names, and what is truthfully not configured."""

import pytest

from tests.s3.client import Client


@pytest.fixture
async def client() -> Client:
    client = Client()
    await client("PUT", "/bkt")
    return client


async def test_the_life_of_a_bucket(client: Client) -> None:
    made = await client("PUT", "/new-bucket")
    assert (made.status, made.headers["location"]) == (200, "/new-bucket")
    assert (await client.refused("PUT", "/new-bucket")).code == "BucketAlreadyOwnedByYou"
    assert (await client("GET", "/")).texts("Buckets/Bucket/Name") == ["bkt", "new-bucket"]
    head = await client("HEAD", "/new-bucket")
    assert (head.status, head.headers["x-amz-bucket-region"]) == (200, "us-east-1")
    await client("PUT", "/new-bucket/k", body=b"x")
    assert (await client.refused("DELETE", "/new-bucket")).code == "BucketNotEmpty"
    await client("DELETE", "/new-bucket/k")
    await client("POST", "/new-bucket/k", "uploads")
    assert (await client("DELETE", "/new-bucket")).status == 204
    assert (await client.refused("HEAD", "/new-bucket")).status == 404
    assert (await client.refused("DELETE", "/new-bucket")).code == "NoSuchBucket"


async def test_another_owner(client: Client) -> None:
    await client.objects.create_bucket("theirs", "somebody", b"")
    assert (await client.refused("PUT", "/theirs")).code == "BucketAlreadyExists"
    assert (await client("GET", "/")).texts("Buckets/Bucket/Name") == ["bkt"]
    headers = {"x-amz-expected-bucket-owner": "root"}
    assert (await client("HEAD", "/bkt", headers=headers)).status == 200
    assert (await client.refused("HEAD", "/theirs", headers=headers)).code == "AccessDenied"
    assert (await client.refused("DELETE", "/theirs", headers=headers)).code == "AccessDenied"


async def test_buckets_are_listed_by_page(client: Client) -> None:
    for name in ("aaa", "ab1", "ab2", "zzz"):
        await client("PUT", f"/{name}")
    page = await client("GET", "/", "max-buckets=2")
    assert page.texts("Buckets/Bucket/Name") == ["aaa", "ab1"]
    token = page.text("ContinuationToken")
    page = await client("GET", "/", f"max-buckets=3&continuation-token={token}")
    assert page.texts("Buckets/Bucket/Name") == ["ab2", "bkt", "zzz"]
    assert page.text("ContinuationToken") is None
    assert (await client("GET", "/", "prefix=ab")).texts("Buckets/Bucket/Name") == ["ab1", "ab2"]
    assert (await client("GET", "/", "bucket-region=mars-1")).texts("Buckets/Bucket/Name") == []
    assert (await client.refused("GET", "/", "max-buckets=0")).code == "InvalidArgument"


@pytest.mark.parametrize(
    "name", ["ab", "Upper", "under_score", "-dash", "dash-", "1.2.3.4", "a..b", "x" * 64, "%C3%BC"]
)
async def test_names_that_are_refused(client: Client, name: str) -> None:
    assert (await client.refused("PUT", f"/{name}")).code == "InvalidBucketName"
    for method in ("HEAD", "DELETE", "GET"):
        assert (await client.refused(method, f"/{name}")).code == "NoSuchBucket"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"<CreateBucketConfiguration/>", None),
        (b"<CreateBucketConfiguration><LocationConstraint>eu-west-1</LocationConstraint></CreateBucketConfiguration>", None),
        (b"<CreateBucketConfiguration><LocationConstraint>mars</LocationConstraint></CreateBucketConfiguration>",
         "InvalidLocationConstraint"),
        (b"<CreateBucketConfiguration><Tags/></CreateBucketConfiguration>", "NotImplemented"),
        (b"<Other/>", "MalformedXML"),
        (b"<Crea", "MalformedXML"),
    ],
)  # fmt: skip
async def test_the_configuration_of_a_new_bucket(body: bytes, code: str | None) -> None:
    client = Client(region="eu-west-1")
    if code is None:
        assert (await client("PUT", "/bkt", body=body)).status == 200
        assert (await client("GET", "/bkt", "location")).xml.text == "eu-west-1"
    else:
        assert (await client.refused("PUT", "/bkt", body=body)).code == code
        assert (await client.refused("HEAD", "/bkt")).status == 404


@pytest.mark.parametrize(
    ("header", "value", "code"),
    [
        ("x-amz-bucket-object-lock-enabled", "true", "NotImplemented"),
        ("x-amz-bucket-object-lock-enabled", "false", None),
        ("x-amz-object-ownership", "BucketOwnerEnforced", None),
        ("x-amz-object-ownership", "ObjectWriter", "NotImplemented"),
        ("x-amz-object-ownership", "nobody", "InvalidArgument"),
        ("x-amz-acl", "private", None),
        ("x-amz-acl", "public-read", "AccessControlListNotSupported"),
        ("x-amz-grant-read", "id=x", "AccessControlListNotSupported"),
    ],
)
async def test_headers_of_a_new_bucket(
    client: Client, header: str, value: str, code: str | None
) -> None:
    if code is None:
        assert (await client("PUT", "/new", headers={header: value})).status == 200
    else:
        assert (await client.refused("PUT", "/new", headers={header: value})).code == code
        assert (await client.refused("HEAD", "/new")).status == 404


async def test_the_location_is_empty_in_the_first_region(client: Client) -> None:
    assert (await client("GET", "/bkt", "location")).xml.text is None


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("tagging", "NoSuchTagSet"),
        ("policy", "NoSuchBucketPolicy"),
        ("policyStatus", "NoSuchBucketPolicy"),
        ("cors", "NoSuchCORSConfiguration"),
        ("lifecycle", "NoSuchLifecycleConfiguration"),
        ("encryption", "ServerSideEncryptionConfigurationNotFoundError"),
        ("object-lock", "ObjectLockConfigurationNotFoundError"),
        ("ownershipControls", "OwnershipControlsNotFoundError"),
        ("publicAccessBlock", "NoSuchPublicAccessBlockConfiguration"),
        ("replication", "ReplicationConfigurationNotFoundError"),
        ("website", "NoSuchWebsiteConfiguration"),
        ("inventory&id=x", "NoSuchConfiguration"),
    ],
)
async def test_what_is_not_configured(client: Client, query: str, code: str) -> None:
    error = await client.refused("GET", "/bkt", query)
    assert (error.code, error.status) == (code, 404)
    assert (await client.refused("GET", "/nosuch", query)).code == "NoSuchBucket"


@pytest.mark.parametrize(
    ("query", "root"),
    [
        ("versioning", "VersioningConfiguration"),
        ("accelerate", "AccelerateConfiguration"),
        ("logging", "BucketLoggingStatus"),
        ("notification", "NotificationConfiguration"),
    ],
)
async def test_what_is_empty(client: Client, query: str, root: str) -> None:
    answer = await client("GET", "/bkt", query)
    assert answer.xml.tag == root
    assert list(answer.xml) == []
    assert (await client.refused("GET", "/nosuch", query)).code == "NoSuchBucket"


async def test_the_owner_pays_and_controls(client: Client) -> None:
    assert (await client("GET", "/bkt", "requestPayment")).text("Payer") == "BucketOwner"
    await client("PUT", "/bkt/k", body=b"x")
    for path in ("/bkt", "/bkt/k"):
        answer = await client("GET", path, "acl")
        assert answer.texts("AccessControlList/Grant/Permission") == ["FULL_CONTROL"]
        assert answer.texts("AccessControlList/Grant/Grantee/ID") == ["root"]
    assert (await client.refused("GET", "/bkt/missing", "acl")).code == "NoSuchKey"
