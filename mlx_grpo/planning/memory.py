"""What a run will hold at its peak, from shapes alone.

A backward pass needs certain arrays of the forward pass: per token and layer the residual stream, what each norm
and each adapted matrix reads, queries, keys, values and the five steps of the gated MLP; per pair of a query and a
key one exponential. They are counted here as the code in attention.py, prefix.py and logps.py makes them. Beside
them live what is being computed at that moment, which depends on how far MLX's evaluator runs ahead of itself:
the constants below, fitted to peaks measured on the CPU back end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mlx_grpo.config.schema import Config
from mlx_grpo.data.batch import LENGTH_BUCKET
from mlx_grpo.models.attention import CAUSAL_BLOCK
from mlx_grpo.models.logps import HEAD_CHUNK
from mlx_grpo.planning.architecture import Architecture

FP32 = 4

HEAD_ARRAYS = 6
"""Arrays [positions, V] at once: logits, tempered, shifted, exponentials, their product, and the gradient."""
TRAINED_HEAD_ARRAYS = 3.2
"""The same where the head learns and its chunks are computed again for the gradient."""
HEAD_CHUNKS = 4
"""Chunks of the head that exist at once, because allocation runs ahead of computation."""
SAMPLER_ARRAYS = 4
"""Arrays [rows, V] of one decoded position: logits, tempered, weights and their running sum."""
BACKWARD = (0.35, 2.5)
"""What the backward pass holds beside what was kept, in shares of one layer's arrays by token and by pair."""
RECOMPUTED = (1.3, 5.0)
"""The same with checkpointing: the layer itself, computed again, with its scores and masked scores."""
FORWARD = (0.5, 2.0)
"""The same of a forward pass alone."""
AHEAD_BLOCKS = 5
"""Blocks of causal attention that the evaluator runs ahead of itself; a longer prompt holds no more of them."""
OVERLAPPING_PARTS = 4
"""Micro-batches of one prompt that are computed again at once."""
UPDATE_LARGEST, UPDATE_LAYERS = 4.0, 20
"""Arrays that AdamW's update holds: of the largest one alone, or of a layer's largest ones in a row."""
VOCABULARY_GRADIENTS = 2.2
"""Copies of the largest array's gradient beside the sum, where it learns: the head's and the embedding's."""


@dataclass(frozen=True, slots=True)
class Pass:
    """`rows` sequences of `length` tokens, each after `prefix` tokens that they share."""

    rows: int
    length: int
    prefix: int = 0
    whole: bool = False
    """Every query meets every key, as in mlx-lm's own attention; else blocks skip what the causal mask hides."""

    @property
    def tokens(self) -> int:
        return self.rows * self.length

    @property
    def own_pairs(self) -> int:
        """Pairs of a query and a key of one row, masked ones in reached blocks included."""
        if self.whole:
            return self.length**2
        starts = range(0, self.length, CAUSAL_BLOCK)
        stops = [min(start + CAUSAL_BLOCK, self.length) for start in starts]
        return sum((stop - start) * stop for start, stop in zip(starts, stops, strict=True))

    @property
    def pairs(self) -> int:
        return self.rows * self.own_pairs + self.tokens * self.prefix


@dataclass(frozen=True, slots=True)
class Lengths:
    """The longest a run has to deal with, in tokens."""

    prompt: int
    imitated: int = 0
    """The longest `completion` of a row, for the warm start."""
    alike: int = 0
    """What all prompts begin with."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes: what a run holds, and its phases' peaks."""

    parts: dict[str, int]
    phases: dict[str, int]

    @property
    def where(self) -> str:
        """The phase in which the peak falls."""
        return max(self.phases, key=self.phases.__getitem__)

    @property
    def peak(self) -> int:
        return self.phases[self.where]


def by_token(a: Architecture, fused: bool, prefixed: bool) -> int:
    """Bytes that one layer keeps of one token for its backward pass; `fused` back ends keep no more of a norm."""
    size, queries, keys = a.itemsize, a.heads * a.head_dim, a.kv_heads * a.head_dim
    norms = 2 * a.hidden + (queries + keys if a.qk_norm else 0)
    normed = norms * ((size if fused else FP32) + (FP32 if a.full and not fused else 0))
    # Each adapter casts what it reads to its own fp32; where that is no cast, all of a kind read the same array.
    widths = {"first_norm": a.hidden, "attention": queries, "second_norm": a.hidden, "gated": a.intermediate}
    read = sum(
        width * FP32 * (n if size < FP32 else bool(n)) for name, width in widths.items() if (n := a.inputs[name])
    )
    attention = queries * (size * (2 if prefixed else 1) + FP32) + 2 * keys * size
    return normed + read + attention + 4 * a.intermediate * size + a.ranks * FP32


