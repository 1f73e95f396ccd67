"""Every route asks for its actions, and is refused before storage is reached where one of them is missing."""

import json

import pytest

from cluster.errors import UnavailableError
from s3 import router
from s3.messages import Response
from s3.ops import HANDLERS
from s3.ops.permissions import NEEDS, all_actions, betrays
from s3.policy import EVERYTHING, NOTHING, grants_of
from s3.request import Credential, Identity
from s3.router import _BUCKET_SUBRESOURCES, _OBJECT_SUBRESOURCES
from tests.s3.client import Client, md5_header
from tests.s3.test_gateway import ACCESS, SECRET, Empty, Untouchable, gateway, request

SOURCE = ((b"x-amz-copy-source", b"/source/some%2Fkey"),)
OLD_SOURCE = ((b"x-amz-copy-source", b"/source/some%2Fkey?versionId=null"),)
# A request, and the permissions that it needs: "Action" is on the key where there is one, else on the bucket.
ROUTES = {
    ("PUT", "/bucket"): ["CreateBucket"],
    ("HEAD", "/bucket"): ["ListBucket"],
    ("DELETE", "/bucket"): ["DeleteBucket"],
    ("GET", "/bucket"): ["ListBucket"],
    ("GET", "/bucket?list-type=2&prefix=a"): ["ListBucket"],
    ("GET", "/bucket?versions"): ["ListBucketVersions"],
    ("GET", "/bucket?uploads"): ["ListBucketMultipartUploads"],
    ("GET", "/bucket?location"): ["GetBucketLocation"],
    ("GET", "/bucket?acl"): ["GetBucketAcl"],
    ("GET", "/bucket?versioning"): ["GetBucketVersioning"],
    ("PUT", "/bucket?versioning"): ["PutBucketVersioning"],
    ("GET", "/bucket?tagging"): ["GetBucketTagging"],
    ("GET", "/bucket?policy"): ["GetBucketPolicy"],
    ("GET", "/bucket?policyStatus"): ["GetBucketPolicy"],
    ("GET", "/bucket?cors"): ["GetBucketCORS"],
    ("GET", "/bucket?lifecycle"): ["GetLifecycleConfiguration"],
    ("GET", "/bucket?encryption"): ["GetEncryptionConfiguration"],
    ("GET", "/bucket?object-lock"): ["GetBucketObjectLockConfiguration"],
    ("GET", "/bucket?ownershipControls"): ["GetBucketOwnershipControls"],
    ("GET", "/bucket?publicAccessBlock"): ["GetBucketPublicAccessBlock"],
    ("GET", "/bucket?replication"): ["GetReplicationConfiguration"],
    ("GET", "/bucket?website"): ["GetBucketWebsite"],
    ("GET", "/bucket?accelerate"): ["GetAccelerateConfiguration"],
    ("GET", "/bucket?requestPayment"): ["GetBucketRequestPayment"],
    ("GET", "/bucket?logging"): ["GetBucketLogging"],
    ("GET", "/bucket?notification"): ["GetBucketNotification"],
    ("GET", "/bucket?inventory"): ["GetInventoryConfiguration"],
    ("GET", "/bucket?analytics"): ["GetAnalyticsConfiguration"],
    ("GET", "/bucket?metrics"): ["GetMetricsConfiguration"],
    ("GET", "/bucket?intelligent-tiering"): ["GetIntelligentTieringConfiguration"],
    ("PUT", "/bucket/some%2Fkey"): ["PutObject"],
    ("GET", "/bucket/some/key"): ["GetObject"],
    ("GET", "/bucket/some/key?versionId=null"): ["GetObjectVersion"],
    ("HEAD", "/bucket/some/key"): ["GetObject"],
    ("HEAD", "/bucket/some/key?versionId=null"): ["GetObjectVersion"],
    ("DELETE", "/bucket/some/key"): ["DeleteObject"],
    ("DELETE", "/bucket/some/key?versionId=null"): ["DeleteObjectVersion"],
    ("GET", "/bucket/some/key?attributes"): ["GetObject", "GetObjectAttributes"],
    ("GET", "/bucket/some/key?attributes&versionId=null"):
        ["GetObjectVersion", "GetObjectVersionAttributes"],
    ("GET", "/bucket/some/key?tagging"): ["GetObjectTagging"],
    ("GET", "/bucket/some/key?tagging&versionId=null"): ["GetObjectVersionTagging"],
    ("GET", "/bucket/some/key?acl"): ["GetObjectAcl"],
    ("GET", "/bucket/some/key?acl&versionId=null"): ["GetObjectVersionAcl"],
    ("POST", "/bucket/some/key?uploads"): ["PutObject"],
    ("PUT", "/bucket/some/key?uploadId=x&partNumber=1"): ["PutObject"],
    ("POST", "/bucket/some/key?uploadId=x"): ["PutObject"],
    ("DELETE", "/bucket/some/key?uploadId=x"): ["AbortMultipartUpload"],
    ("GET", "/bucket/some/key?uploadId=x"): ["ListMultipartUploadParts"],
    ("PUT", "/bucket/some/key", SOURCE): ["PutObject", "source GetObject"],
    ("PUT", "/bucket/some/key", OLD_SOURCE): ["PutObject", "source GetObjectVersion"],
    ("PUT", "/bucket/some/key?uploadId=x&partNumber=1", SOURCE): ["PutObject", "source GetObject"],
}  # fmt: skip
WITHOUT = {"ListBuckets", "DeleteObjects", "NotImplemented"}  # tested below


