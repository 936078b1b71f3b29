"""TRL 1.16.0's side of the comparison; run as a script to pin its answers as a fixture.

`python -m support.trl_oracle` in tests/ writes tests/fixtures/trl (needs torch and trl)
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset
from support.trl_cases import (
    ADVANTAGES,
    FIXTURE,
    MAX_COMPLETION_LENGTH,
    VOCABULARY,
    batch_of,
    cases,
    config_of,
    fingerprint,
    name_of,
    rollouts,
    shifted,
)
from transformers import TrainerState
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import start_event_loop_in_daemon

SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 64,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "attn_implementation": "eager",
}


class Oracle:
    """A GRPOTrainer whose settings are turned case by case; `_compute_loss` is TRL's own."""

    def __init__(self, folder: Path | None = None, temperature: float = 1.0):
        torch.manual_seed(0)
        if folder is None:
            self.model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**SIZES))
            for name, parameter in self.model.named_parameters():
                torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name else 0.0, std=0.2)
        else:
            self.model = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, attn_implementation="eager"
            )
        with tempfile.TemporaryDirectory() as scratch:
            self.trainer = GRPOTrainer(
                model=self.model,
                reward_funcs=lambda completions, **columns: [0.0] * len(completions),
                args=GRPOConfig(
                    output_dir=scratch,
                    use_cpu=True,
                    bf16=False,
                    per_device_train_batch_size=8,
                    num_generations=4,
                    max_completion_length=MAX_COMPLETION_LENGTH,
                    temperature=temperature,
                    report_to=[],
                ),
                train_dataset=Dataset.from_list([{"prompt": "x"}] * 8),
                processing_class=_tokenizer(),
            )
        self.trainer.model.train()
        self.trainer.current_gradient_accumulation_steps = 1

    def inputs(self) -> dict[str, torch.Tensor]:
        """The shared batch as TRL holds it: prompts padded on the left, completions on the right."""
        made = rollouts()
        longest = max(len(r.prompt.token_ids) for r in made)
        width = max(len(r.completion_ids) for r in made)
        mask = np.array(batch_of(config_of({})).mask)[:, :width]

        def rows(make: Any) -> torch.Tensor:
            return torch.tensor(np.array([make(r) for r in made]))

        return {
            "prompt_ids": rows(lambda r: [0] * (longest - len(r.prompt.token_ids)) + list(r.prompt.token_ids)),
            "prompt_mask": rows(lambda r: [0] * (longest - len(r.prompt.token_ids)) + [1] * len(r.prompt.token_ids)),
            "completion_ids": rows(lambda r: list(r.completion_ids) + [0] * (width - len(r.completion_ids))),
            "completion_mask": torch.tensor(mask).long(),
            "advantages": torch.tensor(ADVANTAGES),
            "num_items_in_batch": torch.tensor(mask.sum()),
        }

    def set(self, case: dict[str, Any]) -> None:
        """Turn the trainer's knobs to a case."""
        config, trainer = config_of(case), self.trainer
        trainer.loss_type, trainer.beta = config.loss_type, config.beta
        trainer.importance_sampling_level = config.importance_sampling_level
        trainer.epsilon_low, trainer.epsilon_high = config.epsilon, config.clip_high
        # TRL binds the temperature into the model's head when the trainer is made.
        assert trainer.temperature == config.temperature
        trainer.top_entropy_quantile = config.top_entropy_quantile
        trainer.args.delta = config.delta
        trainer.args.use_bias_correction_kl = config.use_bias_correction_kl

    def logps(self, case: dict[str, Any]) -> np.ndarray:
        """The policy's own log-probabilities [N, T] under a case's temperature."""
        self.set(case)
        inputs = self.inputs()
        with torch.no_grad():
            found, _, _ = self.trainer._get_per_token_logps_and_entropies(
                self.trainer.model,
                torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
                torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
                inputs["completion_ids"].shape[1],
            )
        return found.numpy()

    def answer(
        self, case: dict[str, Any], old: np.ndarray, reference: np.ndarray
    ) -> tuple[float, dict[str, np.ndarray], dict[str, float]]:
        """TRL's loss, gradients and metrics."""
        self.set(case)
        inputs = self.inputs()
        if not case.get("on_policy"):
            inputs["old_per_token_logps"] = torch.tensor(old)
        inputs["ref_per_token_logps"] = torch.tensor(reference)
        self.trainer._metrics["train"].clear()
        self.trainer.model.zero_grad()
        loss = self.trainer._compute_loss(self.trainer.model, inputs)
        loss.backward()
        gradients = {n: p.grad.numpy().copy() for n, p in self.model.named_parameters()}
        return loss.item(), gradients, {name: values[-1] for name, values in self.trainer._metrics["train"].items()}

    def advantages(
        self,
        values: np.ndarray,
        weights: dict[str, float],
        scale: str,
        aggregation: str = "sum_then_normalize",
    ) -> tuple[np.ndarray, dict[str, float]]:
        """TRL's advantages and reward metrics for what reward functions gave, [8, F] with NaN for None.

        Everything is TRL's own but the rewards, which stand in for those of its generated completions.
        """
        self.set({})
        trainer = self.trainer
        trainer.scale_rewards, trainer.multi_objective_aggregation = scale, aggregation
        trainer.reward_weights = torch.tensor(list(weights.values()), dtype=torch.float32)
        trainer.reward_funcs, trainer.reward_func_names = [None] * len(weights), list(weights)
        trainer._calculate_rewards = lambda *ignored: torch.tensor(values, dtype=torch.float32)
        trainer._metrics["train"].clear()
        scored = trainer._generate_and_score_completions([{"prompt": "x"}] * len(values))
        return scored["advantages"].numpy(), {name: found[-1] for name, found in trainer._metrics["train"].items()}

    def rewards(
        self,
        functions: dict[str, Callable[..., Any]],
        rows: list[dict[str, Any]],
        completion_ids: list[list[int]],
        tokenizer: transformers.PreTrainedTokenizerFast,
    ) -> np.ndarray:
        """TRL's rewards of each function, [N, F] with NaN for None, for rows whose completions have these tokens.

        Everything is TRL's own but the tokens: it reads the rows of a dataset, decodes, and calls the functions in the
        third of ten steps.
        """
        trainer = self.trainer
        found: list[torch.Tensor] = []

        def keep(*arguments: Any) -> None:
            found.append(GRPOTrainer._calculate_rewards(trainer, *arguments))
            raise StopIteration

        changes = {
            "reward_funcs": list(functions.values()),
            "reward_func_names": list(functions),
            "reward_processing_classes": [None] * len(functions),
            "processing_class": tokenizer,
            "_tokenizer": tokenizer,
            "num_generations": 4,
            "async_loop": start_event_loop_in_daemon()[1],
            "state": TrainerState(global_step=3, max_steps=10),
            "_generate_single_turn": lambda *ignored: (completion_ids, None),
            "_calculate_rewards": keep,
        }
        kept = {name: vars(trainer)[name] for name in changes if name in vars(trainer)}
        vars(trainer).update(changes)
        try:
            with pytest.raises(StopIteration):
                trainer._generate_and_score_completions(list(Dataset.from_list(rows)))
        finally:
            for name in changes:
                del vars(trainer)[name]
            vars(trainer).update(kept)
        return found[0].numpy()


