"""The typed configuration: every key, its type and its limits; names are TRL's where they mean the same.

`load_config` reads YAML, applies `key=value` overrides, and reports every mistake at once.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from mlx_grpo.errors import UserError, shown
from mlx_grpo.grpo import ImportanceSamplingLevel, LossType, RewardScale
from mlx_grpo.yaml_text import parse_yaml, read_yaml


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("no_bool", "a number")
    return value


Integer = Annotated[int, BeforeValidator(_no_bool)]  # Python counts true as 1; a config that says so is mistaken
Number = Annotated[float, BeforeValidator(_no_bool)]
Count = Annotated[Integer, Field(ge=1, lt=2**31)]
Unsigned = Annotated[Integer, Field(ge=0, lt=2**31)]
Positive = Annotated[Number, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[Number, Field(ge=0, allow_inf_nan=False)]
BelowOne = Annotated[Number, Field(ge=0, lt=1)]
Share = Annotated[Number, Field(gt=0, le=1)]


_SECRET = re.compile("token|secret|password|api_?key", re.IGNORECASE)


class Section(BaseModel):
    """What all sections share: unknown keys are errors, and a made configuration does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LoraConfig(Section):
    """Low-rank adapters, in mlx-lm's terms: the update is `scale * A @ B`."""

    rank: Count = 16
    scale: Positive = 2.0
    dropout: BelowOne = 0.0
    num_layers: Literal[-1] | Count = -1
    keys: Annotated[list[str], Field(min_length=1)] | None = None


class DataConfig(Section):
    """Where prompts come from: `shortlist` or `shortlist-full` (bundled), or a JSONL file or a folder of two."""

    train: str = "shortlist"
    heldout: str | None = None
    balance_by: str | None = None
    enable_thinking: bool = False


class RewardConfig(Section):
    """What a completion earns: one of the rule rubrics, or functions of your own."""

    rubric: Literal["strict", "published"] | None = "strict"
    weights: dict[str, NonNegative] = {}
    limits: dict[str, int | float] = {}
    functions: list[Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]] = []
    reward_weights: list[float] | None = None
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
    def own_steps(self) -> int:
        """The supervised steps that are still to be trained: none where another run's are taken."""
        return 0 if self.run else self.steps


class EvalConfig(Section):
    """The comparison on held-out prompts: greedy, in the file's order."""

    episodes: Count = 64
    max_new_tokens: Count = 384
    batch_size: Count = 16
    validation: Count = 32


class Config(Section):
    """One training run."""

    model: str
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
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

    max_completion_length: Count = 160
    temperature: Positive = 1.0
    top_p: Share = 1.0
    top_k: Unsigned = 0
    min_p: BelowOne = 0.0

    loss_type: LossType = "dapo"
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
        if self.fine_tune_type == "full" and self.lora != LoraConfig():
            problems.append("lora: set, but fine_tune_type is full; remove the section, or use fine_tune_type lora")
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def clip_high(self) -> float:
        """The upper clipping range: `epsilon_high`, or `epsilon` where none is given."""
        return self.epsilon if self.epsilon_high is None else self.epsilon_high


def find_config(name: str) -> Path:
    """A config file by path, or one of the packaged examples by its name (`configs/qwen3.yaml`, `qwen3`)."""
    path = Path(name)
    if path.is_file():
        return path
    if path.is_dir():
        raise UserError(f"{name}: is a folder; give the config file in it, such as {path / 'config.yaml'}")
    packaged = {p.stem: p for folder in _config_folders() for p in sorted(folder.glob("*.yaml"))}
    if path.stem in packaged and (path.parent.name in ("", "configs")):
        return packaged[path.stem]
    raise UserError(f"{name}: no such config file; give a path, or one of {', '.join(sorted(packaged))}")


def load_config(name: str, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, apply `key=value` and `section.key=value` overrides, and check it all.

    Raises UserError with one line for each mistake: where, key, value, remedy.
    """
    path = find_config(name)
    values = _read_yaml(path)
    for override in overrides:
        _apply_override(values, override)
    return validate(values, source=str(path))


def validate(values: dict[str, Any], source: str = "config") -> Config:
    """Make a Config of plain values; raises UserError listing every mistake in `source`."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        details = error.errors()
    lines = [line for detail in details for line in _describe(detail)]
    # Combinations are checked only when every key is sound, so check them again without the unsound ones.
    unsound = {detail["loc"][0] for detail in details if detail["loc"]}
    try:
        Config.model_validate({"model": "", **{key: values[key] for key in values.keys() - unsound}})
    except ValidationError as error:
        lines += [line for detail in error.errors() for line in _describe(detail)]
    raise UserError(*(f"{source}: {line}" for line in dict.fromkeys(lines)))


def save_config(config: Config, path: Path) -> None:
    """Write every key with its value, so that a run's config needs no defaults to be understood."""
    path.write_text(yaml.safe_dump(config.model_dump(), sort_keys=False), encoding="utf-8")


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys as overrides write them: {"lora": {"rank": 8}} is {"lora.rank": 8}."""
    pairs: dict[str, Any] = {}
    for key, value in values.items():
        pairs |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return pairs


def _config_folders() -> list[Path]:
    """In a checkout the examples stand beside the package, in an installation inside it."""
    package = Path(__file__).resolve().parent
    return [package / "configs"] if (package / "configs").is_dir() else [package.parent / "configs"]


def _read_yaml(path: Path) -> dict[str, Any]:
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds {type(values).__name__}, not keys and values; start with `model: ...`")
    return values


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"{shown(override)}: not an override; write key=value, such as max_steps=5")
    *sections, last = key.strip().split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise UserError(f"{shown(override)}: {section} is not a section; override {section} itself")
        values = inner
    values[last] = parse_yaml(text, f"override {shown(override)}")


def _describe(detail: ErrorDetails) -> list[str]:
    key = ".".join(str(part) for part in detail["loc"])
    if detail["type"] in ("extra_forbidden", "invalid_key"):
        known = _known_keys(detail["loc"][:-1])
        near = difflib.get_close_matches(str(detail["loc"][-1]), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
        if isinstance(detail["input"], str) and _SECRET.search(str(detail["loc"][-1])):
            return [
                f"{key}: unknown key, and no place for a secret; set HF_TOKEN or run `hf auth login`, and remove it"
            ]
        return [f"{key}: {shown(detail['input'])}: unknown key; {hint}"]
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"]).split("\n")
    if detail["type"] == "missing":
        return [f"{key}: missing; add it"]
    if detail["type"] == "string_pattern_mismatch":
        return [f"{key}: {shown(detail['input'])} is not accepted; give module:function, such as my_rewards:brevity"]
    wanted = detail["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    return [f"{key}: {shown(detail['input'])} is not accepted; give {wanted}"]


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    section: type[BaseModel] = Config
    for part in location:
        field = section.model_fields.get(str(part))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        section = field.annotation
    return list(section.model_fields)
