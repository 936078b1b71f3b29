"""mlx-lm adapter -> PEFT adapter folder, for `peft.PeftModel.from_pretrained` and what else reads its format."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import mlx.core as mx

from convert.adapter import Adapter, is_embedding, load_adapter
from convert.folder import refuse_foreign, whole_folder
from convert.hf import MARKER, ExportSummary, base_shapes, copy_files
from convert.layout import NESTED_ON_THE_HUB
from convert.torch_eval import require_peft
from convert.verify import verify_peft
from mlx_grpo.errors import UserError
from mlx_grpo.json_files import read_json, write_json


def export_peft(
    base: Path,
    out: Path,
    *,
    adapter: Path,
    base_name: str,
    card: str | None = None,
    extra_files: Sequence[Path] = (),
    verify: bool = False,
) -> ExportSummary:
    """Write an mlx-lm LoRA `adapter` as a PEFT folder `out`, in fp32; PEFT finds the base model as `base_name`.

    The folder appears whole or not at all; with `verify` only after PyTorch has loaded it and agrees. Raises UserError
    for a full fine-tune, a base that PyTorch can't load, and an adapter that does not fit the base.
    """
    refuse_foreign(out, MARKER)
    if verify:
        require_peft()
    change, modules, tied = _read(base, adapter)
    tensors = _tensors(change, tied)
    dropout = read_json(adapter / "adapter_config.json")["lora_parameters"].get("dropout", 0.0)
    settings = {"base_model_name_or_path": base_name, "lora_dropout": dropout, **_settings(change, modules, tied)}
    with whole_folder(out, MARKER) as folder:
        write_json(folder / "adapter_config.json", settings)
        mx.save_safetensors(str(folder / "adapter_model.safetensors"), tensors, metadata={"format": "pt"})
        copy_files(base, folder, card, extra_files)
        verification = verify_peft(base, folder, adapter=adapter) if verify else None
        files = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
        size = sum(tensor.size for tensor in tensors.values())
        summary = ExportSummary(
            base.resolve().name, "lora", "float32", size, change.size, files, verification=verification
        )
        write_json(folder / MARKER, asdict(summary))
    return summary


def _read(base: Path, adapter: Path) -> tuple[Adapter, set[str], bool]:
    """Return the adapter, the base's modules that have a matrix, and True if its head is its embedding.

    Of a model that also reads images PyTorch takes the text model alone, so its tensors have that one's names.
    """
    config = read_json(base / "config.json")
    if "quantization" in config:
        raise UserError(f"{base}: is quantized for MLX and PyTorch can't load it; export with --hf instead")
    shapes = base_shapes(base)
    change = load_adapter(adapter, shapes)
    if change.kind != "lora":
        raise UserError(f"{adapter}: is a full fine-tune, which has no adapter; export with --hf instead")
    names = {name for name, shape in shapes.items() if len(shape) == 2}
    if "text_config" in config:
        names = {_in_text_model(name) for name in names if not name.startswith(("model.visual.", "mtp."))}
        change = replace(change, pairs={_in_text_model(name): pair for name, pair in change.pairs.items()})
    modules = {name.removesuffix(".weight") for name in names}
    return change, modules, bool(config.get("tie_word_embeddings", "lm_head" not in modules))


def _in_text_model(name: str) -> str:
    return f"model.{name.removeprefix(NESTED_ON_THE_HUB)}" if name.startswith(NESTED_ON_THE_HUB) else name


def _tensors(change: Adapter, tied: bool) -> dict[str, mx.array]:
    """Return PEFT's names and shapes: A [r, in] and B [out, r]; of an embedding A [r, vocab] and B [hidden, r]."""
    tensors: dict[str, mx.array] = {}
    for name, (a, b, _) in change.pairs.items():
        module = f"base_model.model.{name.removesuffix('.weight')}"
        if is_embedding(name):
            tensors |= {f"{module}.lora_embedding_A": a.T, f"{module}.lora_embedding_B": b.T}
        else:
            tensors |= {f"{module}.lora_A.weight": a.T, f"{module}.lora_B.weight": b.T}
        if is_embedding(name) and tied:  # PEFT expects the head's pair too, which is the embedding's transposed
            tensors |= {"base_model.model.lm_head.lora_A.weight": b, "base_model.model.lm_head.lora_B.weight": a}
    return {name: tensor.astype(mx.float32) for name, tensor in tensors.items()}


def _settings(change: Adapter, modules: Set[str], tied: bool) -> dict[str, Any]:
    a, _, scale = next(iter(change.pairs.values()))
    rank = a.shape[1]
    alpha = scale * rank  # PEFT scales by lora_alpha / r
    targets, layers = _targets({name.removesuffix(".weight") for name in change.pairs}, modules)
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "target_modules": targets,
        "layers_to_transform": layers,
        "layers_pattern": "layers" if layers else None,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
    } | ({"ensure_weight_tying": True} if tied and any(map(is_embedding, change.pairs)) else {})


def _targets(adapted: Set[str], modules: Set[str]) -> tuple[list[str], list[int] | None]:
    """Return PEFT's target_modules and layers_to_transform that select `adapted` among the model's `modules`.

    {"model.layers.1.self_attn.q_proj"} of two layers -> ["q_proj"], [1]. Every module is named in full where last
    names and layers would select others as well.
    """
    matches = {module: re.match(r".*?\.layers\.(\d+)\.", module) for module in modules}
    layer_of = {module: int(match[1]) for module, match in matches.items() if match}
    names = {_last(module) if module in layer_of else module for module in adapted}
    layers = {layer_of[module] for module in adapted if module in layer_of}
    selected = {m for m in modules if m in names or (_last(m) in names and layer_of.get(m) in layers)}
    if selected != adapted:
        return sorted(adapted), None
    return sorted(names), sorted(layers) if layers < set(layer_of.values()) and layers else None


def _last(module: str) -> str:
    return module.rpartition(".")[2]