def _tokenizer() -> transformers.PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models

    backend = Tokenizer(models.WordLevel({"<pad>": 0, "x": 1, "<eos>": 2}, unk_token="x"))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>")


def main() -> None:
    """Write the model and TRL's answer to every case."""
    plain = Oracle()
    plain.model.save_pretrained(FIXTURE)
    config = json.loads((FIXTURE / "config.json").read_text())
    config["rope_theta"] = SIZES["rope_theta"]  # where mlx-lm looks for it
    (FIXTURE / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    tempered = Oracle(FIXTURE, temperature=0.7)
    pinned = []
    for case in cases():
        oracle = tempered if "temperature" in case else plain
        old, reference = shifted(oracle.logps(case))
        loss, gradients, metrics = oracle.answer(case, old, reference)
        pinned.append(
            {
                "name": name_of(case),
                "loss": loss,
                "gradients": {name: fingerprint(g) for name, g in gradients.items()},
                "metrics": {name: metrics[name] for name in sorted(metrics) if np.isscalar(metrics[name])},
                "old": old.tolist(),
                "reference": reference.tolist(),
            }
        )
    (FIXTURE / "cases.json").write_text(json.dumps(pinned) + "\n")
    print(f"{len(pinned)} cases")


if __name__ == "__main__":
    sys.exit(main())
