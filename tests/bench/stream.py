"""A client for bodies that nobody holds: made block by block, sent, received and hashed as a stream."""

import datetime as dt
import http.client
import os
import time
import urllib.parse

import xxhash

from s3.messages import Headers, RequestHead
from s3.sigv4 import UNSIGNED_PAYLOAD, sign_request

BLOCK_BYTES = 1 << 20
TIMEOUT_SECONDS = 120.0  # without a byte


def put_stream(endpoint, keys, path, size):
    """PUT `size` bytes that differ from block to block. Seconds, and the hash of what was sent."""
    connection, headers = _open(endpoint, keys, "PUT", path)
    block, digest = bytearray(os.urandom(BLOCK_BYTES)), xxhash.xxh3_128()
    try:
        began = time.perf_counter()
        connection.putrequest("PUT", path, skip_host=True, skip_accept_encoding=True)
        for name, value in (*headers, (b"content-length", b"%d" % size)):
            connection.putheader(name.decode(), value)
        connection.endheaders()
        for at in range(0, size, BLOCK_BYTES):
            block[:8] = at.to_bytes(8, "big")
            piece = memoryview(block)[: size - at]
            digest.update(piece)
            connection.send(piece)
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status == 200, f"PUT was answered with {answer.status}: {text[:300]!r}"
        return time.perf_counter() - began, digest.hexdigest()
    finally:
        connection.close()


def get_stream(endpoint, keys, path):
    """GET to the end. Seconds, the number of bytes, and their hash."""
    connection, headers = _open(endpoint, keys, "GET", path)
    buffer, digest, size = memoryview(bytearray(BLOCK_BYTES)), xxhash.xxh3_128(), 0
    try:
        began = time.perf_counter()
        connection.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name.decode(), value)
        connection.endheaders()
        answer = connection.getresponse()
        assert answer.status == 200, f"GET was answered with {answer.status}"
        while count := answer.readinto(buffer):
            digest.update(buffer[:count])
            size += count
        return time.perf_counter() - began, size, digest.hexdigest()
    finally:
        connection.close()


def _open(endpoint, keys, method, path):
    """A connection, and the headers of a request whose body is not signed."""
    host = urllib.parse.urlsplit(endpoint).netloc
    items = [(b"host", host.encode())]
    head = RequestHead(
        method=method, path=path.encode(), query=b"", headers=Headers(items), remote=""
    )
    added = sign_request(
        head, access_key=keys[0], secret=keys[1], region="us-east-1",
        amz_date=dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ"), payload=UNSIGNED_PAYLOAD,
    )  # fmt: skip
    return http.client.HTTPConnection(host, timeout=TIMEOUT_SECONDS), [*items, *added]
