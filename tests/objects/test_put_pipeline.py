"""A PUT collects while it works, keeps little for a slow client, and leaves nothing when it is given up."""

from pathlib import Path

import attrs
import pytest
import trio

from cluster.errors import NotFoundError
from cluster.objects.context import ObjectSettings
from cluster.objects.model import PutRequest, Seal
from tests.objects.local_store import open_store, put_request, read_all

MI = 1 << 20
STRIPE = 4 * 65536


class ClientGoneError(Exception):
    """The body broke off."""


@attrs.define
class Paced:
    """A body of zeros: `pause` seconds before each quarter of a stripe; breaks off after `size` bytes if asked."""

    size: int
    pause: float
    broken: bool = False
    asked: list[int] = attrs.field(factory=list)
    at: int = 0

    @property
    def size_hint(self) -> int | None:
        return None

    async def readinto(self, buffer: memoryview) -> int:
        await trio.sleep(self.pause)
        self.asked.append(len(buffer))
        if self.at == self.size and self.broken:
            raise ClientGoneError
        step = min(STRIPE // 4, len(buffer), self.size - self.at)
        buffer[:step] = bytes(step)
        self.at += step
        return step


def request_of(source: Paced) -> PutRequest:
    return PutRequest(source=source, seal=lambda _: Seal(validator="v", attributes=b""))


async def test_a_slow_client_has_one_stripe_to_fill(tmp_path: Path) -> None:
    settings = ObjectSettings(fast_fill_seconds=0.01)
    async with open_store(tmp_path, settings=settings) as local:
        bucket = await local.store.create_bucket("bucket", "me", b"")
        source = Paced(size=16 * STRIPE, pause=0.005)
        await local.store.put(bucket, b"slow", request_of(source))
        # A first chunk is a try; after it one stripe at a time.
        assert sum(size > STRIPE for size in source.asked) <= 4 * MI // (STRIPE // 4)
        source = Paced(size=3 * 16 * STRIPE, pause=0)
        await local.store.put(bucket, b"fast", request_of(source))
        assert max(source.asked) == 4 * MI
        assert await read_all(local.store, bucket, b"fast") == bytes(source.size)


@pytest.mark.parametrize("size", [0, 100, STRIPE, 3 * STRIPE, 9 * MI])
async def test_a_body_that_breaks_off_leaves_nothing(tmp_path: Path, size: int) -> None:
    async with open_store(tmp_path) as local:
        bucket = await local.store.create_bucket("bucket", "me", b"")
        with pytest.raises(ClientGoneError):
            await local.store.put(bucket, b"key", request_of(Paced(size, 0, broken=True)))
        with pytest.raises(NotFoundError):
            await local.store.get(bucket, b"key")


@pytest.mark.parametrize("after", [0.0, 0.01, 0.05, 0.2])
async def test_a_cancelled_put_gives_its_buffers_back(tmp_path: Path, after: float) -> None:
    async with open_store(tmp_path) as local:
        bucket = await local.store.create_bucket("bucket", "me", b"")
        with trio.move_on_after(after):
            await local.store.put(bucket, b"key", request_of(Paced(200 * MI, 0.001)))
        assert local.used == 0


async def test_more_puts_than_buffers_wait_for_each_other(tmp_path: Path) -> None:
    settings = ObjectSettings(buffer_budget=6 * MI)
    async with open_store(tmp_path, settings=settings) as local:
        bucket = await local.store.create_bucket("bucket", "me", b"")
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for number in range(8):
                    request = put_request(bytes(5 * MI + number))
                    nursery.start_soon(local.store.put, bucket, b"%d" % number, request)
            for number in range(8):
                found = await read_all(local.store, bucket, b"%d" % number)
                assert found == bytes(5 * MI + number)
