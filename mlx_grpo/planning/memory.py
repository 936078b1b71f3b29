"""Predict the peak memory of each phase of a run, from shapes alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mlx_grpo.config.schema import Config
from mlx_grpo.data.batch import LENGTH_BUCKET
from mlx_grpo.planning.activations import FORWARD, FP32, Activations, GradientBytes, MicroBatch, Pass
from mlx_grpo.planning.architecture import Architecture

SAMPLER_ARRAYS = 4
"""Arrays [rows, V] of one decoded position: logits, tempered, weights and their running sum."""
EVALUATION_ROWS = 16
"""Rows that an evaluation during training is planned with; it decodes more only where memory is free."""
UPDATE_LARGEST, UPDATE_LAYERS = 4.0, 20
"""Arrays that AdamW's update holds: of the largest one alone, or of a layer's largest ones in a row."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """The longest texts of a run, in tokens."""

    prompt: int
    target: int = 0
    """The longest completion that the warm start trains on."""
    shared: int = 0
    """Tokens that all prompts begin with."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes by kind of array, and the peak of each phase."""

    parts: dict[str, int]
    phases: dict[str, int]
    measured: tuple[str, ...] = ()
    """Phases whose peak is measured, not predicted."""

    @property
    def peak_phase(self) -> str:
        """Return the phase with the largest peak."""
        return max(self.phases, key=self.phases.__getitem__)

    @property
    def peak(self) -> int:
        """Return the bytes at the largest peak."""
        return self.phases[self.peak_phase]

    def with_measured(self, peaks: Mapping[str, int]) -> Estimate:
        """Return the estimate with measured peaks of some phases."""
        return replace(self, phases={**self.phases, **peaks}, measured=tuple(peaks))

    def ratios(self, predicted: Estimate) -> dict[str, float]:
        """Return each measured peak divided by its prediction."""
        return {phase: self.phases[phase] / predicted.phases[phase] for phase in self.measured}


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes that live through every phase of GRPO."""

    base: int
    weights: int
    """Trained weights in fp32; a gradient takes as much."""
    optimizer: int
    reference: int

    @property
    def training(self) -> int:
        """Return the bytes without the reference, which a warm start does not need."""
        return self.base + self.weights + self.optimizer

    @property
    def total(self) -> int:
        """Return the bytes of all of them."""
        return self.training + self.reference


@dataclass(frozen=True, slots=True)
class Workload:
    """A model, its configuration, and the lengths of its texts: what decides a run's memory."""

    sizes: Architecture
    config: Config
    lengths: Lengths
    fused: bool
    """True for back ends whose norms have a kernel of their own (Metal, CUDA)."""

    @property
    def activations(self) -> Activations:
        """Return the sizes of this model's activations."""
        return Activations(self.sizes, self.fused)

    @property
    def held(self) -> Held:
        """Return the bytes that live through every phase of GRPO."""
        weights = self.sizes.trainable * FP32
        return Held(self.sizes.base_bytes, weights, 2 * weights, weights if self.config.beta > 0 else 0)


def estimate(sizes: Architecture, config: Config, lengths: Lengths, fused: bool) -> Estimate:
    """Predict a run's memory: bytes by kind of array, and the peak of each phase; `fused` as in `Workload`."""
    work = Workload(sizes, config, lengths, fused)
    phases: dict[str, float] = {
        "load": load_peak(work),
        "decode": decode_peak(work),
        "gradient": gradient_peak(work),
        "update": update_peak(work),
    }
    if config.beta > 0:
        phases["reference"] = reference_peak(work)
    if config.warm_start.steps_to_train:
        phases["warm start"] = warm_start_peak(work)
    if config.eval_steps:
        phases["validation"] = evaluation_peak(work)
    return Estimate(_rounded(bytes_by_kind(work)), _rounded(phases))


def bytes_by_kind(work: Workload) -> dict[str, float]:
    """Return the bytes of each kind of array at its largest; they do not all live at once."""
    held, batch = work.held, micro_batch(work)
    cache, sampler = grpo_decoding_bytes(work)
    needs = grpo_gradient_bytes(work)
    return {
        "base weights": held.base,
        "trained weights": held.weights,
        "gradients": held.weights,
        "optimizer state": held.optimizer,
        "reference": held.reference,
        "KV cache": cache,
        "sampler": sampler,
        "activations": work.activations.kept(batch, checkpointing=False),
        "activations, checkpointed": work.activations.kept(batch, checkpointing=True),
        "backward's own": needs.working,
        "logit chunks": needs.head,
    }


def load_peak(work: Workload) -> float:
    """Return the peak while the base is read: its stored weights, then those in memory."""
    sizes = work.sizes
    return max(sizes.checkpoint_bytes, sizes.base_bytes + (work.held.weights if sizes.full else 0))


def decode_peak(work: Workload) -> float:
    """Return the peak while a step's completions are sampled."""
    cache, sampler = grpo_decoding_bytes(work)
    return work.held.total + cache + max(prefill_bytes(work), sampler)


def gradient_peak(work: Workload) -> float:
    """Return the peak while a micro-batch runs forward and backward."""
    held, config = work.held, work.config
    accumulates = config.prompts_per_step * config.num_generations > rows_at_once(work)
    earlier = held.weights if accumulates else 0  # the sum of the gradients so far
    # The nodes of a prompt keep their keys and values by themselves, and their gradients.
    shared = 2 * prompt_bytes(work)
    needs = grpo_gradient_bytes(work)
    return held.total + earlier + shared + needs.peak(held.weights, config.gradient_checkpointing)


