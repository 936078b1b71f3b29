"""The policy: load it, make it trainable, lend it its reference's parameters, save and load its adapter."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.tuner.utils import linear_to_lora_layers, load_adapters
from mlx_lm.utils import dequantize_model, load_model, load_tokenizer
from mlx_lm.utils import load as load_model_and_tokenizer

from convert.rope import check_rope_keys, check_rope_modules
from convert.settings import config_changes, correct
from mlx_grpo.backend.device import DTYPES, auto_dtype, multiplies_packed, set_memory_limits, this_device
from mlx_grpo.backend.exponential import replace_swiglu
from mlx_grpo.config.schema import Config
from mlx_grpo.data.types import LengthLimit
from mlx_grpo.errors import UserError
from mlx_grpo.models.checks import (
    check_family,
    check_tokenizer,
    check_tokenizer_files,
    check_weights,
    faults_as_user_error,
)
from mlx_grpo.models.experts import check_frozen_experts, lora_keys
from mlx_grpo.models.folder import ModelFolder
from mlx_grpo.models.head import check_head, check_layout, text_model
from mlx_grpo.models.hub import CARD_SOURCES, download
from mlx_grpo.models.stops import stop_tokens

ADAPTER_WEIGHTS = "adapters.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
NO_CODE = {"trust_remote_code": False}  # unset, transformers would ask at the terminal whether to run a model's code
TOKENIZER_FILES = ("*.json", "*.jinja", "tokenizer.model", "*.txt")
# What mlx-lm and the exporter read; anything else in a Hub repository (ONNX, GGUF, pickles, Mistral's
# consolidated.safetensors) stays there.
HUB_FILES = (*TOKENIZER_FILES, "model*.safetensors", *CARD_SOURCES)


@dataclass(frozen=True, slots=True)
class Policy:
    """A model with its tokenizer and the folder of its base."""

    model: nn.Module
    tokenizer: TokenizerWrapper
    base: ModelFolder

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Return the tokens that end a completion, ascending."""
        return tuple(sorted(self.tokenizer.eos_token_ids))

    @property
    def length_limit(self) -> LengthLimit:
        """Return the most tokens of a prompt with its completion."""
        limit = self.base.length_limit
        default = vars(text_model(self.model).args).get("max_position_embeddings")
        return limit if limit.tokens else LengthLimit(default)


def model_name(model: str) -> str:
    """Return a model's name for a run's files: its Hub id, or its folder's name without the private path."""
    return Path(model).name if Path(model).is_dir() else model


def find_model(model: str, files: tuple[str, ...] = HUB_FILES) -> Path:
    """Return the folder of a model given by path or Hub id; download what the Hub's cache lacks.

    Raises UserError if it is neither, or if the cache lacks it and the Hub can't be reached.
    """
    if Path(model).is_file():
        raise UserError(
            f"model: {model} is a file; give a folder in the Hugging Face format "
            "(`python -m convert.gguf` makes one of a GGUF)"
        )
    if Path(model).is_dir():
        if not (Path(model) / "config.json").is_file():
            raise UserError(f"model: {model} has no config.json; give a folder in the Hugging Face format")
        return Path(model)
    return download(model, files)


def load_policy(config: Config) -> Policy:
    """Load the base model and make it trainable, as LoRA adapters or in full; dropout stays off until training."""
    folder = ModelFolder.read(find_model(config.model))
    mx.random.seed(config.seed)  # LoRA's starting matrices
    folder.check_quantization()
    if config.fine_tune_type == "full" and folder.is_packed:
        raise UserError(
            f"fine_tune_type: full, but {model_name(config.model)} is quantized, and packed weights cannot learn; "
            "use fine_tune_type lora, or the model that it was quantized from"
        )
    model, tokenizer = _load(folder)
    make_trainable(model, config)
    model.eval()
    mx.eval(model.parameters())
    check_range(model)
    check_head(model)
    return Policy(model, tokenizer, folder)


