"""What changes between an operation's look-up and its use of it: the client sees the right answer, once it is looked up anew."""

from collections.abc import Awaitable, Callable

import attrs
import pytest

from cluster.errors import ExistsError, NotEmptyError
from cluster.objects.model import Bucket
from s3.errors import S3Error
from tests.s3.client import Answer, Client, etag, md5_header
from tests.s3.fake_objects import FakeObject, FakeObjects
from tests.s3.ops.test_multipart import begin, listing

LARGE = bytes(300_000)  # more than is kept of a body
DELETE = b"<Delete><Object><Key>k</Key></Object><Object><Key>l</Key></Object></Delete>"
Event = Callable[[], Awaitable[object]]


@attrs.define
class Interfering(FakeObjects):
    """An Objects in which something happens right after a look-up, before its answer is used."""

    after_bucket: list[Event] = attrs.field(factory=list)
    after_object: list[Event] = attrs.field(factory=list)

    async def get_bucket(self, name: str) -> Bucket:
        found = await FakeObjects.get_bucket(self, name)
        if self.after_bucket:
            await self.after_bucket.pop()()
        return found

    async def get(self, bucket: Bucket, key: bytes) -> FakeObject:
        found = await FakeObjects.get(self, bucket, key)
        if self.after_object:
            await self.after_object.pop()()
        return found

    async def create_bucket(self, name: str, owner: str, attributes: bytes) -> Bucket:
        try:
            return await FakeObjects.create_bucket(self, name, owner, attributes)
        except ExistsError:
            if self.after_bucket:
                await self.after_bucket.pop()()
            raise

    async def refuse_to_delete(self) -> None:
        with pytest.raises(NotEmptyError):
            await self.delete_bucket(self.buckets["bkt"])


@pytest.fixture
async def objects() -> Interfering:
    return Interfering()


@pytest.fixture
async def client(objects: Interfering) -> Client:
    client = Client(objects)
    await client("PUT", "/bkt")
    await client("PUT", "/bkt/k", body=b"old")
    return client


async def expect_retried(client: Client, *args: str, **kwargs: object) -> Answer:
    objects = client.objects
    assert isinstance(objects, Interfering)
    objects.after_bucket.append(objects.refuse_to_delete)
    before = objects.buckets["bkt"].epoch
    answer = await client(*args, **kwargs)  # type: ignore[arg-type]
    assert objects.buckets["bkt"].epoch == before + 1
    return answer


async def test_reads_survive_a_refused_bucket_delete(client: Client) -> None:
    assert (await expect_retried(client, "GET", "/bkt/k")).body == b"old"
    assert (await expect_retried(client, "HEAD", "/bkt/k")).length == 3
    assert (await expect_retried(client, "GET", "/bkt")).texts("Contents/Key") == ["k"]
    assert (await expect_retried(client, "GET", "/bkt", "uploads")).texts("Upload/Key") == []


async def test_writes_survive_a_refused_bucket_delete(client: Client) -> None:
    for headers in ({}, {"If-None-Match": "*"}):
        await expect_retried(client, "PUT", "/bkt/l", body=b"new", headers=headers)
        assert (await client("GET", "/bkt/l")).body == b"new"
        await expect_retried(client, "DELETE", "/bkt/l")
        assert (await client.refused("GET", "/bkt/l")).code == "NoSuchKey"
    await expect_retried(client, "PUT", "/bkt/l", headers={"x-amz-copy-source": "bkt/k"})
    assert (await client("GET", "/bkt/l")).body == b"old"


async def test_uploads_survive_a_refused_bucket_delete(client: Client) -> None:
    await expect_retried(client, "POST", "/bkt/m", "uploads")
    upload = await begin(client)
    await expect_retried(client, "PUT", "/bkt/k", f"partNumber=1&uploadId={upload}", body=b"new")
    body = listing((1, etag(b"new")))
    await expect_retried(client, "POST", "/bkt/k", f"uploadId={upload}", body=body)
    assert (await client("GET", "/bkt/k")).body == b"new"


