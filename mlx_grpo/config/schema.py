"""The typed configuration: every key, its type and its limits; names are TRL's where they mean the same."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from mlx_grpo.backend import DtypeName
from mlx_grpo.grpo import ImportanceSamplingLevel, LossType, RewardAggregation, RewardScale


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("no_bool", "a number")
    return value


Integer = Annotated[int, BeforeValidator(_no_bool)]  # Python counts true as 1, which is a mistake in a config
Number = Annotated[float, BeforeValidator(_no_bool)]
Count = Annotated[Integer, Field(ge=1, lt=2**31)]
Unsigned = Annotated[Integer, Field(ge=0, lt=2**31)]
Positive = Annotated[Number, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[Number, Field(ge=0, allow_inf_nan=False)]
BelowOne = Annotated[Number, Field(ge=0, lt=1)]
Share = Annotated[Number, Field(gt=0, le=1)]


def _as_list(value: Any) -> Any:
    if value is None or value in ("none", ["none"]):
        return []
    return [value] if isinstance(value, str) else value


Trackers = Annotated[list[Literal["trackio", "wandb", "tensorboard"]], BeforeValidator(_as_list)]
"""A tracker or several; "none" is none, as TRL has it."""
Function = Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]
"""A function of the user's own, as `module:function`."""


class Section(BaseModel):
    """The base of all sections: unknown keys are errors, and a configuration is immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LoraConfig(Section):
    """Low-rank adapters, in mlx-lm's terms: the update is `scale * A @ B`."""

    rank: Count = 16
    scale: Positive = 2.0
    dropout: BelowOne = 0.0
    num_layers: Literal[-1] | Count = -1
    keys: Annotated[list[str], Field(min_length=1)] | None = None


class DataConfig(Section):
    """The source of prompts: bundled rows by name, a JSONL file, a folder of two, or a data set on the Hub."""

    train: str = "shortlist"
    heldout: str | None = None
    split: str = "train"
    heldout_split: str | None = None
    subset: str | None = None
    columns: dict[str, str | None] = {}
    as_messages: bool = False
    system: str | None = None
    balance_by: str | None = None
    cluster_by: str | None = None
    cluster_size: Count = 1
    enable_thinking: bool = False

    @model_validator(mode="after")
    def _messages(self) -> Self:
        if self.system is not None and not self.as_messages:
            raise ValueError("data.system: set, but data.as_messages is false; set it to true, or remove data.system")
        return self


class RewardConfig(Section):
    """The reward of a completion: a task's rubric by name, or functions of your own."""

    rubric: Literal["strict", "published", "countdown"] | None = "strict"
    weights: dict[str, NonNegative] = {}
    limits: dict[str, int | float] = {}
    functions: list[Function] = []
    reward_weights: list[float] | None = None
    judge: Function | None = None
    shuffle: bool = False

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.functions and self.rubric:
            raise ValueError("reward.functions and reward.rubric exclude each other; set reward.rubric to null")
        if not self.functions and not self.rubric:
            raise ValueError("nothing to reward; set reward.rubric or reward.functions")
        if self.reward_weights is not None and len(self.reward_weights) != len(self.functions):
            raise ValueError(
                f"reward.reward_weights has {len(self.reward_weights)} entries for "
                f"{len(self.functions)} functions; give one for each"
            )
        if self.functions and (self.weights or self.limits):
            raise ValueError("reward.weights and reward.limits belong to a rubric; remove them")
        if self.judge and self.rubric:
            raise ValueError("reward.judge belongs to reward.functions, and a rubric's task has its own; remove it")
        return self


class WarmStartConfig(Section):
    """Supervised steps before GRPO, on the dataset's `completion` column; 0 steps switch it off."""

    steps: Unsigned = 0
    batch_size: Count = 4
    learning_rate: Positive = 2e-4
    warmup_steps: Unsigned = 0
    run: str | None = None

    @model_validator(mode="after")
    def _something_to_take(self) -> Self:
        if self.run is not None and not self.steps:
            raise ValueError("warm_start.run: set, but warm_start.steps is 0; give the steps of that run, or remove it")
        return self

    @property
    def steps_to_train(self) -> int:
        """Return the number of supervised steps to train: none where another run's are taken."""
        return 0 if self.run else self.steps


