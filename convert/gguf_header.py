"""Read a GGUF's header, comparing every count and offset with the file's length.

The readers of gguf and transformers trust those counts: an array that claims 2^60 items keeps them appending for ever.
"""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path
from typing import Any

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from mlx_grpo.errors import UserError

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
FLOATS = (GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16)
MAX_ENTRIES = 1 << 16
MAX_ITEMS = 1 << 21
"""Over all arrays together; gguf makes several objects of each. The largest vocabularies have 2^18 tokens."""


def read_header(path: Path) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    """Return the metadata and each tensor's shape; UserError at the first count that the file can't hold."""
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _read(_Cursor(data))


class _Cursor:
    """A position in the file that never goes beyond its end."""

    def __init__(self, data: mmap.mmap):
        self.data, self.at, self.items = data, len(b"GGUF"), 0

    def skip(self, size: int) -> int:
        start, self.at = self.at, self.at + size
        if self.at > len(self.data):
            raise UserError(f"the GGUF is truncated or corrupt: it has {len(self.data)} bytes and needs {self.at}")
        return start

    def number(self, layout: str = "Q") -> Any:
        return struct.unpack_from("<" + layout, self.data, self.skip(struct.calcsize("<" + layout)))[0]

    def string(self) -> str:
        size = self.number()
        return self.data[self.skip(size) : self.at].decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.string()
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        items, length = (self.number("I"), self.number()) if kind == ARRAY else (ARRAY, 0)
        if items == ARRAY:
            raise UserError(f"the GGUF has a value of the unsupported type {kind}")
        self.items += length
        if self.items > MAX_ITEMS:
            raise UserError(f"the GGUF has an array that claims {length} items; {MAX_ITEMS} in all are allowed")
        return [self.value(items) for _ in range(length)]


def _read(cursor: _Cursor) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    version, tensors, entries = cursor.number("I"), cursor.number(), cursor.number()
    if version not in (2, 3) or max(tensors, entries) > MAX_ENTRIES:
        raise UserError(
            f"a GGUF of version {version} with {tensors} tensors and {entries} metadata is not supported; "
            f"versions 2 and 3 (little-endian) with at most {MAX_ENTRIES} each are"
        )
    metadata: dict[str, Any] = {}
    for _ in range(entries):
        key = cursor.string()
        metadata[key] = cursor.value(cursor.number("I"))
        if isinstance(metadata[key], float) and not math.isfinite(metadata[key]):
            raise UserError(f"the metadata has {metadata[key]} at {key!r}")
    shapes: dict[str, tuple[int, ...]] = {}
    ends = [_read_tensor(cursor, shapes) for _ in range(tensors)]
    cursor.skip(-cursor.at % metadata.get("general.alignment", 32))
    cursor.skip(max(ends, default=0))
    return metadata, shapes


def _read_tensor(cursor: _Cursor, shapes: dict[str, tuple[int, ...]]) -> int:
    """Add a tensor to `shapes`; return where its data ends, counted from the beginning of all data."""
    name, rank = cursor.string(), cursor.number("I")
    shape = [cursor.number() for _ in range(min(rank, 5))]
    kind, offset = cursor.number("I"), cursor.number()
    elements, size = GGML_QUANT_SIZES.get(kind, (1, 0))
    if elements == 1 and kind not in FLOATS:
        raise UserError(f"the tensor {name!r} has the unsupported type {kind}")
    if not 1 <= rank <= 4 or 0 in shape or shape[0] % elements:
        raise UserError(f"the tensor {name!r} can't have the shape {shape}; its rows come in blocks of {elements}")
    shapes[name] = tuple(reversed(shape))
    return offset + math.prod(shape) // elements * size
