"""MLX -> Hugging Face folder: a base model with an mlx-lm adapter fused into its weights, in plain safetensors.

Works by tensor name, one weight file at a time. Tensors that mlx-lm has no use for, such as those of a vision tower,
are written as the base has them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx_grpo.backend.openblas  # noqa: F401  (before mlx.core: it loads the BLAS)

# isort: split
import mlx.core as mx
from mlx_lm.utils import load_model

from convert.adapter import Adapter, load_adapter, read_tensors
from convert.folder import refuse_foreign, whole_folder
from convert.layout import on_the_hub
from convert.quantize import quantize_folder
from convert.settings import config_changes
from convert.verify import Verification, verify_export
from mlx_grpo.backend.device import DTYPES
from mlx_grpo.errors import UserError
from mlx_grpo.json_files import read_json, write_json

MARKER = "export.json"
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 5 * 10**9
"""The most that a weight file holds, as transformers and the Hub have it."""
COMPANIONS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
)
"""Files that are copied as they are, where the base has them."""


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """The contents of an export; written into its folder as export.json."""

    base: str
    """The name of the base model's folder."""
    adapter: str
    """"none", "lora" or "full"."""
    dtype: str
    parameters: int
    changed_tensors: int
    """The number of weights that the adapter changed."""
    files: dict[str, int]
    """Name and size in bytes of every other file."""
    bits: int | None = None
    """Of the quantized layers' weights, in a folder for MLX."""
    verification: Verification | None = None


def export_hf(
    base: Path,
    out: Path,
    *,
    adapter: Path | None = None,
    dtype: str = "bfloat16",
    bits: int | None = None,
    card: str | None = None,
    extra_files: Sequence[Path] = (),
    stop_ids: Set[int] = frozenset(),
    shard_bytes: int = SHARD_BYTES,
    verify: bool = False,
) -> ExportSummary:
    """Write `base` with `adapter` fused in as a Hugging Face folder `out` of weights in `dtype`.

    `adapter` is an mlx-lm adapter folder, `card` the text of README.md, `stop_ids` what ends a completion. With `bits`
    the weights are quantized, for MLX alone. The folder appears whole or not at all; with `verify` only after it has
    been loaded again and agrees. Raises UserError listing every adapter tensor that does not fit the base.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    refuse_foreign(out, MARKER)
    config, shapes = read_json(base / "config.json"), base_shapes(base)
    change = load_adapter(adapter, shapes) if adapter else Adapter("none", {}, {})
    tied = bool(config.get("tie_word_embeddings", "lm_head.weight" not in shapes))
    with whole_folder(out, MARKER) as folder:
        weights = trained_weights(base, change, tied, dtype)
        parameters = _write_weights(weights, folder, dtype, shard_bytes)
        write_json(folder / "config.json", _export_config(config, tied, dtype))
        if bits is not None:
            quantize_folder(folder, bits)
        copy_files(base, folder, card, extra_files, stop_ids)
        verification = verify_export(base, folder, adapter=adapter) if verify else None
        files = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
        summary = ExportSummary(
            base.resolve().name, change.kind, dtype, parameters, change.size, files, bits, verification
        )
        write_json(folder / MARKER, asdict(summary))
    return summary


def _shards(base: Path) -> list[str]:
    """Return the names of the base's weight files."""
    if (base / INDEX).is_file():
        names = sorted(set(read_json(base / INDEX).get("weight_map", {}).values()))
    else:
        names = sorted(path.name for path in base.glob("model*.safetensors"))
    absent = [name for name in names if Path(name).name != name or not (base / name).is_file()]
    if absent or not names:
        raise UserError(f"{base}: weight files are missing: {', '.join(absent) or 'model.safetensors'}")
    return names


def _packed_layers(base: Path) -> dict[str, Any]:
    """Return the packed layers of a base by name, each with the bits and group size that its own arrays have.

    config.json need not name the layers that differ from the others, so mlx-lm goes by the arrays.
    """
    config = read_json(base / "config.json")
    if "quantization" not in config:
        return {}
    model, _ = load_model(base, lazy=True, model_config=config_changes(config))
    return {name: module for name, module in model.named_modules() if "scales" in module}


def _plain_weights(path: Path, packed: dict[str, Any]) -> Iterator[tuple[str, mx.array]]:
    """Yield each weight of a file by name, dequantized where the base is an MLX quantization."""
    stored = read_tensors(path)
    for name in [name for name in stored if not name.endswith((".scales", ".biases"))]:
        module = name.removesuffix(".weight")
        scales, biases = stored.pop(f"{module}.scales", None), stored.pop(f"{module}.biases", None)
        weight = stored.pop(name)
        if scales is not None and module not in packed:
            raise UserError(f"{module} is quantized, but config.json has no MLX 'quantization' that says how")
        if scales is not None:
            weight = _dequantize(weight, scales, biases, packed[module])
        yield from on_the_hub(name, weight)


