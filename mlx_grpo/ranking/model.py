"""The model that a ranking uses, from a run or a folder, and the form of its prompts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from mlx_grpo.config.schema import EvalConfig, RewardConfig
from mlx_grpo.errors import UserError
from mlx_grpo.models.policy import find_model, trained_dtype
from mlx_grpo.runs import CONFIG, Run
from mlx_grpo.tasks.shortlist.build import DEFAULT_BUDGET
from mlx_grpo.tasks.shortlist.instruction import Message, instruction_of
from mlx_grpo.tasks.shortlist.records import Form
from mlx_grpo.tasks.shortlist.task import make_rubric
from reward import STRICT, Rubric
from reward.limits import StrictLimits

# The files of a model's folder that its completions depend on.
FINGERPRINTED = (
    "*.safetensors",
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "chat_template*",
    "adapter_*.json",
)


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings that an answer depends on, beside the model, the job and the candidate.

    The batch size is not one of them: it changes the logits in their last digits only.
    """

    form: Form
    instruction: tuple[Message, ...]
    """The messages before the candidate's; a run's own where a run answers."""
    token_budget: int = DEFAULT_BUDGET["compact"]
    max_new_tokens: int = EvalConfig().max_new_tokens
    enable_thinking: bool = False
    seed: int = 0
    today: str | None = None
    """The date in a run's prompts, where its chat template writes one; None is the clock's."""


@dataclass(frozen=True, slots=True)
class RankingModel:
    """A model to rank with, not loaded yet."""

    base: Path
    adapter: Path | None
    dtype: str
    settings: Settings
    batch_size: int | None
    """The most candidates to decode together; None chooses by memory."""
    rubric: Rubric[StrictLimits]
    """The strict rubric, with a run's limits; the published one does not judge single reasons."""

    def fingerprint(self) -> str:
        """Hash the content of every file that completions depend on, so that a copied folder is the same model."""
        digest = hashlib.sha256(self.dtype.encode())
        for folder in (self.base, self.adapter):
            paths = {path for pattern in FINGERPRINTED for path in folder.glob(pattern)} if folder else set()
            for path in sorted(paths):
                with path.open("rb") as file:
                    digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}".encode())
        return digest.hexdigest()


def find_ranking_model(model: str, form: Form | None) -> RankingModel:
    """Find the model that a run folder, a model folder or a Hub id names.

    Without a `form` a run's prompts get the form that it was trained on. Raises UserError where there is no such
    model, or a run's prompts are not those of the shortlist task.
    """
    if (Path(model) / CONFIG).is_file():
        return _of_run(Run(Path(model)), form)
    form = form or "compact"
    settings = Settings(form, instruction_of(form), DEFAULT_BUDGET[form])
    return RankingModel(find_model(model), None, "auto", settings, EvalConfig().batch_size, STRICT)


def _of_run(run: Run, form: Form | None) -> RankingModel:
    config = run.config
    adapter = run.adapter()
    form, instruction = _trained_prompt(run, form)
    return RankingModel(
        find_model(config.model),
        adapter,
        trained_dtype(config.fine_tune_type, config.dtype),
        Settings(
            form,
            instruction,
            DEFAULT_BUDGET[form],
            config.eval.max_new_tokens,
            config.data.enable_thinking,
            today=run.today,
        ),
        config.eval.batch_size,
        make_rubric(config.reward if config.reward.rubric == "strict" else RewardConfig()),
    )


def _trained_prompt(run: Run, wanted: Form | None) -> tuple[Form, tuple[Message, ...]]:
    """Return the form and the instruction of the prompts that a run was trained on.

    A `wanted` form comes first. A run of another task is asked by the shortlist task's own instruction.
    """
    inputs = run.inputs
    if inputs is None:
        raise UserError(
            f"{run.folder}: is older than the prompts of this version, and kept no record of its own; train it again, "
            "or rank with the version that began it"
        )
    for form in get_args(Form):
        if form == inputs.form:
            return wanted or form, tuple(inputs.instruction)
    if wanted is None:
        raise UserError(
            f"{run.folder}: its training prompts ({run.config.data.train}) ask something else than the shortlist "
            "task; name the form to ask in: --form compact or --form full"
        )
    return wanted, instruction_of(wanted)