def make_trainable(model: nn.Module, config: Config) -> None:
    """Give the model its dtype and its trainable parameters, without computing anything yet."""
    if config.fine_tune_type == "lora":
        model.set_dtype(compute_dtype(config.dtype))
        model.freeze()
        linear_to_lora_layers(model, config.lora.num_layers, lora_parameters(model, config))
    else:
        # Adam's steps vanish in bf16 (0.02 + 1e-6 is 0.02), so a full fine-tune computes on its fp32 weights.
        model.set_dtype(mx.float32)
    check_frozen_experts(model, config.fine_tune_type)
    if not tree_flatten(model.trainable_parameters()):
        raise UserError(f"lora.keys: {config.lora.keys} matches no linear layer of this model; leave it out for all")


def _load(folder: ModelFolder) -> tuple[nn.Module, TokenizerWrapper]:
    check_family(folder.settings, folder.config_file)
    check_weights(folder.path)
    check_tokenizer_files(folder.path)
    set_memory_limits()
    with faults_as_user_error(f"model: {folder.path}", "give a complete folder, or fetch it again"):
        check_rope_keys(folder.settings, folder.config_file)
        model, tokenizer = load_model_and_tokenizer(
            str(folder.path), tokenizer_config=NO_CODE, model_config=config_changes(folder.settings)
        )
        check_rope_modules(model, folder.settings, folder.config_file)
    correct(model, folder.path)
    replace_swiglu(model)
    tokenizer.eos_token_ids = stop_tokens(folder, tokenizer)
    check_tokenizer(folder.path, tokenizer, folder.text_settings)
    if folder.is_packed and not multiplies_packed(this_device()):
        model = _unpacked(model)
    return model, tokenizer


def _unpacked(model: nn.Module) -> nn.Module:
    """Turn packed weights into the fp32 ones they stand for; rounded scales would round them too."""
    model.set_dtype(mx.float32)
    return dequantize_model(model)


def outline(folder: ModelFolder, config: Config, bits: int | None = None, packed: bool = True) -> nn.Module:
    """Build the model in training as `load_policy` does, from config.json alone: its arrays have no values.

    Evaluated, it is a model with random weights. `bits` quantizes a plain base. A quantized base is unpacked
    unless the device keeps it `packed`.
    """
    folder.check_quantization()
    check_family(folder.settings, folder.config_file)
    try:
        check_rope_keys(folder.settings, folder.config_file)
        changes = config_changes(folder.settings)
        model, _ = load_model(folder.path, lazy=True, strict=False, model_config=changes)
        check_rope_modules(model, folder.settings, folder.config_file)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"model: {folder.config_file} describes no model that mlx-lm knows ({error}); correct it, or fetch it again"
        ) from None
    check_layout(model)
    quantization = {"group_size": 64, "bits": bits} if bits else folder.quantization
    if quantization and not _has_packed_layers(model):
        _quantize(model, quantization)
    if not packed and _has_packed_layers(model):
        model = _unpacked(model)
    make_trainable(model, config)
    model.eval()
    return model


def _has_packed_layers(model: nn.Module) -> bool:
    return any(isinstance(module, nn.QuantizedLinear) for module in model.modules())


def _quantize(model: nn.Module, quantization: dict[str, Any]) -> None:
    """Pack every layer whose width is a multiple of the group size."""
    size = quantization["group_size"]

    def divides(_: str, module: nn.Module) -> bool:
        return isinstance(module, (nn.Linear, nn.Embedding)) and module.weight.shape[-1] % size == 0

    nn.quantize(model, group_size=size, bits=quantization["bits"], class_predicate=divides)


def compute_dtype(name: str) -> mx.Dtype:
    """Return the dtype of the base weights; `auto` chooses the one that suits this device."""
    if name == "auto":
        name, _ = auto_dtype(this_device())
    return DTYPES[name]


def check_range(model: nn.Module) -> None:
    """Raise UserError if activations leave the dtype's range, as large ones do in float16 at the first token."""
    if not mx.isfinite(model(mx.array([[0, 1, 2]]))).all().item():
        raise UserError("dtype: this model's activations are too large for it; set dtype: float32")


