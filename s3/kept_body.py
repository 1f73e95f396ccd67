"""A request's body that can be read again from its start, as long as little of it was read."""

from s3.messages import RequestBody, RequestHead

KEPT_BYTES = 64 * 1024
KEPT_DOCUMENT_BYTES = 2 << 20  # what a POST sends is read whole before anything is done


class KeptBody:
    """A RequestBody that remembers what was read of another one, up to a limit."""

    __slots__ = ("_at", "_body", "_kept", "_limit")

    def __init__(self, body: RequestBody, head: RequestHead) -> None:
        self._body = body
        self._limit = KEPT_DOCUMENT_BYTES if head.method == "POST" else KEPT_BYTES
        self._kept: bytearray | None = bytearray()
        self._at = 0

    @property
    def length(self) -> int | None:
        """See RequestBody."""
        return self._body.length

    async def readinto(self, buffer: memoryview) -> int:
        """See RequestBody."""
        kept, at = self._kept, self._at
        if kept is not None and at < len(kept):
            count = min(len(buffer), len(kept) - at)
            buffer[:count] = kept[at : at + count]
            self._at += count
            return count
        count = await self._body.readinto(buffer)
        if kept is not None:
            if len(kept) + count > self._limit:
                self._kept = None
            else:
                kept += buffer[:count]
                self._at += count
        return count

    def rewind(self) -> bool:
        """Begin at the start again; False: too much was read, it cannot be done."""
        self._at = 0
        return self._kept is not None
