"""Sources of a PUT: filling buffers from one, and an object as one (server-side copy)."""

import attrs

from cluster.objects.model import Object, Reader, Source


@attrs.define
class ObjectSource:
    """Bytes of an object as a Source. Close it in every case: it holds buffers."""

    size_hint: int | None
    reader: Reader
    rest: list[memoryview] = attrs.field(factory=list)

    async def readinto(self, buffer: memoryview) -> int:
        """See Source."""
        while not self.rest:
            buffers = await self.reader.next()
            if buffers is None:
                return 0
            self.rest = [piece for piece in buffers if len(piece)]
        piece = self.rest.pop(0)
        taken = min(len(piece), len(buffer))
        buffer[:taken] = piece[:taken]
        if taken < len(piece):
            self.rest.insert(0, piece[taken:])
        return taken

    async def aclose(self) -> None:
        """Give the buffers back. Idempotent."""
        self.rest = []
        await self.reader.aclose()


async def fill(source: Source, buffer: memoryview) -> int:
    """Read until the buffer is full or the source ends; the number of bytes read."""
    filled = 0
    while filled < len(buffer):
        got = await source.readinto(buffer[filled:])
        if not got:
            break
        filled += got
    return filled


async def object_source(source: Object, start: int = 0, stop: int | None = None) -> ObjectSource:
    """A Source that reads bytes start..stop-1 of an object."""
    end = source.version.size if stop is None else stop
    return ObjectSource(end - start, await source.open(start, end))
