"""Shard files: written once, under their final name, never renamed, never changed. Synchronous: for worker threads.

A file's existence means nothing; the index row that is committed after the file and its directory entry are durable does.
The folder is chosen by the data id's time bits, so that PUTs of the same moment share one directory to sync.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import crc32c

from cluster.drives.drive import Blob, ShardCorruptError, ShardMissingError
from cluster.drives.file_ops import FileOps
from cluster.erasure.shard_format import (
    CRC_BYTES,
    DIGEST_BYTES,
    HEADER_BYTES,
    TRAILER_BYTES,
    Footer,
    ShardFormatError,
    ShardHeader,
    block_crc,
    block_offset,
    check_header,
    pack_footer,
    pack_header,
    seed,
    unpack_footer,
)
from cluster.ids import ClusterId, DataId

FANOUT = 256


def shard_path(root: Path, data_id: DataId, position: int) -> Path:
    """Where a shard lies. Only random ids become names, never keys."""
    return root / "shards" / f"{data_id[4]:02x}" / f"{data_id.hex()}.{position}"


def make_folders(root: Path, files: FileOps) -> None:
    """The fan-out folders of a new drive, durable."""
    shards = root / "shards"
    shards.mkdir()
    for number in range(FANOUT):
        (shards / f"{number:02x}").mkdir()
    files.sync_directory(shards)
    files.sync_directory(root)


class ShardWriter:
    """One shard file being written."""

    def __init__(self, root: Path, cluster: ClusterId, header: ShardHeader, files: FileOps) -> None:
        self._files = files
        self._header = header
        self.path = shard_path(root, header.data_id, header.position)
        self._fd = files.create(self.path)
        self._offset = files.append(self._fd, 0, [pack_header(header, cluster)])
        self._blocks = 0
        self.payload_bytes = 0

    def write(self, blocks: Sequence[Blob]) -> None:
        """Append blocks with their CRCs, in one call."""
        data_id, position = self._header.data_id, self._header.position
        buffers: list[Blob] = []
        for block in blocks:
            buffers.append(block)
            buffers.append(block_crc(data_id, position, self._blocks, block))
            self._blocks += 1
            self.payload_bytes += len(block)
        self._offset += self._files.append(self._fd, self._offset, buffers)

    def finish(self, digests: bytes) -> None:
        """Footer, file and directory entry are durable when this returns."""
        footer = pack_footer(self._header, self.payload_bytes, digests)
        self._files.append(self._fd, self._offset, [footer])
        self._files.sync_file(self._fd)
        self.close()
        self._files.sync_directory(self.path.parent)

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            self._files.close(fd)

    def discard(self) -> None:
        """Remove what was written."""
        self.close()
        self._files.unlink(self.path)


def read_blocks(
    root: Path,
    header: ShardHeader,
    first: int,
    lengths: Sequence[int],
    files: FileOps,
) -> list[memoryview]:
    """Blocks first, first+1, … of a shard file, checked. Raises ShardMissingError, ShardCorruptError, OSError."""
    path = shard_path(root, header.data_id, header.position)
    fd = _open(path, files)
    try:
        total = sum(lengths) + CRC_BYTES * len(lengths)
        data = memoryview(bytearray(total))
        if files.read(fd, [data], block_offset(first, header.block)) != total:
            raise ShardCorruptError(f"{path.name}: shorter than its record says")
    finally:
        files.close(fd)
    blocks: list[memoryview] = []
    at = 0
    for number, length in enumerate(lengths, first):
        block = data[at : at + length]
        crc = int.from_bytes(data[at + length : at + length + CRC_BYTES], "little")
        if crc32c.crc32c(block, seed(header.data_id, header.position, number)) != crc:
            raise ShardCorruptError(f"{path.name}: block {number} fails its checksum")
        blocks.append(block)
        at += length + CRC_BYTES
    return blocks


def read_footer(
    root: Path, cluster: ClusterId, header: ShardHeader, stripes: int, files: FileOps
) -> Footer:
    """The footer of a shard file, its header checked too. Raises like read_blocks."""
    path = shard_path(root, header.data_id, header.position)
    fd = _open(path, files)
    try:
        head = memoryview(bytearray(HEADER_BYTES))
        files.read(fd, [head], 0)
        size = path.stat().st_size
        tail = memoryview(bytearray(min(size, TRAILER_BYTES + stripes * DIGEST_BYTES)))
        files.read(fd, [tail], size - len(tail))
        check_header(bytes(head), header, cluster)
        footer = unpack_footer(bytes(tail), header.data_id)
    except ShardFormatError as error:
        raise ShardCorruptError(f"{path.name}: {error}") from error
    finally:
        files.close(fd)
    return footer


def _open(path: Path, files: FileOps) -> int:
    try:
        return files.open_read(path)
    except FileNotFoundError as error:
        raise ShardMissingError(path.name) from error


def list_shards(root: Path) -> Iterator[tuple[DataId, int, Path]]:
    """Every shard file of a drive: (data id, position, path). Other files are passed over."""
    for folder in sorted((root / "shards").iterdir()):
        for path in folder.iterdir():
            name, _, position = path.name.partition(".")
            try:
                yield DataId(bytes.fromhex(name)), int(position), path
            except ValueError:
                continue


def has_footer(path: Path, data_id: DataId) -> bool:
    """Whether the file ends in a valid footer of that data id: it was written to its end."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - TRAILER_BYTES))
        trailer = file.read(TRAILER_BYTES)
        if len(trailer) < TRAILER_BYTES:
            return False
        stripes = int.from_bytes(trailer[16:20], "little")
        file.seek(max(0, size - TRAILER_BYTES - stripes * DIGEST_BYTES))
        try:
            unpack_footer(file.read(), data_id)
        except ShardFormatError:
            return False
    return True