def update_peak(work: Workload) -> float:
    """Return the peak of the optimizer's update."""
    sizes, held = work.sizes, work.held
    arrays = max(UPDATE_LARGEST * sizes.largest_trainable, UPDATE_LAYERS * sizes.largest_in_layer)
    return held.total + held.weights + FP32 * arrays


def reference_peak(work: Workload) -> float:
    """Return the peak while the reference scores a micro-batch, without gradient."""
    batch = micro_batch(work)
    working = work.activations.working(batch.passes, FORWARD)
    return work.held.total + prompt_bytes(work) + max(working, work.activations.head(batch.positions))


def warm_start_peak(work: Workload) -> float:
    """Return the peak of a supervised step of the warm start."""
    held, config, batch = work.held, work.config, warm_start_batch(work)
    checkpointing = config.gradient_checkpointing
    accumulates = batch.rows[0].rows < config.warm_start.batch_size
    earlier = held.weights if accumulates else 0  # the sum of the gradients so far
    needs = work.activations.gradient(batch, checkpointing)
    return held.training + earlier + needs.peak(held.weights, checkpointing)


def evaluation_peak(work: Workload) -> float:
    """Return the peak of an evaluation during training, which completes prompts of the validation split."""
    config = work.config
    width = min(config.eval.max_new_tokens, config.max_completion_length)
    rows = min(config.eval.batch_size or EVALUATION_ROWS, config.eval.validation)
    cache, sampler = decoding_bytes(work, rows, 1, width)
    return work.held.total + max(prefill_bytes(work), cache + sampler)


def micro_batch(work: Workload) -> MicroBatch:
    """Return the largest micro-batch of a GRPO step, with the prompt that it continues."""
    config, prompt = work.config, work.lengths.prompt
    width = _bucketed(config.max_completion_length)
    rows = rows_at_once(work)
    positions = rows * config.max_completion_length
    if not work.sizes.shares_prompt:
        return MicroBatch([], [Pass(rows, prompt + width, whole=True)], positions)
    overlaps = rows < config.num_generations or (config.prompts_per_step > 1 and work.lengths.shared > 0)
    return MicroBatch([Pass(1, prompt - 1)], [Pass(rows, width, prompt - 1)], positions, overlaps)


def rows_at_once(work: Workload) -> int:
    """Return the rows of a GRPO step's largest micro-batch: of one group where the model shares a group's prompt."""
    config = work.config
    size = config.micro_batch_size or config.num_generations
    groups = 1 if work.sizes.shares_prompt else config.prompts_per_step
    return min(size, groups * config.num_generations)


def supervised_rows(config: Config) -> int:
    """Return the rows of a supervised step's micro-batch."""
    return min(config.warm_start.batch_size, config.micro_batch_size or config.warm_start.batch_size)


def warm_start_batch(work: Workload) -> MicroBatch:
    """Return the largest micro-batch of a supervised step."""
    config, lengths = work.config, work.lengths
    rows = supervised_rows(config)
    shared = lengths.shared if work.sizes.shares_prompt else 0
    width = _bucketed(lengths.prompt + lengths.target) - shared
    prefix = [Pass(1, shared)] if shared else []
    return MicroBatch(prefix, [Pass(rows, width, shared, whole=not shared)], rows * lengths.target)


def grpo_gradient_bytes(work: Workload) -> GradientBytes:
    """Return the bytes of the largest micro-batch's forward and backward pass in a GRPO step."""
    config, batch = work.config, micro_batch(work)
    needs = work.activations.gradient(batch, config.gradient_checkpointing)
    if not (config.gradient_checkpointing and batch.overlaps):
        return needs
    overlap = work.activations.overlap(batch, config.num_generations)
    return GradientBytes(needs.kept, needs.head, needs.working + overlap)


def grpo_decoding_bytes(work: Workload) -> tuple[int, int]:
    """Return the bytes of cache and sampler while a step's completions are sampled."""
    config = work.config
    return decoding_bytes(work, config.prompts_per_step, config.num_generations, config.max_completion_length)


def decoding_bytes(work: Workload, prompts: int, rows_each: int, width: int) -> tuple[int, int]:
    """Return the bytes of a decoding's cache, with `width` tokens a row, and of the sampler's arrays."""
    sizes, rows = work.sizes, prompts * rows_each
    shared = work.lengths.shared if sizes.shares_prompt else 0
    tokens = shared + (prompts if sizes.shares_prompt else rows) * (work.lengths.prompt - shared) + rows * width
    return sizes.keys_values * sizes.layers * tokens, SAMPLER_ARRAYS * rows * sizes.vocabulary * FP32


def prefill_bytes(work: Workload) -> float:
    """Return the bytes that a forward pass over the longest prompt works with."""
    return work.activations.working([Pass(1, work.lengths.prompt)], FORWARD)


def prompt_bytes(work: Workload) -> int:
    """Return the bytes of a prompt's keys and values, which its completions share; 0 where each row has its own."""
    sizes = work.sizes
    return sizes.keys_values * sizes.layers * work.lengths.prompt if sizes.shares_prompt else 0


def _bucketed(length: int) -> int:
    """Round a length up to whole buckets, as `make_batch` pads it."""
    return -(-length // LENGTH_BUCKET) * LENGTH_BUCKET


def _rounded(sizes: Mapping[str, float]) -> dict[str, int]:
    return {name: round(size) for name, size in sizes.items()}
