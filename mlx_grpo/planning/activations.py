"""Bytes of the arrays that forward and backward passes hold, counted from shapes.

A backward pass needs arrays of the forward pass. Per token and layer these are the residual stream, the inputs of
each norm and each adapted matrix, queries, keys, values and the five steps of the gated MLP. Per pair of a query and
a key it is one exponential. They are counted as attention.py, prefix.py and logps.py make them.

Beside them live the arrays that are being computed. How many depends on how far MLX's evaluator runs ahead of
itself: the constants below are fitted to peaks measured on the CPU back end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mlx_grpo.models.attention import CAUSAL_BLOCK
from mlx_grpo.models.logps import HEAD_CHUNK
from mlx_grpo.planning.architecture import Architecture

FP32 = 4
"""Bytes of a float32."""

HEAD_ARRAYS = 6
"""Arrays [positions, V] at once: logits, tempered, shifted, exponentials, their product, and the gradient."""
TRAINED_HEAD_ARRAYS = 3.2
"""Arrays [positions, V] at once if the head is trained and its chunks are computed again for the gradient."""
HEAD_CHUNKS = 4
"""Chunks of the head that exist at once, because allocation runs ahead of computation."""
AHEAD_BLOCKS = 5
"""Blocks of causal attention that the evaluator runs ahead of itself; a longer prompt holds no more of them."""
OVERLAPPING_PARTS = 4
"""Micro-batches of one node that are computed again at once."""
VOCABULARY_GRADIENTS = 2.2
"""Copies of the largest array's gradient beside the sum, if it is trained: the head's and the embedding's."""
STATES_KEPT = 2.2
"""Copies of a token's recurrent state that a layer of gated delta keeps, which trains as a loop over tokens."""
STATES_IN_BACKWARD, STATES_RECOMPUTED = 1.3, 6.5
"""Further copies while one such layer's backward pass runs, without checkpointing and with it."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Working arrays of a pass, in shares of one layer's kept arrays."""

    by_token: float
    by_pair: float


BACKWARD = Shares(0.35, 2.5)
"""A backward pass over kept activations."""
RECOMPUTED = Shares(1.3, 5.0)
"""A backward pass with checkpointing: the layer itself, computed again, with its scores and masked scores."""
FORWARD = Shares(0.5, 2.0)
"""A forward pass without gradient."""


@dataclass(frozen=True, slots=True)
class Pass:
    """A forward pass over `rows` sequences of `length` tokens, each after `prefix` tokens that they share."""

    rows: int
    length: int
    prefix: int = 0
    whole: bool = False
    """True if every query meets every key, as in mlx-lm's own attention; blocks skip what the causal mask hides."""

    @property
    def tokens(self) -> int:
        """Return the number of tokens that pass through the layers."""
        return self.rows * self.length

    @property
    def own_pairs(self) -> int:
        """Return one row's pairs of a query and a key of its own, including the masked ones of computed blocks."""
        if self.whole:
            return self.length**2
        starts = range(0, self.length, CAUSAL_BLOCK)
        stops = [min(start + CAUSAL_BLOCK, self.length) for start in starts]
        return sum((stop - start) * stop for start, stop in zip(starts, stops, strict=True))

    @property
    def pairs(self) -> int:
        """Return the pairs of a query and a key of all rows, shared prefix included."""
        return self.rows * self.own_pairs + self.tokens * self.prefix


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """The passes over prompts and over rows that one gradient needs."""

    prompts: Sequence[Pass]
    rows: Sequence[Pass]
    positions: int
    """Completion tokens that the vocabulary head scores."""
    overlaps: bool = False
    """True if several micro-batches continue a node, in one evaluation with it."""

    @property
    def passes(self) -> list[Pass]:
        """Return the passes over prompts and rows in one list."""
        return [*self.prompts, *self.rows]


@dataclass(frozen=True, slots=True)
class GradientBytes:
    """Bytes of one micro-batch's forward and backward pass."""

    kept: float
    """Activations that the layers keep for the backward pass."""
    head: float
    """The vocabulary head at its largest."""
    working: float
    """Arrays that the backward pass holds beside the kept ones."""

    def peak(self, gradients: float, checkpointing: bool) -> float:
        """Return the largest sum of bytes that live together, the micro-batch's own `gradients` included.

        Gradients grow while kept activations are released, so the larger of the two counts.
        """
        if checkpointing:  # a layer is computed again after the head is released
            return max(self.kept + self.head, max(self.kept, gradients) + self.working)
        return max(self.kept + self.head, gradients) + self.working


