"""A run's model before and after training, asked the same prompts one at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mlx_grpo.data.dataset import check_lengths, dataset_files, make_prompt, read_rows
from mlx_grpo.data.thinking import ends_in_thought, strip_thinking
from mlx_grpo.data.types import Prompt, Rollout
from mlx_grpo.errors import UserError
from mlx_grpo.evaluation.episodes import heldout_prompts
from mlx_grpo.generation.rollout import stream
from mlx_grpo.generation.sampling import Sampling
from mlx_grpo.models.policy import load_adapter, load_policy, swapped
from mlx_grpo.ranking.single import CandidateRow, candidate_row
from mlx_grpo.rewards import Reward, check_columns, load_reward
from mlx_grpo.runs import Run
from mlx_grpo.tasks.lookup import find_task
from mlx_grpo.user_functions import TrainerState

MODELS = ("base", "trained")


@dataclass(frozen=True, slots=True)
class Clause:
    """A clause of a reason."""

    text: str
    status: str
    """confirmed, refuted or unread."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One model's completion of a prompt, and what the rules say to it."""

    completion: str
    finish_reason: str
    note: str
    """Why it has no end; "" where it has one."""
    reward: float | None
    """By the run's reward; None for a prompt without a row."""
    verdict: str | None
    """What it says in a word, where the run's task reads one."""
    score: float | None
    reasons: tuple[tuple[Clause, ...], ...]
    """The clauses of each reason; no reasons without facts."""
    faults: tuple[str, ...]
    """Why clauses are refuted."""


class Chat:
    """The base and the trained model of a run, which share all weights that training does not change."""

    def __init__(self, run: Run, max_new_tokens: int | None = None, temperature: float = 0.0, seed: int = 0):
        self.run = run
        self.config = run.config
        self.seed = seed
        self.sampling = Sampling(max_new_tokens or self.config.eval.max_new_tokens, temperature)
        adapter = run.adapter()  # raises UserError before the model is loaded
        self.policy = load_policy(self.config)
        base = self.policy.model.trainable_parameters()
        load_adapter(self.policy, adapter)
        self._parameters = {"base": base, "trained": self.policy.model.trainable_parameters()}

    def complete(self, model: str, prompt: Prompt, on_text: Callable[[str], None] = lambda text: None) -> Rollout:
        """Complete a prompt with the "base" or the "trained" model; give `on_text` the text as it grows."""
        check_lengths([prompt], self.sampling.max_tokens, self.policy.length_limit, "--max-new-tokens")
        with swapped(self.policy.model, self._parameters[model]):
            return stream(self.policy, prompt, self.sampling, on_text, seed=self.seed)

    def reply(self, rollout: Rollout, labelled: bool) -> Reply:
        """Return a completion with what the rules say; `labelled` prompts are rows that the reward can grade."""
        config, prompt, task = self.config, rollout.prompt, find_task(self.config)
        text = strip_thinking(rollout.completion, prompt.opens_thought)
        shown = task.show(text, prompt.columns, config.reward) if task else None
        remarks = shown.remarks or [] if shown else []
        return Reply(
            completion=rollout.completion,
            finish_reason=rollout.finish_reason,
            note=_cut_note(rollout),
            reward=self._reward_of(rollout) if labelled else None,
            verdict=shown.verdict if shown else None,
            score=shown.score if shown else None,
            reasons=tuple(tuple(Clause(*piece) for piece in remark.pieces if piece[1]) for remark in remarks),
            faults=tuple(dict.fromkeys(fault for remark in remarks for fault in remark.faults)),
        )

    def typed_prompt(self, text: str) -> Prompt:
        """Make a prompt of a text: after the run's instruction, where its rows are chats.

        Raises UserError where the text has bytes that are no UTF-8.
        """
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UserError("the prompt holds bytes that are no UTF-8; write it in UTF-8") from None
        inputs = self.run.inputs
        instruction = inputs.instruction if inputs else []
        asked: Any = text if self._plain else [*instruction, {"role": "user", "content": text}]
        return self._prompt({"id": "typed", "prompt": asked})

    def candidate_prompt(self, jd: Path, candidates: Path, name: str | None) -> tuple[Prompt, CandidateRow]:
        """Make a prompt of a job's file and a candidate of a file, with the job as it was read."""
        tokenizer = self.policy.tokenizer
        found = candidate_row(
            self.run, jd, candidates, name, lambda text: len(tokenizer.encode(text, add_special_tokens=False))
        )
        return self._prompt(found.row), found

    @cached_property
    def heldout(self) -> list[Prompt]:
        """Return the run's held-out prompts in order, without those that chose its adapter.

        Raises UserError where it has none, or they have changed since the run began.
        """
        self.run.check_inputs("heldout")
        prompts = heldout_prompts(self.run)
        if not prompts:
            raise UserError("data.heldout: no row is left beside the validation split; lower eval.validation")
        check_columns(self.config.reward, prompts)
        return prompts

    def label(self, prompt: Prompt) -> str | None:
        """Return the right verdict of a row in a word, where its task has one."""
        task, text = find_task(self.config), prompt.context if isinstance(prompt.context, str) else ""
        return task.show_row(prompt.columns, text).label if task else None

    def _prompt(self, row: dict[str, Any]) -> Prompt:
        return make_prompt(row, self.policy.tokenizer, self.config.data.enable_thinking, self.run.today)

    @cached_property
    def _plain(self) -> bool:
        """Return True if the run's rows are plain text, or its model knows no chat."""
        if not self.policy.tokenizer.has_chat_template:
            return True
        if self.run.inputs and self.run.inputs.instruction:
            return False
        try:
            return isinstance(read_rows(dataset_files(self.config.data)[0])[0]["prompt"], str)
        except UserError:  # its data is gone
            return False

    @cached_property
    def _reward(self) -> Reward:
        return load_reward(self.config.reward)

    def _reward_of(self, rollout: Rollout) -> float | None:
        at_end = TrainerState(self.config.max_steps, self.config.max_steps)
        scores = self._reward([rollout.prompt], [rollout.completion], [rollout.whole_ids], at_end)
        reward = float(scores.rewards[0])
        return None if math.isnan(reward) else reward


def _cut_note(rollout: Rollout) -> str:
    if rollout.finish_reason == "stop":
        return ""
    inside = ends_in_thought(rollout.completion, rollout.prompt.opens_thought)
    return f"cut off after {len(rollout.completion_ids)} tokens{', inside its thought' if inside else ''}"
