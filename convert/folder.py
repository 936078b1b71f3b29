"""Write a folder all at once: under a temporary name first, renamed when it is complete."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlx_grpo.errors import UserError


@contextmanager
def whole_folder(out: Path, marker: str) -> Iterator[Path]:
    """Yield an empty sibling of `out` that takes its place when the block ends without an error.

    `marker` is the file that a folder of ours holds. Raises UserError where `out` has other things in it.
    """
    refuse_foreign(out, marker)
    partial, old = (out.parent / f".{out.name}.{kind}-{secrets.token_hex(4)}" for kind in ("partial", "old"))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
    except OSError as error:
        raise UserError(f"{out}: can't be written ({error.strerror}); choose another place") from None
    try:
        yield partial
        if out.exists():
            os.rename(out, old)
        os.rename(partial, out)
    finally:
        if old.exists() and not out.exists():
            os.rename(old, out)
        for leftover in (partial, old):
            shutil.rmtree(leftover, ignore_errors=True)


def refuse_foreign(out: Path, marker: str) -> None:
    """Raise UserError where `out` is a file, or a folder with contents that this program did not write."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UserError(f"{out}: is not a folder; choose another place for the result")
    if out.is_dir() and any(out.iterdir()) and not (out / marker).is_file():
        raise UserError(f"{out}: holds files that were not written here (no {marker}); choose an empty or new folder")