async def test_deleting_many_survives_a_refused_bucket_delete(client: Client) -> None:
    answer = await expect_retried(
        client, "POST", "/bkt", "delete", body=DELETE, headers=md5_header(DELETE)
    )
    assert answer.texts("Deleted/Key") == ["k", "l"]
    assert client.objects.buckets["bkt"]
    assert (await client("GET", "/bkt")).texts("Contents/Key") == []


async def test_a_body_that_is_gone_is_asked_for_again(client: Client) -> None:
    error = await refused_retry(client, "PUT", "/bkt/l", body=LARGE)
    assert (error.code, error.status) == ("ServiceUnavailable", 503)
    assert (b"Retry-After", b"1") in error.headers
    assert (await client.refused("GET", "/bkt/l")).code == "NoSuchKey"


async def refused_retry(client: Client, *args: str, **kwargs: object) -> S3Error:
    try:
        await expect_retried(client, *args, **kwargs)
    except S3Error as error:
        return error
    raise AssertionError("answered")


@pytest.mark.parametrize("body", [b"new", LARGE])
async def test_a_bucket_that_is_gone_is_gone(
    client: Client, objects: Interfering, body: bytes
) -> None:
    async def delete() -> None:
        del objects.buckets["bkt"]

    objects.after_bucket.append(delete)
    error = await client.refused("PUT", "/bkt/l", body=body)
    assert (error.code, error.fields) == ("NoSuchBucket", {"BucketName": "bkt"})


async def test_a_bucket_that_goes_while_it_is_found_to_exist_is_created(
    client: Client, objects: Interfering
) -> None:
    async def delete() -> None:
        del objects.buckets["bkt"]

    objects.after_bucket.append(delete)
    assert (await client("PUT", "/bkt")).status == 200
    assert objects.buckets["bkt"]


async def test_it_is_looked_up_once_more_and_not_for_ever(
    client: Client, objects: Interfering
) -> None:
    objects.after_bucket += [objects.refuse_to_delete] * 2
    assert (await client.refused("GET", "/bkt/k")).code == "ServiceUnavailable"
    assert objects.after_bucket == []


async def test_an_object_that_was_replaced_is_read_anew(
    client: Client, objects: Interfering
) -> None:
    async def replace() -> None:
        await client("PUT", "/bkt/k", body=LARGE)
        objects.collect()

    objects.after_object.append(replace)
    got = await client("GET", "/bkt/k")
    assert (got.body, got.headers["etag"]) == (LARGE, etag(LARGE))
    objects.after_object.append(replace)
    got = await client("GET", "/bkt/k", headers={"Range": "bytes=1-2"})
    assert (got.status, got.headers["content-range"]) == (206, "bytes 1-2/300000")
    objects.after_object.append(replace)
    await client("PUT", "/bkt/copy", headers={"x-amz-copy-source": "bkt/k"})
    assert (await client("GET", "/bkt/copy")).body == LARGE
    await client("PUT", "/bkt/k", body=b"old")
    objects.after_object.append(replace)
    error = await client.refused("GET", "/bkt/k", headers={"If-Match": etag(b"old")})
    assert error.code == "PreconditionFailed"
    objects.after_object += [replace] * 2
    assert (await client.refused("GET", "/bkt/k")).code == "ServiceUnavailable"
    assert objects.open_readers == 0


async def test_a_condition_holds_when_the_write_takes_effect(
    client: Client, objects: Interfering
) -> None:
    async def replace() -> None:
        await client("PUT", "/bkt/k", body=b"another's")

    objects.after_object.append(replace)  # the condition is looked at before the body is read
    error = await client.refused("PUT", "/bkt/k", body=b"new", headers={"If-Match": etag(b"old")})
    assert (error.code, objects.after_object) == ("PreconditionFailed", [])
    assert (await client("GET", "/bkt/k")).body == b"another's"


async def test_an_object_that_was_deleted_is_gone(client: Client, objects: Interfering) -> None:
    async def delete() -> None:
        await client("DELETE", "/bkt/k")
        objects.collect()

    objects.after_object.append(delete)
    assert (await client.refused("GET", "/bkt/k")).code == "NoSuchKey"
