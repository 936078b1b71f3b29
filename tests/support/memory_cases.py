"""Peaks of a run: predicted, measured before its start, and measured in one warm-start step and two GRPO steps.

`python -m support.memory_cases`, run in tests/, prints them.

Each case runs in a process of its own, on a model with random weights: an architecture, narrowed or widened, with
its vocabulary as published unless a case says otherwise.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx_grpo  # noqa: F401  (before mlx.core: it loads the BLAS)

# isort: split
import mlx.core as mx
import numpy as np
from support.paths import TESTS
from support.tiny_models import LLAMA, QWEN3, STOP, TEMPLATE, byte_tokenizer
from support.tiny_runs import take_step

from mlx_grpo.config.files import validate
from mlx_grpo.data.batch import make_supervised_batch
from mlx_grpo.data.types import Prompt
from mlx_grpo.models.folder import ModelFolder
from mlx_grpo.models.policy import Policy, load_tokenizer_in, outline
from mlx_grpo.planning.architecture import count
from mlx_grpo.planning.memory import Lengths, Workload, estimate
from mlx_grpo.planning.plan import has_fused_norms
from mlx_grpo.rewards import Scores
from mlx_grpo.training.measure import measured
from mlx_grpo.training.state import TrainState, grpo_optimizer
from mlx_grpo.training.warm_start import supervised_step

SMOL = {
    **LLAMA,
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
SMALL_SMOL = {"hidden_size": 384, "intermediate_size": 1024, "num_attention_heads": 6, "num_key_value_heads": 2}
LARGE_SMOL = {"hidden_size": 960, "intermediate_size": 2560, "num_attention_heads": 15, "num_key_value_heads": 5}
QWEN = {
    **QWEN3,
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "intermediate_size": 3072,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
}
SMALL_QWEN = {"hidden_size": 512, "intermediate_size": 1536, "num_attention_heads": 8, "num_key_value_heads": 4}
LARGE_QWEN = {"hidden_size": 2048, "intermediate_size": 6144}
QWEN35 = {
    "model_type": "qwen3_5",
    "architectures": ["Qwen3_5ForCausalLM"],
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "linear_num_key_heads": 4,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 64,
    "linear_value_head_dim": 64,
    "full_attention_interval": 4,
    "vocab_size": 4096,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}
FULL = {"fine_tune_type": "full"}
CHECKPOINTED = {"gradient_checkpointing": True}


def case(base: dict, layers: int, p: int, g: int, t: int, sizes: dict | None = None, **config: Any) -> dict[str, Any]:
    """Describe a model, a prompt of p tokens, g completions of t tokens, and config keys."""
    arch = {**base, **(sizes or {}), "num_hidden_layers": layers}
    config = {"prompts_per_step": 1, "dtype": "float32", **config}
    return {"arch": arch, "p": p, "config": {**config, "num_generations": g, "max_completion_length": t}}


CASES = {
    "SmolLM2 8 layers, LoRA, quick": case(SMOL, 8, 128, 2, 16),
    "SmolLM2 30 layers, LoRA": case(SMOL, 30, 128, 4, 32),
    "SmolLM2 30 layers, LoRA, warm start": case(SMOL, 30, 200, 2, 16, warm_start={"steps": 1, "batch_size": 2}),
    "SmolLM2 12 layers, LoRA": case(SMOL, 12, 512, 8, 64),
    "SmolLM2 12 layers, LoRA, checkpointed": case(SMOL, 12, 512, 8, 64, **CHECKPOINTED),
    "SmolLM2 12 layers, LoRA, micro 2": case(SMOL, 12, 512, 8, 64, micro_batch_size=2),
    "SmolLM2 12 layers, LoRA, micro 2, KL": case(SMOL, 12, 256, 8, 64, micro_batch_size=2, beta=0.04),
    "SmolLM2 12 layers, LoRA, G 16, 2 prompts": case(SMOL, 12, 128, 16, 48, prompts_per_step=2),
    "SmolLM2 8 layers, LoRA, P 2048": case(SMOL, 8, 2048, 2, 32),
    "SmolLM2 8 layers, LoRA, P 2048, checkpointed": case(SMOL, 8, 2048, 2, 32, **CHECKPOINTED),
    "SmolLM2 8 layers, LoRA, bf16": case(SMOL, 8, 128, 4, 32, dtype="bfloat16"),
    "SmolLM2 12 layers, q and v alone": case(
        SMOL, 12, 256, 4, 32, lora={"keys": ["self_attn.q_proj", "self_attn.v_proj"]}
    ),
    "SmolLM2 12 layers, full": case(SMOL, 12, 256, 4, 32, **FULL),
    "SmolLM2 12 layers, full, checkpointed": case(SMOL, 12, 512, 8, 64, **FULL, **CHECKPOINTED),
    "SmolLM2 12 layers, full, micro 2, 2 prompts": case(
        SMOL, 12, 256, 4, 32, **FULL, **CHECKPOINTED, micro_batch_size=2, prompts_per_step=2
    ),
    "width 384, LoRA, P 1024": case(SMOL, 8, 1024, 8, 32, SMALL_SMOL),
    "width 384, full, G 16": case(SMOL, 8, 128, 16, 32, SMALL_SMOL, **FULL),
    "width 960, LoRA": case(SMOL, 8, 256, 4, 48, LARGE_SMOL),
    "width 960, full, checkpointed": case(SMOL, 6, 256, 4, 32, LARGE_SMOL, **FULL, **CHECKPOINTED),
    "Qwen3 6 layers, LoRA": case(QWEN, 6, 256, 4, 32),
    "Qwen3 6 layers, LoRA, checkpointed": case(QWEN, 6, 512, 8, 32, **CHECKPOINTED),
    "Qwen3 6 layers, LoRA, micro 2": case(QWEN, 6, 512, 8, 32, micro_batch_size=2),
    "Qwen3 3 layers, full, checkpointed": case(QWEN, 3, 128, 2, 16, **FULL, **CHECKPOINTED),
    "Qwen3 width 512, LoRA, P 1024": case(QWEN, 6, 1024, 2, 32, SMALL_QWEN),
    "Qwen3 width 512, full": case(QWEN, 4, 128, 4, 32, SMALL_QWEN, **FULL),
    "Qwen3 width 2048, LoRA": case(QWEN, 3, 256, 2, 32, LARGE_QWEN),
    "Qwen3.5 8 layers, LoRA": case(QWEN35, 8, 64, 2, 16),
    "Qwen3.5 4 layers, LoRA, checkpointed": case(QWEN35, 4, 64, 4, 16, **CHECKPOINTED),
}


def three_peaks(spec: dict[str, Any]) -> tuple[int, int, int]:
    """Return the bytes at a run's peak: predicted, measured before its start, and measured in its steps."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        byte_tokenizer().save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": STOP, "chat_template": TEMPLATE})
        )
        settings = {**spec["arch"], "torch_dtype": "float32", "eos_token_id": spec["arch"]["vocab_size"] - 1}
        (folder / "config.json").write_text(json.dumps(settings))
        config = validate({"model": name, **spec["config"]})
        mx.random.seed(0)
        base = ModelFolder.read(folder)
        policy = Policy(outline(base, config), load_tokenizer_in(base), base)
        sizes = count(policy.model, base, config)
    width = config.max_completion_length
    lengths = Lengths(spec["p"], width if config.warm_start.steps else 0)
    mx.eval(policy.model.parameters())
    rng = np.random.default_rng(0)

    def reward(prompts: list[Prompt], completions: list[str], *_: object) -> Scores:
        values = rng.random(len(completions))
        return Scores(values, {"chance": values})

    # Random prompts begin differently, and random weights hardly ever stop: every completion has its full length.
    prompts = [Prompt(str(i), "", tuple(rng.integers(3, 40000, spec["p"]).tolist())) for i in range(4)]
    state = TrainState(policy, config, reward, grpo_optimizer(config), None)
    work = Workload(sizes, config, lengths, has_fused_norms())
    predicted = estimate(sizes, config, lengths, work.fused)
    before = measured(state, work, predicted)
    state.reference = policy.model.trainable_parameters() if config.beta else None
    peaks = [mx.get_active_memory()]
    if config.warm_start.steps:
        chosen = prompts[: config.warm_start.batch_size]
        batch = make_supervised_batch(chosen, [[3] * width for _ in chosen])
        for _ in range(2):
            supervised_step(state, batch, 0.0)
        state.optimizer = grpo_optimizer(config)
        peaks.append(mx.get_peak_memory())
    for step in range(2):
        metrics, _, _ = take_step(state, prompts, step)
        peaks.append(metrics["peak_memory_gb"] * 2**30)
    return predicted.peak, before.peak, round(max(peaks))


def measure_all(names: list[str]) -> Iterator[tuple[str, int, int, int]]:
    """Measure each case in a process of its own."""
    for name in names:
        done = subprocess.run(
            [sys.executable, "-m", "support.memory_cases", "--one", name], cwd=TESTS, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        yield name, *json.loads(done.stdout.splitlines()[-1])


def row(name: str, predicted: int, before: int, peak: int) -> str:
    """Format a line of the table, in GB, with the errors of the prediction and of the measurement before the run."""
    sizes = " | ".join(f"{size / 2**30:.3f}" for size in (predicted, before, peak))
    return f"| {name} | {sizes} | {predicted / peak - 1:+.1%} | {before / peak - 1:+.1%} |"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(three_peaks(CASES[sys.argv[2]])))
    else:
        print("| case | predicted GB | measured before | in the run | off by | off by |\n" + "| --- " * 6 + "|")
        for result in measure_all(sys.argv[1:] or list(CASES)):
            print(row(*result), flush=True)
