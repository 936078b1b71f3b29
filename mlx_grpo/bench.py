"""`mlx-grpo bench`: where a step's time goes on this machine, and what sharing the prompt saves."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from rich.console import Console

from mlx_grpo.config.schema import Config
from mlx_grpo.data.batch import make_batch, split_batch
from mlx_grpo.data.dataset import check_lengths, dataset_files, load_prompts
from mlx_grpo.data.types import Batch, Prompt, Rollout
from mlx_grpo.distributed.ranks import Ranks
from mlx_grpo.generation.rollout import generate
from mlx_grpo.generation.sampling import Sampling
from mlx_grpo.models.logps import output_head, score_tokens
from mlx_grpo.models.policy import load_policy, model_name
from mlx_grpo.models.prefix import shares_prompt
from mlx_grpo.planning.architecture import head_size
from mlx_grpo.reporting.tables import console_table
from mlx_grpo.rewards import load_reward
from mlx_grpo.training.accumulate import accumulate
from mlx_grpo.training.optimizer import apply_update
from mlx_grpo.training.state import Learner, grpo_optimizer

MATRIX = 1024
"""Side of the square matrices whose product is the machine's measured speed."""


PARTS = ("prefill", "decode", "reward", "train", "update")
"""Of a step, one after the other; the update begins with the sum of all processes' gradients."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One prompt of P tokens, G completions of T tokens each."""

    prompt_tokens: int
    num_generations: int
    completion_tokens: int

    @classmethod
    def parse(cls, text: str) -> Shape:
        """`750x8x96` as P = 750, G = 8, T = 96; raises ValueError for anything else."""
        prompt_tokens, num_generations, completion_tokens = (int(part) for part in text.split("x"))
        if min(prompt_tokens, num_generations, completion_tokens) < 1:
            raise ValueError(text)
        return cls(prompt_tokens, num_generations, completion_tokens)


def bench(
    config: Config,
    shapes: Sequence[Shape],
    repeats: int,
    plain: bool,
    on_progress: Callable[[str], None],
    ranks: Ranks | None = None,
) -> dict[str, Any]:
    """Time each part of a step for each shape; medians of `repeats`, seconds and GiB of one process.

    Completions are sampled by the configured policy and go on to their full length whatever they say. Of several
    processes each takes a prompt of its own, and what is timed is the first one's, waiting included. `plain` has
    the training half timed with the prompt run for each completion too.
    """
    policy = load_policy(config)
    learner = Learner(policy, config, load_reward(config.reward), grpo_optimizer(config), None, ranks or Ranks())
    row = load_prompts(dataset_files(config.data)[0], policy.tokenizer, config.data.enable_thinking)[0]
    for shape in shapes:
        longest = policy.model.args.max_position_embeddings
        check_lengths([prompt_of_length(row, shape.prompt_tokens)], shape.completion_tokens, longest)
    speed = matrix_speed(policy.model.model.norm.weight.dtype)
    results = []
    for shape in shapes:
        on_progress(f"P={shape.prompt_tokens} G={shape.num_generations} T={shape.completion_tokens}")
        results.append(time_shape(learner, prompt_of_length(row, shape.prompt_tokens), shape, repeats, plain, speed))
    return {
        "model": config.model,
        "fine_tune_type": config.fine_tune_type,
        "micro_batch_size": config.micro_batch_size,
        "gradient_checkpointing": config.gradient_checkpointing,
        "processes": learner.ranks.size,
        "mlx": mx.__version__,
        "device": str(mx.default_device()),
        "matrix_gflops": speed / 1e9,
        "shapes": results,
    }


def time_shape(
    learner: Learner, prompt: Prompt, shape: Shape, repeats: int, plain: bool, speed: float
) -> dict[str, float]:
    """The median seconds of each part of a step, and what they come to beside a matrix product's `speed` [FLOP/s]."""
    timed = [time_step(learner, prompt, shape, plain) for _ in range(repeats + 1)][1:]  # the first one warms up
    result = {name: median(times[name] for times in timed) for name in timed[0]}
    completions = learner.ranks.size * shape.num_generations
    flops = training_flops(learner.policy.model, shape, learner.config.fine_tune_type == "full")
    result["tokens_per_s"] = completions * shape.completion_tokens / result["step"]
    result["share_of_matrix_speed"] = flops / result["train"] / speed
    return {**asdict(shape), **result}