def statement(effect, action, resource):
    return {"Effect": effect, "Action": f"s3:{action}", "Resource": resource}


def grants(*statements):
    return grants_of((json.dumps({"Version": "2012-10-17", "Statement": list(statements)}),))


def resource(need, target):
    if need.startswith("source "):
        return "arn:aws:s3:::source/some/key"
    is_object = "/some" in target
    return "arn:aws:s3:::bucket/some/key" if is_object else "arn:aws:s3:::bucket"


async def ask(route, identity_grants):
    """The status, and the operations that were reached."""
    reached = []

    async def operation(context, asked):
        reached.append(asked.route.operation)
        return Response(status=200)

    method, target, *more = route
    subject = gateway(Untouchable(), [], dict.fromkeys(HANDLERS, operation), identity_grants)
    answer = await subject.handle(request(method, target, more=more[0] if more else ()), Empty())
    return answer, reached


def test_no_operation_is_without_a_row():
    assert set(NEEDS) == set(HANDLERS)


async def test_the_matrix_has_every_route():
    reached = set()
    for route in ROUTES:
        reached |= set((await ask(route, EVERYTHING))[1])
    assert reached | WITHOUT == set(HANDLERS)
    for table, path in (
        (_BUCKET_SUBRESOURCES, "/bucket?"),
        (_OBJECT_SUBRESOURCES, "/bucket/some/key?"),
    ):
        for name, methods in table.items():
            for method in methods:
                assert (
                    any(r[0] == method and name in r[1].partition("?")[2] for r in ROUTES)
                    or name == "delete"
                ), (method, path + name)  # fmt: skip


@pytest.mark.parametrize(("route", "needs"), ROUTES.items(), ids=str)
async def test_a_route_asks_for_its_actions_and_nothing_else(route, needs):
    statements = [
        statement("Allow", n.removeprefix("source "), resource(n, route[1])) for n in needs
    ]
    assert (await ask(route, grants(*statements)))[0].status == 200
    for missing in range(len(statements)):
        few = statements[:missing] + statements[missing + 1 :]
        other = {**statements[missing], "Resource": statements[missing]["Resource"] + "x"}
        denied = {**statements[missing], "Effect": "Deny"}
        for lacking in ([*few, other], [*statements, denied]):
            answer, reached = await ask(route, grants(*lacking))
            assert (answer.status, reached) == (403, [])
            assert b"<Code>AccessDenied<" in answer.body or route[0] == "HEAD"


@pytest.mark.parametrize("route", [*ROUTES, ("GET", "/")], ids=str)
async def test_without_policies_storage_is_not_reached(route):
    method, target, *more = route
    subject = gateway(Untouchable(), [], grants=NOTHING)
    answer = await subject.handle(request(method, target, more=more[0] if more else ()), Empty())
    assert answer.status == 403


def test_the_actions_that_are_known_are_those_of_the_matrix():
    wanted = {f"s3:{n.removeprefix('source ')}" for needs in ROUTES.values() for n in needs}
    assert set(all_actions()) == wanted | {"s3:ListAllMyBuckets"}


async def test_a_user_sees_the_buckets_that_it_may_list():
    subject = Client()
    for name in ("alpha", "beta", "gamma"):
        await subject("PUT", f"/{name}")
    allow = statement("Allow", "ListAllMyBuckets", "*")
    for given, seen in [
        ((allow,), ["alpha", "beta", "gamma"]),
        ((statement("Allow", "ListAllMyBuckets", "arn:aws:s3:::*a*m*"),), ["gamma"]),
        ((allow, statement("Deny", "*", "arn:aws:s3:::beta")), ["alpha", "gamma"]),
    ]:
        subject.grants = grants(*given)
        assert (await subject("GET", "/")).texts("Buckets/Bucket/Name") == seen