class EvalConfig(Section):
    """The comparison on held-out prompts: greedy, in the file's order."""

    episodes: Count = 64
    max_new_tokens: Count = 384
    batch_size: Count | None = None
    validation: Count = 32
    cluster: str | None = None


class Config(Section):
    """One training run."""

    model: str
    dtype: Literal["auto", DtypeName] = "auto"
    fine_tune_type: Literal["lora", "full"] = "lora"
    lora: LoraConfig = LoraConfig()
    data: DataConfig = DataConfig()
    reward: RewardConfig = RewardConfig()
    warm_start: WarmStartConfig = WarmStartConfig()
    eval: EvalConfig = EvalConfig()
    seed: Unsigned = 0
    output_dir: str = "runs"

    max_steps: Count = 100
    prompts_per_step: Count = 4
    num_generations: Annotated[Integer, Field(ge=2)] = 8
    micro_batch_size: Count | None = None
    num_iterations: Count = 1
    dynamic_sampling: Unsigned = 0
    branch_at: Annotated[str, Field(min_length=1)] | None = None

    max_completion_length: Count = 160
    temperature: Positive = 1.0
    top_p: Share = 1.0
    top_k: Unsigned = 0
    min_p: BelowOne = 0.0

    loss_type: LossType = "dapo"
    multi_objective_aggregation: RewardAggregation = "sum_then_normalize"
    scale_rewards: RewardScale = "group"
    importance_sampling_level: ImportanceSamplingLevel = "token"
    epsilon: NonNegative = 0.2
    epsilon_high: NonNegative | None = None
    delta: Positive | None = None
    beta: NonNegative = 0.0
    use_bias_correction_kl: bool = True
    mask_truncated_completions: bool = False
    top_entropy_quantile: Share = 1.0

    learning_rate: Positive = 1e-5
    lr_scheduler_type: Literal["constant", "linear", "cosine"] = "linear"
    warmup_steps: Unsigned = 0
    weight_decay: NonNegative = 0.0
    adam_beta1: BelowOne = 0.9
    adam_beta2: BelowOne = 0.999
    adam_epsilon: Positive = 1e-8
    max_grad_norm: NonNegative = 1.0
    gradient_checkpointing: bool = False

    report_to: Trackers = []
    logging_steps: Count = 1
    save_steps: Count = 50
    save_total_limit: Count = 2
    eval_steps: Unsigned = 0

    @model_validator(mode="after")
    def _possible(self) -> Self:
        problems = []
        if self.epsilon_high is not None and self.loss_type != "cispo" and self.epsilon_high < self.epsilon:
            problems.append(
                f"epsilon_high: {self.epsilon_high} is below epsilon {self.epsilon}; raise it, or leave it out"
            )
        if self.loss_type == "cispo" and (self.epsilon_high is None or self.epsilon_high < 1):
            problems.append(
                f"epsilon_high: {self.epsilon_high} with loss_type cispo, where it caps the ratio itself; "
                "set it to a value of at least 1, such as 5.0"
            )
        if self.delta is not None and self.loss_type in ("cispo", "sapo"):
            problems.append(f"delta: {self.delta} has no meaning for loss_type {self.loss_type}; remove it")
        if self.delta is not None and self.delta <= 1 + self.clip_high:
            problems.append(f"delta: {self.delta} lies inside the clipping range; raise it above {1 + self.clip_high}")
        size = self.data.cluster_size
        if size > 1 and self.data.cluster_by is None:
            problems.append("data.cluster_size: set, but data.cluster_by is not; name a column, such as job_id")
        elif self.prompts_per_step % size:
            problems.append(
                f"data.cluster_size: {size} does not divide prompts_per_step {self.prompts_per_step}; change one"
            )
        if self.fine_tune_type == "full" and self.lora != LoraConfig():
            problems.append("lora: set, but fine_tune_type is full; remove the section, or use fine_tune_type lora")
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def advantage_scale(self) -> RewardScale:
        """Return what advantages are divided by: `scale_rewards`, or the batch's where components are normalised."""
        return "batch" if self.multi_objective_aggregation == "normalize_then_sum" else self.scale_rewards

    @property
    def clip_high(self) -> float:
        """Return the upper clipping range: `epsilon_high`, or `epsilon` where that is not set."""
        return self.epsilon if self.epsilon_high is None else self.epsilon_high