def by_pair(a: Architecture) -> int:
    """Bytes that one layer keeps of a pair of a query and a key: an exponential, and its copy in the values' dtype."""
    return a.heads * (FP32 + (a.itemsize if a.itemsize < FP32 else 0))


def layer_bytes(a: Architecture, passes: Sequence[Pass], fused: bool) -> float:
    """What one layer keeps of some passes for its backward pass."""
    return sum(p.tokens * by_token(a, fused, p.prefix > 0) + pair_bytes(a, p) for p in passes)


def pair_bytes(a: Architecture, p: Pass) -> int:
    """What one layer keeps of a pass by pairs: exponentials, and the mask for the query heads of a key head."""
    return p.pairs * by_pair(a) + p.own_pairs * a.heads // a.kv_heads


def working_bytes(a: Architecture, passes: Sequence[Pass], fused: bool, shares: tuple[float, float]) -> float:
    """What one layer's computation holds beside what is kept, in shares of the latter's tokens and pairs."""
    tokens = sum(p.tokens * by_token(a, fused, p.prefix > 0) for p in passes)
    ahead = [min(1, AHEAD_BLOCKS * CAUSAL_BLOCK / p.length) if not p.prefix else 1 for p in passes]
    pairs = sum(pair_bytes(a, p) * share for p, share in zip(passes, ahead, strict=True))
    return shares[0] * tokens + shares[1] * pairs


def kept(a: Architecture, prompts: Sequence[Pass], rows: Sequence[Pass], checkpointing: bool, fused: bool) -> float:
    """What all layers keep; of a prompt the last one makes keys and values alone."""
    if checkpointing:
        return a.learning_layers * sum(p.tokens for p in [*prompts, *rows]) * (a.hidden * a.itemsize + a.keys_values)
    last = sum(p.tokens for p in prompts) * (a.hidden * (a.itemsize + FP32) + a.keys_values)
    of_prompts = layer_bytes(a, prompts, fused)
    return a.learning_layers * (layer_bytes(a, rows, fused) + of_prompts) - of_prompts + last


def head_bytes(a: Architecture, positions: int) -> float:
    """What the vocabulary takes at `positions` completion tokens, and the rows of hidden states around it."""
    arrays = TRAINED_HEAD_ARRAYS if a.full else HEAD_ARRAYS
    at_once = min(positions, HEAD_CHUNKS * HEAD_CHUNK)
    return (arrays * at_once * a.vocabulary + 3 * positions * a.hidden) * FP32


def gradient_bytes(
    a: Architecture, prompts: Sequence[Pass], rows: Sequence[Pass], positions: int, checkpointing: bool, fused: bool
) -> tuple[float, float, float]:
    """One micro-batch forward and backward: what its layers keep, the head at its largest, the backward's own."""
    once = kept(a, prompts, rows, checkpointing, fused)
    backward = working_bytes(a, [*prompts, *rows], fused, RECOMPUTED if checkpointing else BACKWARD)
    if a.full:
        backward += VOCABULARY_GRADIENTS * a.largest_trainable * FP32
    return once, head_bytes(a, positions), backward


def overlap_bytes(a: Architecture, rows: Sequence[Pass], num_generations: int, fused: bool) -> float:
    """What the parts of a split group add to each other's backward pass under checkpointing.

    mx.checkpoint holds a layer back until its forward pass is done, not until its gradient is due.
    """
    overlap = [replace(rows[0], rows=min(num_generations, OVERLAPPING_PARTS * rows[0].rows))]
    return working_bytes(a, overlap, fused, RECOMPUTED) - working_bytes(a, rows, fused, RECOMPUTED)