async def test_each_key_of_a_delete_asks_for_itself():
    subject = Client()
    await subject("PUT", "/bucket")
    for key in ("mine/1", "mine/2", "other"):
        await subject.put(f"/bucket/{key}", b"x")
    body = "".join(f"<Object><Key>{key}</Key></Object>" for key in ("mine/1", "other"))
    body += "<Object><Key>mine/2</Key><VersionId>null</VersionId></Object>"
    data = f"<Delete>{body}</Delete>".encode()
    subject.grants = grants(statement("Allow", "DeleteObject", "arn:aws:s3:::bucket/mine/*"))
    answer = await subject("POST", "/bucket", "delete", body=data, headers=md5_header(data))
    assert answer.texts("Deleted/Key") == ["mine/1"]
    assert answer.texts("Error/Key") == ["other", "mine/2"]
    assert answer.texts("Error/Code") == ["AccessDenied"] * 2
    subject.grants = EVERYTHING
    assert (await subject("GET", "/bucket")).texts("Contents/Key") == ["mine/2", "other"]


async def test_a_delete_of_which_nothing_is_allowed_does_not_reach_storage():
    data = b"<Delete><Object><Key>k</Key></Object></Delete>"
    subject = Client(objects=Untouchable(), grants=NOTHING)
    answer = await subject("POST", "/bucket", "delete", body=data, headers=md5_header(data))
    assert answer.texts("Error/Code") == ["AccessDenied"]


@pytest.mark.parametrize("more", [(), SOURCE])
async def test_that_a_key_does_not_exist_is_told_to_those_who_may_list(more):
    from tests.s3.fake_objects import FakeObjects

    objects = FakeObjects()
    for name in ("bucket", "source"):
        await objects.create_bucket(name, "root", b"")
    method, where = ("PUT", "source") if more else ("GET", "bucket")
    use = [statement("Allow", "*Object", "*")]
    for given, status in [
        (use, 403),
        ([*use, statement("Allow", "ListBucket", f"arn:aws:s3:::{where}")], 404),
    ]:
        subject = gateway(objects, [], grants=grants(*given))
        answer = await subject.handle(request(method, "/bucket/some/key", more=more), Empty())
        assert answer.status == status, answer.body


@pytest.mark.parametrize(
    "target", ["/bucket%2Fsome/key", "/bucket%2Fsome%2Fkey", "/..%2Fbucket/some/key"]
)
async def test_a_slash_in_the_name_of_a_bucket_does_not_make_it_another(target):
    """What is authorised is what is asked for: such a name is no bucket, whatever a policy says of its ARN."""
    subject = gateway(Untouchable(), [], grants=grants(statement("Allow", "*", "arn:aws:s3:::bucket/*")))  # fmt: skip
    answer = await subject.handle(request("GET", target), Empty())
    assert answer.status in {403, 404}


@pytest.mark.parametrize(
    ("code", "listing", "told"),
    [
        ("NoSuchKey", False, False), ("NoSuchVersion", False, False), ("NoSuchKey", True, True),
        ("NoSuchVersion", True, True), ("NoSuchBucket", False, True), ("PreconditionFailed", False, True),
    ],
)  # fmt: skip
def test_which_errors_are_hidden_from_whom(code, listing, told):
    given = grants(statement("Allow", "ListBucket" if listing else "GetObject", "*"))
    identity = Identity(access_key=ACCESS, owner="root", grants=given)
    head = request("GET", "/bucket/key")
    assert betrays(code, identity, router.route(head), head.headers) is not told


async def test_a_star_in_a_key_is_no_pattern():
    given = grants(statement("Allow", "GetObject", "arn:aws:s3:::bucket/a"))
    answer, reached = await ask(("GET", "/bucket/*"), given)
    assert (answer.status, reached) == (403, [])


async def test_when_it_cannot_be_said_who_asks_the_answer_is_503_and_not_403():
    class Away:
        async def find(self, access_key):
            raise UnavailableError("no quorum")

    subject = gateway(Untouchable(), [])
    subject._credentials = Away()
    answer = await subject.handle(request("GET", "/bucket"), Empty())
    assert answer.status == 503
    assert dict(answer.headers)[b"Retry-After"]


def test_a_secret_does_not_show():
    identity = Identity(access_key=ACCESS, owner="root", grants=NOTHING)
    assert SECRET not in repr(Credential(identity=identity, secret=SECRET))
