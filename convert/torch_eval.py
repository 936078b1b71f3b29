"""The PyTorch side: greedy completions of a Hugging Face folder by transformers, and its layers' outputs."""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from mlx_grpo.backend import DTYPE_NAMES, openblas
from mlx_grpo.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from transformers import PreTrainedModel

DEVICES = ("auto", "cuda", "mps", "cpu")
NO_TORCH = (
    "the PyTorch evaluation needs torch: pip install 'mlx-grpo[torch]' "
    "(on Linux: --index-url of PyTorch's CPU wheels) or use --backend mlx"
)

MOST_ROWS = 64
"""Prompts completed together by default: a position of 48 rows took 2.3 times as long as one of 16."""

NO_PEFT = "a PEFT adapter is checked with torch and peft: pip install 'mlx-grpo[torch,peft]', or use --no-verify"


def pick_device(name: str = "auto") -> str:
    """Return cuda, mps or cpu: the one named, or for "auto" the first that is there; UserError where it is not."""
    torch = _torch()
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(device for device, there in present.items() if there)
    if name not in DEVICES:
        raise UserError(f"device {name!r} is not one of {', '.join(DEVICES)}")
    if not present[name]:
        there = ", ".join(device for device in present if present[device])
        raise UserError(f"device {name!r} is not available to PyTorch on this machine; available: {there}")
    return name


def generate(
    model_dir: Path,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    device: str = "auto",
    dtype: str = "float32",
    batch_size: int = MOST_ROWS,
    on_batch: Callable[[list[list[int]]], None] | None = None,
) -> list[list[int]]:
    """Return greedy completions of `prompts` (token ids) in their order, each cut after its first stop token.

    Batches are padded on the left; a completion does not depend on its neighbours. `on_batch` is given
    each finished batch. Raises UserError for an unusable argument, folder or device.
    """
    _check(model_dir, prompts, max_new_tokens, dtype, batch_size)
    if not prompts:
        return []
    torch = _torch()
    with quiet(), _one_blas_thread(), torch.inference_mode():
        model = _load(model_dir, pick_device(device), dtype, max_new_tokens, stop_ids)
        completions: list[list[int]] = []
        for start in range(0, len(prompts), batch_size):
            completions += _complete(model, prompts[start : start + batch_size], stop_ids)
            if on_batch is not None:
                on_batch(completions[start:])
    return completions


def layer_outputs(
    model_dir: Path, prompts: Sequence[Sequence[int]], peft: Path | None = None
) -> list[np.ndarray]:  # fp32, each [positions of all prompts, width]
    """Return each layer's hidden states and last the logits, computed on the CPU in fp32, with a PEFT adapter if given.

    Raises UserError for an unusable folder, and where torch is missing (peft: `require_peft`).
    """
    torch = _torch()
    with quiet(), _one_blas_thread(), torch.inference_mode():
        model = _load(model_dir, "cpu", "float32", max_new_tokens=1, stop_ids=())
        if peft is not None:
            model = _with_adapter(model, peft)
        states: list[Tensor] = []
        for layer in model.get_decoder().layers:
            layer.register_forward_hook(lambda _layer, _inputs, output: states.append(output))
        passes = []
        for ids in prompts:
            states.clear()
            logits = model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits  # [1, positions, vocab]
            passes.append([state[0] for state in (*states, logits)])
        return [torch.cat(parts).numpy() for parts in zip(*passes, strict=True)]


def require_peft() -> None:
    """Raise UserError with the remedy where torch or peft is missing."""
    if not (find_spec("torch") and find_spec("peft")):
        raise UserError(NO_PEFT)


def _with_adapter(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tied embeddings: advice about merging
        return PeftModel.from_pretrained(model, folder).get_base_model().eval()


def _torch() -> ModuleType:
    try:
        import torch
    except ImportError as error:
        raise UserError(NO_TORCH) from error
    return torch


def _check(model_dir: Path, prompts: Sequence[Sequence[int]], max_new_tokens: int, dtype: str, batch_size: int) -> None:
    problems = [f"prompt {i} has no tokens" for i, prompt in enumerate(prompts) if not prompt]
    if max_new_tokens < 1 or batch_size < 1:
        problems.append(f"max_new_tokens is {max_new_tokens} and batch_size {batch_size}; both must be at least 1")
    if dtype not in DTYPE_NAMES:
        problems.append(f"dtype {dtype!r} is not one of {', '.join(DTYPE_NAMES)}")
    if not (model_dir / "config.json").is_file():
        problems.append(f"{model_dir}: is not a Hugging Face model folder (no config.json)")
    if problems:
        raise UserError(*problems)


def _load(model_dir: Path, device: str, dtype: str, max_new_tokens: int, stop_ids: Sequence[int]) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    try:
        model = AutoModelForCausalLM.from_pretrained(
            model_dir,
            dtype=getattr(torch, dtype),
            local_files_only=True,
            use_safetensors=True,  # a pickle may run code when it is read
            trust_remote_code=False,
        )
    except (OSError, ValueError) as error:
        raise UserError(f"{model_dir}: transformers cannot load it: {error}") from error
    # In place of the folder's own, whose sampling settings would make transformers warn about greedy search.
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=list(stop_ids) or None,
        pad_token_id=next(iter(stop_ids), 0),
        # The default cache is copied for each position. SmolLM2, 48 rows of 180 tokens: 1.3 s a position, 0.8 without.
        cache_implementation="static" if device == "cpu" else None,
        disable_compile=True,
    )
    return model.to(device).eval()


def _complete(model: PreTrainedModel, prompts: Sequence[Sequence[int]], stop_ids: Sequence[int]) -> list[list[int]]:
    ids, mask = _left_pad(prompts, model.generation_config.pad_token_id)
    output = model.generate(input_ids=ids.to(model.device), attention_mask=mask.to(model.device))
    return [_cut(row, stop_ids) for row in output[:, ids.shape[1] :].tolist()]


def _left_pad(prompts: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Return ids and mask, i64 [B, longest]; transformers counts positions from the mask's first 1."""
    import torch

    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids, mask


def _cut(completion: list[int], stop_ids: Sequence[int]) -> list[int]:
    """Cut a completion after its first stop token: [5, 6, stop, pad, pad] -> [5, 6, stop]."""
    ends = (i + 1 for i, token in enumerate(completion) if token in stop_ids)
    return completion[: next(ends, None)]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' loading bars and advice off the screen within the block."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """Hold the OpenBLAS that MLX's CPU build got to one thread while PyTorch computes.

    PyTorch's products find it too, before PyTorch's own MKL. Its idle threads then spin against PyTorch's: 2.5 times
    slower on two cores.
    """
    library = ctypes.CDLL(openblas.BLAS) if openblas.BLAS else None
    if library is None or not hasattr(library, "openblas_set_num_threads"):  # MLX_GRPO_BLAS may name another BLAS
        yield
        return
    threads = library.openblas_get_num_threads()
    library.openblas_set_num_threads(1)
    try:
        yield
    finally:
        library.openblas_set_num_threads(threads)