def prompt_of_length(row: Prompt, length: int) -> Prompt:
    """A row of the dataset with its tokens repeated or cut to a length."""
    return Prompt(row.id, row.text, (row.token_ids * -(-length // len(row.token_ids)))[:length], row.columns)


def matrix_speed(dtype: mx.Dtype, side: int = MATRIX) -> float:
    """Floating point operations a second in a large matrix product."""
    a = mx.random.normal((side, side)).astype(dtype)
    mx.eval(a)
    times = [timed(lambda: mx.eval([a @ a for _ in range(8)]))[0] for _ in range(4)]
    return 8 * 2 * side**3 / min(times)


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what the function returned."""
    started = time.perf_counter()
    result = run()
    return time.perf_counter() - started, result


def time_step(learner: Learner, prompt: Prompt, shape: Shape, plain: bool) -> dict[str, float]:
    """Seconds of each part of one step, the training half on the shared and on the plain path, and their peaks.

    The prefill ends with the first token, which decoding has begun by then.
    """
    config, policy, ranks = learner.config, learner.policy, learner.ranks
    result: dict[str, float] = {}
    sampling = Sampling(shape.completion_tokens, config.temperature, ignore_stop=True)
    drawn: list[float] = []  # when each position was
    ranks.gather(None)  # all begin together
    started = time.perf_counter()
    rollouts = generate(
        policy,
        [prompt],
        shape.num_generations,
        sampling,
        first_row=ranks.rank * shape.num_generations,
        on_token=lambda _: drawn.append(time.perf_counter()),
    )
    result["prefill"], result["decode"] = drawn[0] - started, time.perf_counter() - drawn[0]
    texts = [rollout.completion for rollout in rollouts]
    result["reward"], _ = timed(lambda: learner.reward([prompt] * len(texts), texts))
    batch = batch_of(rollouts)
    shares = shares_prompt(policy.model)
    result["train"], gradients, result["train_peak_gb"] = time_gradient(learner, batch, shares)
    result["update"], _ = timed(lambda: _update(learner, gradients))
    result["step"] = sum(result[part] for part in PARTS)
    if plain and shares:
        result["train_plain"], _, result["train_plain_peak_gb"] = time_gradient(learner, batch, False)
    return result


def batch_of(rollouts: Sequence[Rollout]) -> Batch:
    """A batch whose advantages differ, as a step's do."""
    return make_batch(rollouts, mx.array(np.linspace(-1, 1, len(rollouts)), mx.float32)[None])


def time_gradient(learner: Learner, batch: Batch, shared: bool) -> tuple[float, Any, float]:
    """Seconds of one forward and backward pass over a batch, the gradients, and the peak memory in GiB."""
    config, model = learner.config, learner.policy.model

    def loss(part: Batch, prefixes: Any = None) -> tuple[mx.array, ...]:
        scores = score_tokens(model, part, config.temperature, prefixes=prefixes, shared=shared)
        return -(scores.logps * part.advantages[:, None]).sum(), scores.entropies

    parts = split_batch(batch, config.micro_batch_size or batch.mask.shape[0])
    mx.clear_cache()
    mx.reset_peak_memory()
    seconds, (_, gradients) = timed(
        lambda: accumulate(model, loss, parts, share=shared, checkpointing=config.gradient_checkpointing)
    )
    return seconds, gradients, mx.get_peak_memory() / 2**30


def _update(learner: Learner, gradients: Any) -> None:
    model = learner.policy.model
    gradients = learner.ranks.sum_gradients(gradients, model.trainable_parameters())
    apply_update(model, learner.optimizer, gradients, 0.0, learner.config.max_grad_norm)
    mx.eval(model.trainable_parameters(), learner.optimizer.state)


def training_flops(model: Any, shape: Shape, full: bool) -> float:
    """Operations of one forward and backward pass with a shared prompt: matrix products alone, LoRA's own left out.

    A frozen weight costs its product with the activations and one with their gradient; a trained one a third.
    """
    weights, attention = forward_flops(model, shape)
    return weights * (3 if full else 2) + attention * 3


def forward_flops(model: Any, shape: Shape) -> tuple[float, float]:
    """Operations of a forward pass with a shared prompt: products with weights, and within attention."""
    tokens = shape.prompt_tokens + shape.num_generations * shape.completion_tokens
    head, _ = output_head(model)
    linear = 2 * len(model.model.layers) * sum(map(weights_in, model.model.layers[0].modules())) * tokens
    vocabulary = 2 * weights_in(head) * shape.num_generations * shape.completion_tokens
    own = shape.completion_tokens**2 / 2 + shape.completion_tokens * shape.prompt_tokens
    pairs = shape.prompt_tokens**2 / 2 + shape.num_generations * own
    heads = model.args.num_attention_heads * head_size(model)
    return linear + vocabulary, len(model.model.layers) * 4 * heads * pairs


def weights_in(module: nn.Module) -> int:
    """The number of weights in a linear layer or embedding, packed or not; 0 for any other module."""
    if isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding):
        return module.weight.size * 32 // module.bits
    return module.weight.size if isinstance(module, nn.Linear | nn.Embedding) else 0


def print_bench(console: Console, results: dict[str, Any]) -> None:
    """The whole step and its training half, a table each."""
    each = f"{results['processes']} processes with a prompt each, " if results["processes"] > 1 else ""
    console.print(
        f"{model_name(results['model'])}, {results['fine_tune_type']}, {each}MLX {results['mlx']} on "
        f"{results['device']}: {results['matrix_gflops']:.0f} GFLOP/s in a matrix product of {MATRIX}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    names = [f"{r['prompt_tokens']} x {r['num_generations']} x {r['completion_tokens']}" for r in results["shapes"]]
    parts = (*PARTS, "step")
    whole = [
        [name, *(f"{r[part]:.2f}" for part in parts), f"{r['tokens_per_s']:.0f}"]
        for name, r in zip(names, results["shapes"], strict=True)
    ]
    console.print(console_table(["P x G x T", *parts, "tok/s"], whole, title="Seconds of a step"))
    half = [[name, *_training_cells(r)] for name, r in zip(names, results["shapes"], strict=True)]
    if all("train_plain" in r for r in results["shapes"]):
        header = ["P x G x T", "shared s", "plain s", "faster", "shared GB", "plain GB", "of matrix speed"]
        title = "Its training half: the prompt run once, or for each completion"
    else:
        header, title = ["P x G x T", "s", "GB", "of matrix speed"], "Its training half"
    console.print(console_table(header, half, title=title))


def _training_cells(r: dict[str, Any]) -> list[str]:
    share = f"{r['share_of_matrix_speed']:.0%}"
    if "train_plain" not in r:
        return [f"{r['train']:.2f}", f"{r['train_peak_gb']:.2f}", share]
    faster = f"{r['train_plain'] / r['train']:.1f}x"
    memory = [f"{r['train_peak_gb']:.2f}", f"{r['train_plain_peak_gb']:.2f}"]
    return [f"{r['train']:.2f}", f"{r['train_plain']:.2f}", faster, *memory, share]
