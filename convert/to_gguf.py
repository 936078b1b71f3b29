"""MLX -> GGUF: a base model with its adapter fused in, for the architectures llama, qwen2, qwen3 and gemma3.

Names, metadata and the order of rows follow llama.cpp's convert_hf_to_gguf.py. The weights are written one at a time.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Set
from contextlib import redirect_stderr
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import mlx_grpo.backend.openblas  # noqa: F401  (before mlx.core: it loads the BLAS)

# isort: split
import numpy as np

from convert.adapter import Adapter, load_adapter
from convert.folder import refuse_foreign, whole_folder
from convert.gguf import convert_gguf
from convert.hf import MARKER, ExportSummary, base_shapes, trained_weights
from convert.rope import rope_changes
from convert.torch_eval import quiet
from convert.verify import Verification, verify_gguf
from mlx_grpo.errors import UserError
from mlx_grpo.json_files import read_json, write_json

if TYPE_CHECKING:
    import gguf

Quant = Literal["F16", "Q8_0"]
ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3_text": "gemma3"}
"""config.json's model_type -> llama.cpp's name."""
NEEDED = (
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "rms_norm_eps",
    "vocab_size",
)
"""Keys of config.json that the metadata repeat."""
NEEDED_BY_GEMMA = ("head_dim", "sliding_window")
GEMMA_LOCAL_BASE, GEMMA_PATTERN = 10000.0, 6
"""llama.cpp's constants for Gemma 3: RoPE's base in sliding layers, and that each sixth layer attends to all."""
LLAMA_CPP = "use llama.cpp's convert_hf_to_gguf.py on the folder of `export --hf`"
"""The remedy for what is not written here."""
NO_GGUF = "writing a GGUF needs more packages ({}): pip install 'mlx-grpo[gguf]'"


def export_gguf(
    base: Path,
    out: Path,
    *,
    adapter: Path | None = None,
    quant: Quant = "F16",
    modelfile: str = "",
    stop_ids: Set[int] = frozenset(),
    verify: bool = False,
) -> ExportSummary:
    """Write `base` with `adapter` fused in as `out`/model-QUANT.gguf, with Ollama's Modelfile beside it.

    `modelfile` holds its lines after FROM, `stop_ids` what ends a completion. The folder appears whole or not at all;
    with `verify` only after transformers has read the file and agrees. Raises UserError for a model or a tokenizer
    that this format, as transformers reads it, does not hold.
    """
    refuse_foreign(out, MARKER)
    config, shapes = _config(base), base_shapes(base)
    change = load_adapter(adapter, shapes) if adapter else Adapter("none", {}, {})
    tied = bool(config.get("tie_word_embeddings", "lm_head.weight" not in shapes))
    with whole_folder(out, MARKER) as folder:
        file = folder / f"model-{quant}.gguf"
        try:
            parameters = _write(file, base, config, shapes, change, tied, quant, stop_ids)
        except ImportError as error:
            raise UserError(NO_GGUF.format(error)) from error
        (folder / "Modelfile").write_text(f"FROM ./{file.name}\n{modelfile}", encoding="utf-8")
        verification = _verify(base, file, adapter, quant) if verify else None
        files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        summary = ExportSummary(
            base.resolve().name, change.kind, quant, parameters, change.size, files, verification=verification
        )
        write_json(folder / MARKER, asdict(summary))
    return summary


def _verify(base: Path, file: Path, adapter: Path | None, quant: Quant) -> Verification:
    """Read a GGUF back into a Hugging Face folder, by transformers, and compare that with the policy."""
    read_back = file.parent / "read-back"
    try:
        with quiet(), redirect_stderr(io.StringIO()):  # a bar of transformers that can't be switched off
            convert_gguf([file], read_back)
        return verify_gguf(base, read_back, quant, adapter=adapter)
    finally:
        shutil.rmtree(read_back, ignore_errors=True)


def _config(base: Path) -> dict[str, Any]:
    """Return config.json with RoPE's keys at the top; raise UserError for what the format does not hold."""
    file = base / "config.json"
    config = read_json(file)
    config |= rope_changes(config)
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        raise UserError(f"model: {kind!r} is not written as GGUF; {', '.join(ARCHITECTURES)} are; {LLAMA_CPP}")
    needed = NEEDED + NEEDED_BY_GEMMA if kind == "gemma3_text" else NEEDED
    absent = [key for key in needed if config.get(key) is None]
    if absent:
        raise UserError(f"{file}: has no {', '.join(absent)}, which a GGUF needs; add it")
    problems = [
        f"{key} is {config[key]!r}" for key in ("rope_scaling", "partial_rotary_factor") if config.get(key) is not None
    ]
    if kind == "gemma3_text":
        problems += _gemma_problems(config)
    if problems:
        raise UserError(f"{file}: {'; '.join(problems)}: not written as GGUF here; {LLAMA_CPP}")
    return config


