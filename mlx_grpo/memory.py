"""What a run will hold at its peak, from shapes alone.

A backward pass needs certain arrays of the forward pass: per token and layer the residual stream, what each norm
and each adapted matrix reads, queries, keys, values and the five steps of the gated MLP; per pair of a query and a
key one exponential. They are counted here as the code in attention.py, prefix.py and logps.py makes them. Beside
them live what is being computed at that moment, which depends on how far MLX's evaluator runs ahead of itself:
the constants below, fitted to peaks measured on the CPU back end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlx_grpo.architecture import Architecture
from mlx_grpo.attention import CAUSAL_BLOCK
from mlx_grpo.batch import LENGTH_BUCKET
from mlx_grpo.config import Config
from mlx_grpo.logps import HEAD_CHUNK

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
UPDATE_LARGEST, UPDATE_LAYERS = 4.3, 20
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


def layer_bytes(a: Architecture, passes: Sequence[Pass], fused: bool, shares: tuple[float, float] = (1, 1)) -> float:
    """What one layer keeps of some passes, or shares of it: of what goes by token, and what by pair."""
    tokens = sum(p.tokens * by_token(a, fused, p.prefix > 0) for p in passes)
    pairs = sum(p.pairs * by_pair(a) + p.own_pairs * a.heads // a.kv_heads for p in passes)  # and the mask
    return shares[0] * tokens + shares[1] * pairs


def kept(a: Architecture, prompts: Sequence[Pass], rows: Sequence[Pass], checkpointing: bool, fused: bool) -> float:
    """What all layers keep; of a prompt the last one makes keys and values alone."""
    keys_values = 2 * a.kv_heads * a.head_dim * a.itemsize
    if checkpointing:
        return a.learning_layers * sum(p.tokens for p in [*prompts, *rows]) * (a.hidden * a.itemsize + keys_values)
    last = sum(p.tokens for p in prompts) * (a.hidden * (a.itemsize + FP32) + keys_values)
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
    backward = layer_bytes(a, [*prompts, *rows], fused, RECOMPUTED if checkpointing else BACKWARD)
    if a.full:
        backward += VOCABULARY_GRADIENTS * a.largest_trainable * FP32
    return once, head_bytes(a, positions), backward


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


def estimate(a: Architecture, config: Config, lengths: Lengths, fused: bool) -> Estimate:
    """Peaks of a run's phases; `fused` for back ends whose norms have a kernel of their own (Metal, CUDA)."""
    trained = a.trainable * FP32
    moments, reference = 2 * trained, trained if config.beta > 0 else 0
    weights = a.base_bytes + trained
    held = weights + moments + reference
    checkpointing = config.gradient_checkpointing
    prompts, rows, positions, splits = micro_batch(a, config, lengths)
    once, head, backward = gradient_bytes(a, prompts, rows, positions, checkpointing, fused)
    other = kept(a, prompts, rows, not checkpointing, fused)
    keys_values = 2 * a.kv_heads * a.head_dim * a.itemsize * a.layers
    generated = config.prompts_per_step * config.num_generations
    cache = keys_values * (
        (config.prompts_per_step if a.shares_prompt else generated) * lengths.prompt
        + generated * config.max_completion_length
    )
    prefill = layer_bytes(a, [Pass(1, lengths.prompt)], fused, FORWARD)
    sampler = SAMPLER_ARRAYS * generated * a.vocabulary * FP32
    shared = keys_values * lengths.prompt if splits else 0  # the prompt's keys and values, and their gradients
    earlier = trained * ((config.prompts_per_step > 1) + splits)  # sums over the prompts and over the parts so far
    update = FP32 * max(UPDATE_LARGEST * a.largest_trainable, UPDATE_LAYERS * a.largest_in_layer)
    phases = {
        "load": max(a.checkpoint_bytes, a.base_bytes + (trained if a.full else 0)),
        "decode": held + cache + max(prefill, sampler),
        "gradient": held + earlier + 2 * shared + training_peak(once, head, backward, trained, checkpointing),
        "update": held + trained + update,
    }
    if config.beta > 0:
        forward = layer_bytes(a, [*prompts, *rows], fused, FORWARD)
        phases["reference"] = held + shared + max(forward, head)
    if config.warm_start.steps:
        parts = gradient_bytes(a, *warm_batch(a, config, lengths), checkpointing, fused)
        earlier = (
            trained if config.warm_start.batch_size > (config.micro_batch_size or config.warm_start.batch_size) else 0
        )
        phases["warm start"] = weights + moments + earlier + training_peak(*parts, trained, checkpointing)
    parts = {
        "base weights": a.base_bytes,
        "trained weights": trained,
        "gradients": trained,
        "optimizer state": moments,
        "reference": reference,
        "KV cache": cache,
        "sampler": sampler,
        "activations": other if checkpointing else once,
        "activations, checkpointed": once if checkpointing else other,
        "backward's own": backward,
        "logit chunks": head,
    }
    return Estimate({k: round(v) for k, v in parts.items()}, {k: round(v) for k, v in phases.items()})


def training_peak(once: float, head: float, backward: float, trained: float, checkpointing: bool) -> float:
    """The largest sum of what lives together: what is kept, the head and the last layer's backward pass, or the end.

    Gradients grow as what was kept is given up, so the larger of the two counts.
    """
    if checkpointing:  # a layer is computed again long after the head
        return max(once + head, max(once, trained) + backward)
    return max(once + head, trained) + backward
