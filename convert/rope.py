"""Rotary positions as config.json describes them, moved to the keys where mlx-lm reads them.

transformers 5 nests all of it in `rope_parameters`. Most of mlx-lm's models read `rope_theta`, `rope_scaling` and
`partial_rotary_factor` at the top, and compute plain RoPE without a word where they find none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import mlx_grpo.backend.openblas  # noqa: F401  (before mlx.core: it loads the BLAS)

# isort: split
import mlx.nn as nn
from mlx_lm.models.rope_utils import DynamicNTKScalingRoPE, Llama3RoPE, ProportionalRoPE, SuScaledRoPE, YarnRoPE

from mlx_grpo.errors import UserError, short_repr

MODULES: dict[str, type[nn.Module]] = {
    "default": nn.RoPE,
    "linear": nn.RoPE,
    "mrope": nn.RoPE,
    "dynamic": DynamicNTKScalingRoPE,
    "llama3": Llama3RoPE,
    "yarn": YarnRoPE,
    "deepseek_yarn": YarnRoPE,
    "telechat3-yarn": YarnRoPE,
    "longrope": SuScaledRoPE,
    "proportional": ProportionalRoPE,
}
"""The module with which mlx-lm computes each `rope_type`."""

Rope = dict[str, Any]
"""A RoPE's `rope_type`, and whatever else config.json sets of it: `rope_theta`, `partial_rotary_factor`, `factor`."""

Problem = tuple[str, str]
"""A key of a RoPE, and why it is refused."""