@dataclass(frozen=True, slots=True)
class Activations:
    """Bytes of a model's activations on one kind of back end."""

    sizes: Architecture
    fused: bool
    """True for back ends whose norms have a kernel of their own (Metal, CUDA) and keep only their input."""

    def per_token(self, prefixed: bool) -> int:
        """Return the bytes that a layer keeps of a token; `prefixed` if its row continues a shared prefix."""
        a = self.sizes
        mlp = 4 * a.intermediate * a.itemsize
        return self._norms() + self._adapter_inputs() + self._attention(prefixed) + mlp + a.ranks * FP32

    def _norms(self) -> int:
        a = self.sizes
        width = 2 * a.hidden + ((a.heads + a.kv_heads) * a.head_dim if a.qk_norm else 0)
        if self.fused:
            return width * a.itemsize
        return width * (2 * FP32 if a.full else FP32)

    def _adapter_inputs(self) -> int:
        """Count the fp32 inputs of adapters; each casts its own copy unless the input is fp32 and shared."""
        a = self.sizes
        widths = {
            "first_norm": a.hidden,
            "attention": a.heads * a.head_dim,
            "second_norm": a.hidden,
            "gated": a.intermediate,
        }
        total = 0
        for name, width in widths.items():
            readers = a.adapted_inputs[name]
            copies = readers if a.itemsize < FP32 else min(readers, 1)
            total += copies * width * FP32
        return total

    def _attention(self, prefixed: bool) -> int:
        a = self.sizes
        queries = a.heads * a.head_dim
        return queries * (a.itemsize * (2 if prefixed else 1) + FP32) + a.keys_values

    def per_pair(self) -> int:
        """Return the bytes that a layer keeps of a query and a key: exponentials, and copies in the values' dtype."""
        a = self.sizes
        return a.heads * (FP32 + (a.itemsize if a.itemsize < FP32 else 0))

    def of_pairs(self, p: Pass) -> int:
        """Return the bytes that a layer keeps by pairs: exponentials, and the mask for a key head's query heads."""
        return p.pairs * self.per_pair() + p.own_pairs * self.sizes.heads // self.sizes.kv_heads

    def of_tokens(self, passes: Sequence[Pass]) -> int:
        """Return the bytes that a layer keeps of some passes by tokens."""
        return sum(p.tokens * self.per_token(p.prefix > 0) for p in passes)

    def of_layer(self, passes: Sequence[Pass]) -> int:
        """Return the bytes that a layer keeps of some passes for its backward pass."""
        return self.of_tokens(passes) + sum(map(self.of_pairs, passes))

    def working(self, passes: Sequence[Pass], shares: Shares) -> float:
        """Return the bytes of the arrays that one layer's computation holds beside the kept ones."""
        pairs = sum(self.of_pairs(p) * _share_ahead(p) for p in passes)
        return shares.by_token * self.of_tokens(passes) + shares.by_pair * pairs

    def of_states(self, passes: Sequence[Pass]) -> int:
        """Return the bytes of one copy of a layer's recurrent state after each token of some passes."""
        return self.sizes.state_bytes * sum(p.tokens for p in passes)

    def kept(self, batch: MicroBatch, checkpointing: bool) -> float:
        """Return the bytes that all layers keep; checkpointing keeps their inputs, keys and values only."""
        a = self.sizes
        if checkpointing:
            tokens = sum(p.tokens for p in batch.passes)
            return a.backward_layers * tokens * (a.hidden * a.itemsize + a.keys_values)
        prompts = self.of_layer(batch.prompts)
        # The last layer makes only the keys and values of a prompt.
        last = sum(p.tokens for p in batch.prompts) * (a.hidden * (a.itemsize + FP32) + a.keys_values)
        states = a.state_layers * STATES_KEPT * self.of_states(batch.passes)
        return a.backward_layers * (self.of_layer(batch.rows) + prompts) - prompts + last + states

    def head(self, positions: int) -> float:
        """Return the bytes of the vocabulary head at `positions` completion tokens, with their hidden states."""
        a = self.sizes
        arrays = TRAINED_HEAD_ARRAYS if a.full else HEAD_ARRAYS
        if a.itemsize < FP32:  # the logits in the weights' dtype, beside those in fp32
            arrays += a.itemsize / FP32
        at_once = min(positions, HEAD_CHUNKS * HEAD_CHUNK)
        return (arrays * at_once * a.vocabulary + 3 * positions * a.hidden) * FP32

    def gradient(self, batch: MicroBatch, checkpointing: bool) -> GradientBytes:
        """Return the bytes of a micro-batch's forward and backward pass."""
        working = self.working(batch.passes, RECOMPUTED if checkpointing else BACKWARD)
        if self.sizes.state_layers:
            working += (STATES_RECOMPUTED if checkpointing else STATES_IN_BACKWARD) * self.of_states(batch.passes)
        if self.sizes.full:
            working += VOCABULARY_GRADIENTS * self.sizes.largest_trainable * FP32
        return GradientBytes(self.kept(batch, checkpointing), self.head(batch.positions), working)

    def overlap(self, batch: MicroBatch, num_generations: int) -> float:
        """Return what the micro-batches of one node add to each other's backward pass under checkpointing.

        mx.checkpoint holds a layer back until its forward pass is done, not until its gradient is due.
        """
        (part,) = batch.rows
        at_once = replace(part, rows=min(num_generations, OVERLAPPING_PARTS * part.rows))
        return self.working([at_once], RECOMPUTED) - self.working([part], RECOMPUTED)


def _share_ahead(p: Pass) -> float:
    """Return the share of a pass's pairs that exist at once; after a shared prefix all of them do."""
    return 1 if p.prefix else min(1, AHEAD_BLOCKS * CAUSAL_BLOCK / p.length)
