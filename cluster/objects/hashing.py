"""The digests that S3 asks for, side by side in worker threads, each in order."""

from collections.abc import Sequence
from functools import partial

from cluster.metadata.together import together
from cluster.objects.context import SMALL_WORK
from cluster.objects.model import Digest
from cluster.runtime import Runtime


class Hasher:
    """All digests of one body. Never update concurrently."""

    def __init__(self, runtime: Runtime, digests: Sequence[Digest]) -> None:
        self._runtime, self._digests = runtime, digests

    async def update(self, data: memoryview) -> None:
        """Take the next bytes."""
        if len(data) <= SMALL_WORK:
            for digest in self._digests:
                digest.update(data)
        elif len(self._digests) == 1:
            await self._one(self._digests[0], data)
        else:
            await together(*(partial(self._one, digest, data) for digest in self._digests))

    async def _one(self, digest: Digest, data: memoryview) -> None:
        await self._runtime.offload(partial(digest.update, data))