def bucketed(length: int) -> int:
    """A length as `make_batch` pads it."""
    return -(-length // LENGTH_BUCKET) * LENGTH_BUCKET


def micro_batch(a: Architecture, config: Config, lengths: Lengths) -> tuple[list[Pass], list[Pass], int, bool]:
    """The passes over prompts and rows of the largest micro-batch, its positions, and whether it splits a group."""
    width, rows = bucketed(config.max_completion_length), config.micro_batch_size or config.num_generations
    groups = min(max(1, rows // config.num_generations), config.prompts_per_step)
    rows = min(rows, config.num_generations)
    positions = groups * rows * config.max_completion_length
    if not a.shares_prompt:
        return [], [Pass(groups * rows, lengths.prompt + width, whole=True)], positions, False
    prompts, completions = [Pass(1, lengths.prompt - 1)] * groups, [Pass(rows, width, lengths.prompt - 1)] * groups
    return prompts, completions, positions, rows < config.num_generations


def warm_batch(a: Architecture, config: Config, lengths: Lengths) -> tuple[list[Pass], list[Pass], int]:
    """The passes of the largest micro-batch of a supervised step, and its positions."""
    rows = min(config.warm_start.batch_size, config.micro_batch_size or config.warm_start.batch_size)
    alike = lengths.alike if a.shares_prompt else 0
    width = bucketed(lengths.prompt + lengths.imitated) - alike
    own = [Pass(rows, width, alike, whole=not alike)]
    return [Pass(1, alike)] if alike else [], own, rows * lengths.imitated


def decoding_bytes(a: Architecture, lengths: Lengths, prompts: int, rows_each: int, width: int) -> tuple[int, int]:
    """Keys and values of prompts and of their rows' `width` tokens, and the sampler's arrays."""
    rows = prompts * rows_each
    tokens = (prompts if a.shares_prompt else rows) * lengths.prompt + rows * width
    return a.keys_values * a.layers * tokens, SAMPLER_ARRAYS * rows * a.vocabulary * FP32


def validation_bytes(a: Architecture, config: Config, lengths: Lengths) -> int:
    """What completing held-out prompts during training holds beside the weights."""
    width = min(config.eval.max_new_tokens, config.max_completion_length)
    return sum(decoding_bytes(a, lengths, config.eval.batch_size, 1, width))


def warm_peak(a: Architecture, config: Config, lengths: Lengths, fused: bool) -> float:
    """What a supervised step holds beside weights and moments."""
    prompts, rows, positions = warm_batch(a, config, lengths)
    trained, checkpointing = a.trainable * FP32, config.gradient_checkpointing
    earlier = trained if rows[0].rows < config.warm_start.batch_size else 0
    needs = gradient_bytes(a, prompts, rows, positions, checkpointing, fused)
    return earlier + training_peak(*needs, trained, checkpointing)


def estimate(a: Architecture, config: Config, lengths: Lengths, fused: bool) -> Estimate:
    """Peaks of a run's phases; `fused` for back ends whose norms have a kernel of their own (Metal, CUDA)."""
    trained, checkpointing = a.trainable * FP32, config.gradient_checkpointing
    prompts, rows, positions, splits = micro_batch(a, config, lengths)
    once, head, backward = gradient_bytes(a, prompts, rows, positions, checkpointing, fused)
    backward += overlap_bytes(a, rows, config.num_generations, fused) if checkpointing and splits else 0
    other = kept(a, prompts, rows, not checkpointing, fused)
    width = config.max_completion_length
    cache, sampler = decoding_bytes(a, lengths, config.prompts_per_step, config.num_generations, width)
    parts = {
        "base weights": a.base_bytes,
        "trained weights": trained,
        "gradients": trained,
        "optimizer state": 2 * trained,
        "reference": trained if config.beta > 0 else 0,
        "KV cache": cache,
        "sampler": sampler,
        "activations": other if checkpointing else once,
        "activations, checkpointed": once if checkpointing else other,
        "backward's own": backward,
        "logit chunks": head,
    }
    held = a.base_bytes + 3 * trained + parts["reference"]
    prefill = working_bytes(a, [Pass(1, lengths.prompt)], fused, FORWARD)
    shared = a.keys_values * a.layers * lengths.prompt if splits else 0
    earlier = trained if config.prompts_per_step > 1 or splits else 0  # the sum of the gradients so far
    phases = {
        "load": max(a.checkpoint_bytes, a.base_bytes + (trained if a.full else 0)),
        "decode": held + cache + max(prefill, sampler),
        # A split group's prompt keeps its keys and values by themselves, and their gradients.
        "gradient": held + earlier + 2 * shared + training_peak(once, head, backward, trained, checkpointing),
        "update": held + trained + FP32 * max(UPDATE_LARGEST * a.largest_trainable, UPDATE_LAYERS * a.largest_in_layer),
    }
    if config.beta > 0:
        phases["reference"] = held + shared + max(working_bytes(a, [*prompts, *rows], fused, FORWARD), head)
    if config.warm_start.steps_to_train:
        phases["warm start"] = a.base_bytes + 3 * trained + warm_peak(a, config, lengths, fused)
    if config.eval_steps:
        phases["validation"] = held + max(prefill, validation_bytes(a, config, lengths))
    return Estimate({k: round(v) for k, v in parts.items()}, {k: round(v) for k, v in phases.items()})


def training_peak(once: float, head: float, backward: float, trained: float, checkpointing: bool) -> float:
    """The largest sum of what lives together: what is kept, the head, and the last layer's backward pass.

    Gradients grow as what was kept is given up, so the larger of the two counts.
    """
    if checkpointing:  # the layer is computed again after the head has gone
        return max(once + head, max(once, trained) + backward)
    return max(once + head, trained) + backward
