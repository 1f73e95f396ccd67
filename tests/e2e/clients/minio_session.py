"""A day with minio-py: run by tests/e2e/test_clients.py in an environment of its own. ENDPOINT ACCESS SECRET."""

import io
import os
import sys
import urllib.parse

from minio import Minio
from minio.commonconfig import CopySource
from minio.deleteobjects import DeleteObject

endpoint, access, secret = sys.argv[1:4]
client = Minio(
    endpoint=urllib.parse.urlsplit(endpoint).netloc,
    access_key=access,
    secret_key=secret,
    secure=False,
)
BUCKET = "by-minio"

client.make_bucket(bucket_name=BUCKET)
assert client.bucket_exists(bucket_name=BUCKET)
small, large = os.urandom(3000), os.urandom((12 << 20) + 1)
client.put_object(
    bucket_name=BUCKET,
    object_name="small",
    data=io.BytesIO(small),
    length=len(small),
    metadata={"colour": "blue"},
)
client.put_object(
    bucket_name=BUCKET,
    object_name="dir/large",
    data=io.BytesIO(large),
    length=-1,
    part_size=5 << 20,
)
for name, body in (("small", small), ("dir/large", large)):
    answer = client.get_object(bucket_name=BUCKET, object_name=name)
    assert answer.read() == body
    answer.close()
    answer.release_conn()
answer = client.get_object(
    bucket_name=BUCKET, object_name="dir/large", offset=5_000_000, length=1_000_000
)
assert answer.read() == large[5_000_000:6_000_000]
answer.close()
answer.release_conn()
assert (
    client.stat_object(bucket_name=BUCKET, object_name="small").metadata["x-amz-meta-colour"]
    == "blue"
)
client.copy_object(
    bucket_name=BUCKET,
    object_name="copy",
    source=CopySource(bucket_name=BUCKET, object_name="small"),
)
assert sorted(item.object_name for item in client.list_objects(bucket_name=BUCKET)) == [
    "copy",
    "dir/",
    "small",
]
assert [item.object_name for item in client.list_objects(bucket_name=BUCKET, recursive=True)] == [
    "copy",
    "dir/large",
    "small",
]
assert not list(
    client.remove_objects(
        bucket_name=BUCKET, delete_object_list=[DeleteObject("copy"), DeleteObject("dir/large")]
    )
)
client.remove_object(bucket_name=BUCKET, object_name="small")
client.remove_bucket(bucket_name=BUCKET)
print("minio ok")