def rope_changes(config: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of config.json to change for mlx-lm to compute the RoPE that transformers does."""
    if isinstance(config.get("text_config"), dict):
        inner = rope_changes(config["text_config"])
        return {"text_config": config["text_config"] | inner} if inner else {}
    ropes = _ropes(config)
    if "" in ropes:
        wanted = _at_the_top(ropes[""])
    elif config.get("model_type") == "gemma3_text":
        local = ropes.get("sliding_attention", {}).get("rope_theta")
        wanted = _at_the_top(ropes["full_attention"]) | {"rope_local_base_freq": local}
    else:
        return {}  # models with a RoPE for each type of layer read rope_parameters themselves
    kept = {key: value for key, value in wanted.items() if value is not None or key == "rope_scaling"}
    return {key: value for key, value in kept.items() if value != config.get(key)}


def check_rope_keys(config: dict[str, Any], file: Path) -> None:
    """Raise UserError naming each RoPE key of config.json (`file`) with a value that mlx-lm computes otherwise."""
    _refuse(config, file, _unread)


def check_rope_modules(model: nn.Module, config: dict[str, Any], file: Path) -> None:
    """Raise UserError naming each RoPE key of config.json (`file`) that mlx-lm's model of this family left out."""
    _refuse(config, file, partial(_left_out, model))


def _refuse(config: dict[str, Any], file: Path, problems_of: Callable[[Rope, dict[str, Any]], list[Problem]]) -> None:
    text = config.get("text_config")
    settings = text if isinstance(text, dict) else config
    place = "rope_scaling" if settings.get("rope_scaling") else "rope_parameters"
    problems = [
        f"model: {file}: {'.'.join([place, *filter(None, [name]), key])} is {short_repr(rope.get(key))}: {problem}"
        for name, rope in _ropes(settings).items()
        for key, problem in problems_of(rope, settings)
    ]
    if problems:
        raise UserError(*problems)


def _ropes(config: dict[str, Any]) -> dict[str, Rope]:
    """Return the RoPE of each type of layers, or one under "" for all, with every default that transformers fills in.

    Source: `RotaryEmbeddingConfigMixin` in transformers/modeling_rope_utils.py.
    """
    stated = config.get("rope_scaling") or config.get("rope_parameters") or {}
    nested = {name: rope for name, rope in stated.items() if isinstance(rope, dict)}
    return {name: _filled(rope, config) for name, rope in (nested or {"": stated}).items()}


def _filled(stated: Rope, config: dict[str, Any]) -> Rope:
    rope = {key: value for key, value in stated.items() if value is not None and key != "type"}
    rope["rope_type"] = stated.get("rope_type") or stated.get("type") or "default"
    if rope["rope_type"] == "su":
        rope["rope_type"] = "longrope"
    for key in ("rope_theta", "partial_rotary_factor"):
        if config.get(key) is not None:
            rope.setdefault(key, config[key])
    if rope["rope_type"] in ("llama3", "yarn", "longrope"):
        top = config.get("original_max_position_embeddings")
        if top is not None:
            rope["original_max_position_embeddings"] = top
        else:
            rope.setdefault("original_max_position_embeddings", config.get("max_position_embeddings"))
    return rope


def _at_the_top(rope: Rope) -> dict[str, Any]:
    """Return a RoPE as the keys at the top of config.json."""
    scaling = {key: value for key, value in rope.items() if key not in ("rope_theta", "partial_rotary_factor")}
    return {
        "rope_theta": rope.get("rope_theta"),
        "partial_rotary_factor": rope.get("partial_rotary_factor"),
        "rope_scaling": None if rope["rope_type"] == "default" else scaling | {"type": rope["rope_type"]},
    }


def _unread(rope: Rope, config: dict[str, Any]) -> list[Problem]:
    """Return each key whose value changes what transformers computes and not what mlx-lm does, with the remedy."""
    kind = rope["rope_type"]
    if kind not in MODULES:
        return [("rope_type", f"mlx-lm has no such RoPE; take a model with one of {', '.join(MODULES)}")]
    if kind == "yarn":
        return _unread_of_yarn(rope)
    if kind == "longrope":
        return _unread_of_longrope(rope, config)
    return []


def _unread_of_yarn(rope: Rope) -> list[Problem]:
    def scale(strength: float) -> float:
        return 0.1 * strength * math.log(max(rope["factor"], 1.0)) + 1.0

    mscale, all_dim = rope.get("mscale"), rope.get("mscale_all_dim")
    in_mlx = scale(1.0 if mscale is None else mscale) / scale(all_dim or 0.0)
    in_torch = scale(mscale) / scale(all_dim) if mscale and all_dim else scale(1.0)
    truncated = [("truncate", "mlx-lm always truncates; take another model")] if rope.get("truncate") is False else []
    return truncated + _other_scale(rope, ("attention_factor", "mscale", "mscale_all_dim"), in_torch, in_mlx)


def _unread_of_longrope(rope: Rope, config: dict[str, Any]) -> list[Problem]:
    original = rope["original_max_position_embeddings"]
    ratio = config["max_position_embeddings"] / original

    def scale(factor: float) -> float:
        return math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0

    problems = _other_scale(rope, ("attention_factor", "factor"), scale(rope.get("factor", ratio)), scale(ratio))
    if rope["short_factor"] != rope["long_factor"]:
        problem = "mlx-lm uses long_factor for short sequences too; take a model without it, such as one for 4k tokens"
        problems.append(("short_factor", problem))
    return problems


def _other_scale(rope: Rope, keys: Sequence[str], in_torch: float, in_mlx: float) -> list[Problem]:
    """Return the first key that is set, where transformers scales attention otherwise than mlx-lm does."""
    in_torch = rope.get("attention_factor", in_torch)
    if math.isclose(in_mlx, in_torch, rel_tol=1e-6):
        return []
    key = next(key for key in keys if key in rope)
    return [(key, f"it scales attention by {in_torch:.4g}, and mlx-lm by {in_mlx:.4g}; take another model")]


def _left_out(model: nn.Module, rope: Rope, config: dict[str, Any]) -> list[Problem]:
    """Return the keys that a loaded model's RoPE modules show no trace of."""
    remedy = f"mlx-lm's {model.model_type} leaves it out; take another model"
    kind = rope["rope_type"]
    modules: list[Any] = [module for module in model.modules() if isinstance(module, tuple(MODULES.values()))]
    if not modules:
        return []  # a family with RoPE modules of its own
    of_kind = [module for module in modules if type(module) is MODULES[kind]]
    if kind == "dynamic" and of_kind:  # it needs one position for all rows, and rows that decode have their own
        return [("rope_type", "it changes nothing up to max_position_embeddings, and is not supported; remove it")]
    if not of_kind:
        return [("rope_type", remedy)]
    problems = []
    if kind == "linear" and all(module.scale != 1 / rope["factor"] for module in of_kind):
        problems.append(("factor", remedy))
    if kind in ("default", "mrope") and all(module.base != rope.get("rope_theta", module.base) for module in of_kind):
        problems.append(("rope_theta", remedy))
    share = rope.get("partial_rotary_factor", 1.0)
    if share != 1.0 and kind != "proportional":  # that one has all dimensions, and turns some by 0
        head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        if all(_turned(module) != int(head * share) for module in of_kind):
            problems.append(("partial_rotary_factor", remedy))
    return problems


def _turned(module: nn.Module) -> int:
    """Return how many of a head's dimensions a RoPE module turns."""
    return module.dim if isinstance(module, SuScaledRoPE) else module.dims