def lora_parameters(model: nn.Module, config: Config) -> dict[str, Any]:
    """Return the LoRA settings under the names of mlx-lm's adapter_config.json."""
    lora = config.lora
    keys = lora_keys(model, lora.keys)
    return {"rank": lora.rank, "scale": lora.scale, "dropout": lora.dropout, "keys": keys}


@contextmanager
def swapped(model: nn.Module, parameters: dict[str, Any]) -> Iterator[None]:
    """Lend the model other trainable parameters; with the starting ones it is its own KL reference.

    Arrays are immutable, so holding a run's first parameters costs memory only once training replaces them.
    """
    current = model.trainable_parameters()
    model.update(parameters)
    try:
        yield
    finally:
        model.update(current)


def save_adapter(policy: Policy, config: Config, folder: Path) -> None:
    """Write the trained parameters in the form that `mlx_lm.generate --adapter-path` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = dict(tree_flatten(policy.model.trainable_parameters()))
    # Renamed when whole: a fault never leaves half an adapter, and a checkpoint's link to the old one keeps it.
    temporary = folder / f".{ADAPTER_WEIGHTS}"
    mx.save_safetensors(str(temporary), weights)
    temporary.replace(folder / ADAPTER_WEIGHTS)
    settings = {
        "model": model_name(config.model),
        "fine_tune_type": config.fine_tune_type,
        "num_layers": config.lora.num_layers,
        "lora_parameters": lora_parameters(policy.model, config),
    }
    (folder / ADAPTER_CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def load_adapter(policy: Policy, folder: Path) -> None:
    """Load an adapter that `save_adapter` wrote into a policy made with the same settings."""
    with faults_as_user_error(f"adapter: {folder / ADAPTER_WEIGHTS}", "train it again"):
        weights = cast(dict[str, mx.array], mx.load(str(folder / ADAPTER_WEIGHTS)))
    expected = {name: w.shape for name, w in tree_flatten(policy.model.trainable_parameters())}
    if expected != {name: w.shape for name, w in weights.items()}:
        raise UserError(f"{folder}: its adapter does not fit this model and LoRA settings; use the run's own config")
    policy.model.update(tree_unflatten(list(weights.items())))


def load_for_inference(model: Path, adapter: Path | None, dtype: str = "auto") -> Policy:
    """Load a base model for generation only, with an adapter if one is given."""
    folder = ModelFolder.read(model)
    loaded, tokenizer = _load(folder)
    loaded.set_dtype(compute_dtype(dtype))
    if adapter is not None:
        with faults_as_user_error(f"adapter: {adapter}", "give the adapter that was trained on this model"):
            loaded = load_adapters(loaded, str(adapter))
    loaded.eval()
    return Policy(loaded, tokenizer, folder)


def load_tokenizer_of(model: str | Path) -> TokenizerWrapper:
    """Load a model's tokenizer, with every stop token that `stop_tokens` finds; fetch no weights."""
    return load_tokenizer_in(ModelFolder.read(find_model(str(model), TOKENIZER_FILES)))


def load_tokenizer_in(folder: ModelFolder) -> TokenizerWrapper:
    """Load the tokenizer of a folder at hand, with every stop token that `stop_tokens` finds."""
    check_tokenizer_files(folder.path)
    set_memory_limits()
    with faults_as_user_error(f"model: {folder.path}", "give a complete folder, or fetch it again"):
        tokenizer = load_tokenizer(folder.path, NO_CODE, eos_token_ids=folder.settings.get("eos_token_id"))
    tokenizer.eos_token_ids = stop_tokens(folder, tokenizer)
    check_tokenizer(folder.path, tokenizer, folder.text_settings)
    return tokenizer


def trained_dtype(fine_tune_type: str, dtype: str) -> str:
    """Return the dtype that a run computed in, by its name in a config."""
    return "float32" if fine_tune_type == "full" else str(compute_dtype(dtype)).rpartition(".")[2]


def token_counter(model: str) -> Callable[[str], int]:
    """Return a function that counts a text's tokens by a model's tokenizer, for budgets."""
    tokenizer = load_tokenizer_of(model)
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))