def _gemma_problems(config: dict[str, Any]) -> list[str]:
    """Return each key of Gemma 3 with a value other than the one that llama.cpp assumes."""
    full = [i % GEMMA_PATTERN == GEMMA_PATTERN - 1 for i in range(config["num_hidden_layers"])]
    kinds = config.get("layer_types")
    wanted = {
        "rope_local_base_freq": GEMMA_LOCAL_BASE,
        "query_pre_attn_scalar": config["head_dim"],
        "sliding_window_pattern": GEMMA_PATTERN,
        "final_logit_softcapping": None,
    }
    problems = [f"{key} is {config[key]!r}" for key, value in wanted.items() if config.get(key, value) != value]
    if kinds is not None and [layer == "full_attention" for layer in kinds] != full:
        problems.append(f"layer_types is {kinds}")
    return problems


def _write(
    file: Path,
    base: Path,
    config: dict[str, Any],
    shapes: dict[str, tuple[int, ...]],
    change: Adapter,
    tied: bool,
    quant: Quant,
    stop_ids: Set[int],
) -> int:
    """Write the file; return the number of parameters."""
    import gguf

    from convert.gguf_vocabulary import add_vocabulary

    architecture = ARCHITECTURES[config["model_type"]]
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], config["num_hidden_layers"])
    writer = gguf.GGUFWriter(file, architecture)
    _add_metadata(writer, config, architecture, quant, base.resolve().name)
    add_vocabulary(writer, base, shapes["model.embed_tokens.weight"][0], stop_ids, architecture == "gemma3")
    written = {name: shape for name, shape in shapes.items() if not (tied and name == "lm_head.weight")}
    for name, shape in written.items():
        stored = names.get_name(name, (".weight", ".bias"))
        if stored is None:
            raise UserError(f"{base}: the tensor {name} has no place in a GGUF of {architecture}")
        _add_tensor_info(writer, stored, shape, tensor_type(shape, quant))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, weight in trained_weights(base, change, tied, "float32"):
        writer.write_tensor_data(_stored(name, np.array(weight), config, quant))
    writer.close()
    return sum(int(np.prod(shape)) for shape in written.values())


def tensor_type(shape: tuple[int, ...], quant: Quant) -> gguf.GGMLQuantizationType:
    """Return the type of a tensor: vectors stay in fp32, and rows that 32 does not divide in fp16."""
    import gguf

    if len(shape) == 1:
        return gguf.GGMLQuantizationType.F32
    if quant == "Q8_0" and shape[-1] % 32 == 0:
        return gguf.GGMLQuantizationType.Q8_0
    return gguf.GGMLQuantizationType.F16


def _add_tensor_info(
    writer: gguf.GGUFWriter, name: str, shape: tuple[int, ...], kind: gguf.GGMLQuantizationType
) -> None:
    import gguf

    elements, size = gguf.GGML_QUANT_SIZES[kind]
    plain = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16)}.get(kind.name)
    nbytes = int(np.prod(shape)) // elements * size
    if plain is None:
        byte_shape = gguf.quant_shape_to_byte_shape(shape, kind)
        writer.add_tensor_info(name, byte_shape, np.dtype(np.uint8), nbytes, raw_dtype=kind)
    else:
        writer.add_tensor_info(name, shape, plain, nbytes)


def _stored(name: str, weight: np.ndarray, config: dict[str, Any], quant: Quant) -> np.ndarray:
    """Return a weight as the file stores it: in llama.cpp's order of rows, its type, and for Gemma's norms plus one."""
    import gguf

    kind = config["model_type"]
    if kind == "llama" and (".q_proj." in name or ".k_proj." in name):
        heads = config["num_attention_heads"]
        weight = _interleaved(weight, heads if ".q_proj." in name else config.get("num_key_value_heads", heads))
    if kind == "gemma3_text" and name.endswith("norm.weight"):
        weight = weight + 1
    stored: np.ndarray = gguf.quants.quantize(weight, tensor_type(weight.shape, quant))
    if stored.dtype != np.uint8 and not np.isfinite(stored).all():
        raise UserError(f"{name} is not finite in {quant}; export with --hf --dtype bfloat16; nothing written")
    return np.ascontiguousarray(stored)


def _interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Reorder Llama's q and k for llama.cpp's RoPE, which turns neighbours where transformers turns halves."""
    halves = weight.reshape(heads, 2, -1, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def _add_metadata(writer: gguf.GGUFWriter, config: dict[str, Any], architecture: str, quant: Quant, name: str) -> None:
    """Add what llama.cpp builds the model from."""
    import gguf

    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim")
    writer.add_type("model")
    writer.add_name(name)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads", heads))
    writer.add_rope_freq_base(config.get("rope_theta") or 10000.0)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    if head_dim:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if architecture == "llama":
        writer.add_vocab_size(config["vocab_size"])
        writer.add_rope_dimension_count(head_dim or config["hidden_size"] // heads)
    if architecture == "gemma3":
        writer.add_sliding_window(config["sliding_window"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if quant == "F16" else gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
