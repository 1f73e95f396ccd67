"""A day with s3fs (fsspec over aiobotocore): run by tests/e2e/test_clients.py in an environment of its own. ENDPOINT ACCESS SECRET."""

import os
import sys

import s3fs

endpoint, access, secret = sys.argv[1:4]
files = s3fs.S3FileSystem(
    key=access, secret=secret, endpoint_url=endpoint, use_listings_cache=False
)
files.mkdir("by-s3fs")
body = os.urandom((6 << 20) + 11)
with files.open("by-s3fs/deep/er/file", "wb", block_size=5 << 20) as sink:
    sink.write(body)
with files.open("by-s3fs/deep/er/file", "rb") as source:
    source.seek(1_000_000)
    assert source.read(100) == body[1_000_000:1_000_100]
assert files.cat("by-s3fs/deep/er/file") == body
files.pipe("by-s3fs/deep/two", b"2")
assert files.ls("by-s3fs/deep") == ["by-s3fs/deep/er", "by-s3fs/deep/two"]
files.cp("by-s3fs/deep/two", "by-s3fs/three")
assert files.cat("by-s3fs/three") == b"2"
assert files.find("by-s3fs") == ["by-s3fs/deep/er/file", "by-s3fs/deep/two", "by-s3fs/three"]
files.rm("by-s3fs", recursive=True)
assert not files.exists("by-s3fs")
print("s3fs ok")
