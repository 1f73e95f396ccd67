"""Operations over the real store on six folders: what an Objects in memory cannot show."""

import base64
import zlib
from pathlib import Path

import pytest
import trio

from tests.objects.local_store import noise, open_store
from tests.s3.client import Client, md5_header

MIB = 1 << 20


@pytest.mark.slow
async def test_many_copies_at_once_do_not_wait_for_each_other_for_ever(tmp_path: Path) -> None:
    async with open_store(tmp_path) as local:
        client = Client(local.store)
        await client("PUT", "/bkt")
        body = noise(4 * MIB + 5)
        await client("PUT", "/bkt/source", body=body)

        async def copy(index: int) -> None:
            await client("PUT", f"/bkt/{index}", headers={"x-amz-copy-source": "bkt/source"})

        with trio.fail_after(300):
            async with trio.open_nursery() as nursery:
                for index in range(30):  # all of them together want more than the store's buffers
                    nursery.start_soon(copy, index)
        for index in (0, 29):
            assert (await client("GET", f"/bkt/{index}")).body == body


@pytest.mark.slow
async def test_a_session(tmp_path: Path) -> None:
    async with open_store(tmp_path) as local:
        client = Client(local.store)
        await client("PUT", "/bkt")
        for key in ("a", "b", "c/1", "c/2", "d"):
            await client("PUT", f"/bkt/{key}", body=key.encode())
        page = await client("GET", "/bkt", "list-type=2&max-keys=5")
        assert (page.text("KeyCount"), page.text("IsTruncated")) == ("5", "false")
        page = await client("GET", "/bkt", "delimiter=/&max-keys=3")
        assert (page.text("IsTruncated"), page.text("NextMarker")) == ("true", "c/")
        page = await client("GET", "/bkt", "delimiter=/&max-keys=3&marker=c/")
        assert page.texts("Contents/Key") == ["d"]
        names = "".join(f"<Object><Key>{key}</Key></Object>" for key in ("a", "b", "c/1", "c/2"))
        body = f"<Delete>{names}</Delete>".encode()
        await client("POST", "/bkt", "delete", body=body, headers=md5_header(body))
        page = await client("GET", "/bkt", "max-keys=1")
        assert (page.texts("Contents/Key"), page.text("IsTruncated")) == (["d"], "false")

        headers = {"x-amz-checksum-algorithm": "CRC32", "x-amz-checksum-type": "FULL_OBJECT"}
        upload = (await client("POST", "/bkt/big", "uploads", headers=headers)).text("UploadId")
        first, second = noise(5 * MIB), noise(70_000, seed=2)
        parts = ""
        for number, part in ((3, first), (7, second)):
            query = f"partNumber={number}&uploadId={upload}"
            tag = (await client("PUT", "/bkt/big", query, body=part)).headers["etag"]
            parts += f"<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>"
        body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        for _ in range(2):
            done = await client("POST", "/bkt/big", f"uploadId={upload}", body=body)
            crc = zlib.crc32(first + second).to_bytes(4, "big")
            assert done.text("ChecksumCRC32") == base64.b64encode(crc).decode()
        assert (await client("GET", "/bkt/big")).body == first + second
        assert (await client("GET", "/bkt/big", "partNumber=2")).body == second
        span = {"Range": f"bytes={5 * MIB - 3}-{5 * MIB + 2}"}
        assert (await client("GET", "/bkt/big", headers=span)).body == first[-3:] + second[:3]