def _dequantize(weight: mx.array, scales: mx.array, biases: mx.array | None, layer: Any) -> mx.array:
    if layer.mode == "affine" and biases is not None:  # in fp32, or the products would be rounded to the scales' bf16
        scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
    return mx.dequantize(weight, scales, biases, layer.group_size, layer.bits, layer.mode)


def base_shapes(base: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each of a model's weights, as it is once dequantized."""
    packed = _packed_layers(base)
    return {name: weight.shape for shard in _shards(base) for name, weight in _plain_weights(base / shard, packed)}


def trained_weights(base: Path, change: Adapter, tied: bool, dtype: str) -> Iterator[tuple[str, mx.array]]:
    """Yield the base's weights after training, in `dtype`; without the head where it is the embedding."""
    packed = _packed_layers(base)
    for shard in _shards(base):
        for name, weight in _plain_weights(base / shard, packed):
            if not (tied and name == "lm_head.weight"):
                yield name, _cast(change.apply(name, weight), dtype)


def _write_weights(weights: Iterable[tuple[str, mx.array]], folder: Path, dtype: str, shard_bytes: int) -> int:
    """Write weight files, and their index where there are several; return the number of parameters."""
    written: list[list[str]] = []
    parameters = size = 0
    for shard in _split(weights, shard_bytes):
        written.append(list(shard))
        mx.save_safetensors(str(folder / f"{len(written)}.safetensors"), shard, metadata={"format": "pt"})
        _refuse_infinite(shard, dtype)
        parameters += sum(weight.size for weight in shard.values())
        size += sum(weight.nbytes for weight in shard.values())
    weight_map: dict[str, str] = {}
    for i, names in enumerate(written, start=1):
        file = "model.safetensors" if len(written) == 1 else f"model-{i:05d}-of-{len(written):05d}.safetensors"
        (folder / f"{i}.safetensors").rename(folder / file)
        weight_map |= dict.fromkeys(names, file)
    if len(written) > 1:
        total = {"total_size": size, "total_parameters": parameters}
        write_json(folder / INDEX, {"metadata": total, "weight_map": dict(sorted(weight_map.items()))})
    return parameters


def _split(weights: Iterable[tuple[str, mx.array]], shard_bytes: int) -> Iterator[dict[str, mx.array]]:
    """Yield the weights in their order, in shards of at most `shard_bytes`; a larger one has a shard of its own."""
    shard: dict[str, mx.array] = {}
    size = 0
    for name, weight in weights:
        if shard and size + weight.nbytes > shard_bytes:
            yield shard
            shard, size = {}, 0
        shard[name] = weight
        size += weight.nbytes
    if shard:
        yield shard


def _cast(weight: mx.array, dtype: str) -> mx.array:
    return weight.astype(DTYPES[dtype]) if mx.issubdtype(weight.dtype, mx.floating) else weight


def _refuse_infinite(weights: dict[str, mx.array], dtype: str) -> None:
    bad = [name for name, weight in weights.items() if not mx.isfinite(weight).all().item()]
    if bad:
        raise UserError(f"weights are not finite in {dtype}: {', '.join(bad[:5])} ({len(bad)} in all); nothing written")


def _export_config(config: dict[str, Any], tied: bool, dtype: str) -> dict[str, Any]:
    exported = {key: value for key, value in config.items() if key not in ("quantization", "quantization_config")}
    # transformers reads `dtype` since 4.56 and `torch_dtype` before.
    exported |= {"tie_word_embeddings": tied, "dtype": dtype, "torch_dtype": dtype}
    exported |= config_changes(config)
    if isinstance(exported.get("text_config"), dict):
        exported["text_config"] = exported["text_config"] | {"dtype": dtype}
    if not exported.get("architectures"):
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CLASSES

        if config.get("model_type") not in CLASSES:
            raise UserError(f"config.json: transformers has no causal language model {config.get('model_type')!r}")
        exported["architectures"] = [CLASSES[config["model_type"]]]
    return exported


def _add_stops(folder: Path, stop_ids: Set[int]) -> None:
    """Name the tokens that end a completion in an export's generation_config.json, unless its files name them all."""
    file = folder / "generation_config.json"
    settings = read_json(file) if file.is_file() else None
    named = (read_json(folder / "config.json") if settings is None else settings).get("eos_token_id")
    if not stop_ids <= set(named if isinstance(named, list) else [named]):
        write_json(file, {**(settings or {}), "eos_token_id": sorted(stop_ids)})


def copy_files(
    base: Path, folder: Path, card: str | None, extra_files: Sequence[Path], stop_ids: Set[int] = frozenset()
) -> None:
    """Put the tokenizer's files, the model card and the extra files beside the weights; name `stop_ids` there."""
    for name in COMPANIONS:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
    if stop_ids:
        _add_stops(folder, stop_ids)
    if card is not None:
        (folder / "README.md").write_text(card, encoding="utf-8")
    for path in extra_files:
        if not path.is_file():
            raise UserError(f"{path}: no such file to add to the export")
        if (folder / path.name).exists() or path.name == MARKER:
            raise UserError(f"{path}: the export has a file {path.name} of its own; give this one another name")
        shutil.copyfile(path, folder / path.name)
