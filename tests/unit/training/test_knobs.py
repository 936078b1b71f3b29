"""Every key of the configuration has an effect: changing it changes an output, and no key lacks a test."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from rich.console import Console
from support.facts import FACTS
from support.hub_data import as_client, jsonl
from support.hub_server import Dataset
from support.tiny_models import LLAMA, make_model_folder

from mlx_grpo import runs
from mlx_grpo.config.files import validate
from mlx_grpo.config.schema import Config
from mlx_grpo.data.dataset import dataset_files, read_rows
from mlx_grpo.data.types import Prompt
from mlx_grpo.evaluation.episodes import heldout_prompts
from mlx_grpo.evaluation.eval import run_eval
from mlx_grpo.rewards import load_reward
from mlx_grpo.runs import Run
from mlx_grpo.training.checkpoint import list_checkpoints
from mlx_grpo.training.progress import ConsoleReporter
from mlx_grpo.training.trainer import train

LETTERS = {"rubric": None, "functions": ["support.toy_rewards:share_of_letters"]}
ON_HUB = {"train": "org/knobs", "heldout": None, "subset": "a", "columns": {"prompt": "text"}}
FAR = {"num_iterations": 3, "learning_rate": 0.05, "max_grad_norm": 0.0}  # far enough for clipping and KL to act
GOLD = Prompt("r", "", (1,), {"decision": "reject", "score": 0.2, "facts": FACTS}, "Python")
ANSWER = '{"decision":"reject","score":0.3,"reasons":["knows Python","knows much"]} '

# key: (value, the output that it changes, settings that both runs share)
KNOBS: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "model": ("OTHER", "samples", {}),
    "dtype": ("bfloat16", "samples", {}),
    "fine_tune_type": ("full", "adapter", {}),
    "lora.rank": (3, "adapter", {}),
    "lora.scale": (5.0, "adapter", {}),
    "lora.dropout": (0.5, "adapter", {}),
    "lora.num_layers": (1, "adapter", {}),
    "lora.keys": (["self_attn.q_proj"], "adapter", {}),
    "data.train": ("OTHER_ROWS", "samples", {}),
    "data.heldout": ("OTHER_ROWS", "heldout", {}),
    "data.split": ("other", "rows", {"data": ON_HUB}),
    "data.heldout_split": ("other", "rows", {"data": ON_HUB}),
    "data.subset": ("b", "rows", {"data": ON_HUB}),
    "data.columns": ({"prompt": "text", "n": None}, "rows", {"data": ON_HUB}),
    "data.as_messages": (True, "rows", {"data": ON_HUB}),
    "data.system": ("Be short.", "rows", {"data": {**ON_HUB, "as_messages": True}}),
    "data.balance_by": ("parity", "samples", {}),
    "data.cluster_by": ("parity", "samples", {}),
    "data.cluster_size": (2, "samples", {"data": {"cluster_by": "parity"}}),
    "data.enable_thinking": (True, "samples", {}),
    "reward.rubric": ("published", "scores", {"reward": {"rubric": "strict"}}),
    "reward.weights": ({"format_valid": 0.9}, "scores", {"reward": {"rubric": "published"}}),
    "reward.limits": ({"min_reasons": 1, "max_reasons": 1}, "scores", {"reward": {"rubric": "strict"}}),
    "reward.functions": (["support.toy_rewards:only_long"], "scores", {}),
    "reward.reward_weights": ([3.0], "scores", {}),
    "reward.judge": ("support.toy_rewards:length_figures", "episodes", {"reward": LETTERS}),
    "reward.shuffle": (True, "adapter", {"reward": LETTERS}),
    "warm_start.steps": (2, "warm start", {}),
    "warm_start.batch_size": (3, "warm start", {"warm_start": {"steps": 1}}),
    "warm_start.learning_rate": (0.03, "warm start", {"warm_start": {"steps": 1}}),
    "warm_start.warmup_steps": (1, "warm start", {"warm_start": {"steps": 2}}),
    "warm_start.run": ("OTHER_RUN", "warm start", {"warm_start": {"steps": 1}}),
    "eval.episodes": (1, "evaluation", {}),
    "eval.max_new_tokens": (3, "evaluation", {}),
    "eval.batch_size": (1, "evaluation", {}),
    "eval.cluster": ("parity", "episodes", {}),
    "seed": (1, "samples", {}),
    "output_dir": ("OTHER_FOLDER", "folder", {}),
    "max_steps": (3, "samples", {}),
    "prompts_per_step": (1, "samples", {}),
    "num_generations": (2, "samples", {}),
    "micro_batch_size": (1, "memory", {"num_generations": 8, "max_completion_length": 64}),
    "num_iterations": (2, "adapter", {}),
    "dynamic_sampling": (1, "samples", {"max_completion_length": 1, "num_generations": 2}),
    "branch_at": ("\ufffd", "samples", {}),  # random bytes make this replacement character in every completion
    "max_completion_length": (4, "samples", {}),
    "temperature": (0.5, "samples", {}),
    "top_p": (0.5, "samples", {}),
    "top_k": (3, "samples", {}),
    "min_p": (0.5, "samples", {}),
    "loss_type": ("sapo", "adapter", FAR),
    "multi_objective_aggregation": (
        "normalize_then_sum",
        "adapter",
        {"reward": {"rubric": None, "functions": [*LETTERS["functions"], "support.toy_rewards:only_long"]}},
    ),
    "scale_rewards": ("none", "adapter", {}),
    "importance_sampling_level": ("sequence", "adapter", FAR),
    "epsilon": (0.01, "adapter", {**FAR, "epsilon_high": 0.2}),
    "epsilon_high": (0.9, "adapter", FAR),
    "delta": (1.3, "adapter", FAR),
    "beta": (0.5, "adapter", FAR),
    "use_bias_correction_kl": (False, "adapter", {**FAR, "beta": 0.5}),
    "mask_truncated_completions": (True, "adapter", {}),
    "top_entropy_quantile": (0.3, "adapter", {}),
    "learning_rate": (0.02, "adapter", {}),
    "lr_scheduler_type": ("constant", "adapter", {}),
    "warmup_steps": (1, "adapter", {}),
    "weight_decay": (0.5, "adapter", {}),
    "adam_beta1": (0.5, "adapter", {}),
    "adam_beta2": (0.5, "adapter", {}),
    "adam_epsilon": (0.1, "adapter", {}),
    "max_grad_norm": (1e-9, "adapter", {}),
    "gradient_checkpointing": (True, "memory", {"num_generations": 8, "max_completion_length": 64}),
    "report_to": ("tensorboard", "event files", {}),
    "logging_steps": (2, "lines", {}),
    "save_steps": (1, "early adapter", {}),
    "save_total_limit": (1, "checkpoints", {"save_steps": 1}),
    "eval_steps": (1, "early adapter", {}),
    "eval.validation": (1, "validation", {"eval_steps": 1}),
}


def leaves(section: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """Return every key of the configuration, with its section."""
    keys = []
    for name, field in section.model_fields.items():
        nested = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        keys += leaves(field.annotation, f"{prefix}{name}.") if nested else [prefix + name]
    return keys


def test_every_config_key_has_a_knob():
    assert sorted(leaves()) == sorted(KNOBS)


class Watcher(ConsoleReporter):
    """A ConsoleReporter that records whether the adapter exists after the first step."""

    def __init__(self, root: Path, logging_steps: int):
        super().__init__(Console(file=io.StringIO(), width=200), logging_steps)
        self.root, self.early = root, False

    def step(self, metrics: dict[str, float]) -> None:
        super().step(metrics)
        if "reward" in metrics and metrics["step"] == 0:
            self.early = any(self.root.glob(f"*/{runs.ADAPTER}"))


class Bench:
    """A tiny model and dataset; `observe` trains on them and returns the output that a key may change."""

    def __init__(self, folder: Path, model: Path):
        self.folder, self.model, self.count = folder, model, 0
        self.other_model = make_model_folder(folder / "other-model", LLAMA)
        for name in ("rows", "other"):
            rows = [
                {
                    "id": f"{name}{i}",
                    "prompt": [{"role": "user", "content": f"{name} {i}"}],
                    "completion": "aaaaaaaa",
                    "parity": i % 2,
                }
                for i in range(4)
            ]
            (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def config(self, changes: dict[str, Any]) -> Config:
        self.count += 1
        values: dict[str, Any] = {
            "model": str(self.model),
            "dtype": "float32",
            "lora": {"rank": 2},
            "data": {"train": str(self.folder / "rows.jsonl"), "heldout": str(self.folder / "rows.jsonl")},
            "reward": LETTERS,
            "warm_start": {"batch_size": 2, "learning_rate": 0.01},
            "eval": {"episodes": 2, "max_new_tokens": 5, "batch_size": 2},
            "output_dir": str(self.folder / str(self.count)),
            "max_steps": 2,
            "prompts_per_step": 2,
            "num_generations": 4,
            "max_completion_length": 60,
            "learning_rate": 0.01,
        }
        special = {
            "OTHER": str(self.other_model),
            "OTHER_ROWS": str(self.folder / "other.jsonl"),
            "OTHER_FOLDER": str(self.folder / "elsewhere" / str(self.count)),
        }
        for key, value in changes.items():
            section, _, leaf = key.rpartition(".")
            if value == "OTHER_RUN":
                other = self.config({"warm_start": {"steps": 1}, "seed": 1})
                value = str(train(other, Watcher(Path(other.output_dir), other.logging_steps)).folder)
            value = special.get(value, value) if isinstance(value, str) else value
            if section:
                values[section] = {**values[section], leaf: value}
            elif isinstance(value, dict) and key != "reward":
                values[key] = {**values[key], **value}
            else:
                values[key] = value
        if values.get("fine_tune_type") == "full":
            values.pop("lora")
        return validate(values)

    def observe(self, changes: dict[str, Any], wanted: str) -> Any:
        config = self.config(changes)
        if wanted == "rows":
            return [path and read_rows(path) for path in dataset_files(config.data)]
        if wanted == "scores":
            scores = load_reward(config.reward)([GOLD, GOLD], [ANSWER, "short"])
            return scores.rewards.tolist(), {name: values.tolist() for name, values in scores.components.items()}
        watcher = Watcher(Path(config.output_dir), config.logging_steps)
        with watcher:
            run = train(config, watcher).folder
        if wanted in ("evaluation", "episodes"):
            calls: list[tuple] = []
            evaluation = run_eval(
                str(run),
                backend="mlx",
                device="cpu",
                episodes=None,
                max_new_tokens=None,
                progress=lambda *call: calls.append(call),
            )
            if wanted == "episodes":
                return evaluation.episodes
            return calls, [episode["completion"] for episode in evaluation.episodes["trained"]]
        if wanted == "samples":
            return (run / runs.SAMPLES).read_text()
        if wanted == "memory":
            return max(m["peak_memory_gb"] for m in runs.read_jsonl(run / runs.METRICS))
        return {
            "adapter": lambda: (run / runs.ADAPTER / "adapters.safetensors").read_bytes(),
            "warm start": lambda: [p.read_bytes() for p in run.glob(f"{runs.WARM_START}/*.safetensors")],
            "heldout": lambda: [prompt.id for prompt in heldout_prompts(Run(run))],
            "folder": lambda: run.parent.parent.name == "elsewhere",
            "lines": lambda: watcher.console.file.getvalue().count(" reward "),
            "checkpoints": lambda: len(list_checkpoints(Run(run))),
            "event files": lambda: len(list(run.glob("tensorboard/*"))),
            "early adapter": lambda: watcher.early,
            "validation": lambda: [m["eval/reward"] for m in runs.read_jsonl(run / runs.METRICS)],
        }[wanted]()


@pytest.fixture(scope="module")
def bench(tiny_qwen3: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    names = [f"{subset}/{split}.jsonl" for subset in "ab" for split in ("train", "test", "other")]
    with as_client(tmp_path_factory.mktemp("home")) as hub:
        hub.datasets["org/knobs"] = Dataset({"main": {name: jsonl([{"text": name, "n": 1}]) for name in names}})
        yield Bench(tmp_path_factory.mktemp("knobs"), tiny_qwen3)


@pytest.mark.parametrize("key", KNOBS)
def test_changing_a_key_changes_its_output(key: str, bench: Bench):
    value, wanted, shared = KNOBS[key]
    if key == "report_to":
        pytest.importorskip("tensorboard", reason="needs tensorboard: [dev] extra")
    if wanted == "memory":
        assert bench.observe({**shared, key: value}, wanted) < 0.9 * bench.observe(shared, wanted)
        return
    assert bench.observe(shared, wanted) != bench.observe({**shared, key: value}, wanted)


def test_same_config_gives_the_same_outputs(bench: Bench):
    for wanted in ("samples", "adapter", "warm start", "lines", "evaluation"):
        assert bench.observe({"warm_start": {"steps": 1}}, wanted) == bench.observe(
            {"warm_start": {"steps": 1}}, wanted
        )
