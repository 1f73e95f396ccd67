"""A small S3 client of our own for chaos tests: signed requests over http.client, so that every status is seen."""

import datetime as dt
import hashlib
import http.client
import urllib.parse
from collections.abc import Mapping

from s3.messages import Headers, RequestHead
from s3.sigv4 import sign_request


class Client:
    """One connection to a node."""

    def __init__(self, endpoint: str, access_key: str, secret_key: str) -> None:
        self.host = urllib.parse.urlsplit(endpoint).netloc
        self.keys = {"access_key": access_key, "secret": secret_key}
        self.connection = http.client.HTTPConnection(self.host, timeout=30)

    def close(self) -> None:
        self.connection.close()

    def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        query: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body. Raises OSError or HTTPException where the node does not answer."""
        items = [(b"host", self.host.encode())] + [
            (n.lower().encode(), v.encode()) for n, v in (headers or {}).items()
        ]
        quoted = urllib.parse.quote(path)
        head = RequestHead(
            method=method,
            path=quoted.encode(),
            query=query.encode(),
            headers=Headers(items),
            remote="",
        )
        date = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
        signed = sign_request(
            head,
            **self.keys,
            region="us-east-1",
            amz_date=date,
            payload=hashlib.sha256(body).hexdigest(),
        )
        sent = {name.decode(): value.decode() for name, value in [*items, *signed]}
        try:
            self.connection.request(
                method, quoted + (f"?{query}" if query else ""), body=body, headers=sent
            )
            answer = self.connection.getresponse()
            return answer.status, {n.lower(): v for n, v in answer.getheaders()}, answer.read()
        except (OSError, http.client.HTTPException):
            self.connection.close()
            raise
