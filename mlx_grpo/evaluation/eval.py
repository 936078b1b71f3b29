"""`mlx-grpo eval`: complete the held-out prompts by every model, score, summarize, write and draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from convert.torch_eval import pick_device
from mlx_grpo.config.schema import Config
from mlx_grpo.data.dataset import check_lengths
from mlx_grpo.data.inputs import rubric_version
from mlx_grpo.data.thinking import ends_in_thought
from mlx_grpo.data.types import Prompt
from mlx_grpo.distributed.ranks import Ranks
from mlx_grpo.errors import UserError
from mlx_grpo.evaluation.episodes import cluster_column, heldout_prompts, score_completions
from mlx_grpo.evaluation.generators import Completer, GreedySettings, Progress
from mlx_grpo.evaluation.run_matrix import RunMatrix, build_run_matrix
from mlx_grpo.evaluation.summary import summarize
from mlx_grpo.evaluation.torch_check import Score, check_in_torch
from mlx_grpo.export.export import write_card
from mlx_grpo.json_files import Record
from mlx_grpo.models.folder import ModelFolder
from mlx_grpo.models.policy import find_model, load_tokenizer_of, model_name, trained_dtype
from mlx_grpo.reporting.plots_eval import draw_evaluation
from mlx_grpo.reporting.plots_training import draw_training
from mlx_grpo.rewards import check_columns, load_judge, load_reward
from mlx_grpo.runs import Episodes, Run, write_results
from mlx_grpo.user_functions import TrainerState


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A finished evaluation."""

    results: Record
    """What eval.json holds."""
    episodes: Episodes
    """What episodes.jsonl holds, by model."""
    written: list[Path]
    """The files of both, and the pictures."""
    card: Path | None
    """The model card that now shows the results; None where RUN/hf is no export of this adapter."""
    notes: list[str]
    """A line for each model whose completions end inside their thought."""


def run_eval(
    name: str | None,
    *,
    backend: str,
    device: str,
    episodes: int | None,
    max_new_tokens: int | None,
    progress: Progress,
    others: Sequence[str] = (),
    out: Path | None = None,
    ranks: Ranks | None = None,
    torch_episodes: int | None = None,
) -> Evaluation | None:
    """Compare a run's models, and those of the `others`, on the first run's held-out prompts by its reward.

    Results and pictures go to the run's folder or to `out`. The `ranks` share MLX's completions; the first one writes,
    the others return None. The trained model's first `torch_episodes` prompts are completed in PyTorch too. Raises
    UserError where a run has no held-out prompts or no adapter, or does not fit beside the first.
    """
    ranks = ranks or Ranks()
    runs = _find_runs(name, others)
    run = runs[0]
    folder = _make(out or run.folder)  # before the work, not after it
    settings = _greedy_settings(run.config, backend, device, max_new_tokens, ranks)
    torch_device = _torch_device(backend, torch_episodes)
    matrix = build_run_matrix(runs)
    prompts = heldout_prompts(run, episodes, runs[1:])
    _check(prompts, run.config, settings)
    cluster = cluster_column(run.config, prompts)
    score = _scorer(run.config, cluster)
    completer = Completer(run, settings, folder, progress, ranks)
    completions = {name: completer.complete(name, adapter, prompts) for name, adapter in matrix.adapters.items()}
    if not ranks.leads:
        return None
    scored = {model: score(prompts, texts) for model, texts in completions.items()}
    results = {**_facts(run, matrix, settings, len(prompts)), **summarize(scored, matrix, cluster)}
    if torch_episodes:
        few = prompts[:torch_episodes]
        results["in_torch"] = check_in_torch(completer, few, scored["trained"], score, torch_device)
    written = _write(run, folder, results, scored)
    completer.forget()
    notes = thought_notes(prompts, completions, settings.max_new_tokens)
    return Evaluation(results, scored, written, write_card(run) if out is None else None, notes)


def _scorer(config: Config, cluster: str | None) -> Score:
    """Return the function that scores completions as at the end of training."""
    reward, judge = load_reward(config.reward), load_judge(config)
    at_end = TrainerState(config.max_steps, config.max_steps)
    tokenizer = load_tokenizer_of(config.model) if config.reward.functions else None  # a rubric reads text alone

    def score(prompts: Sequence[Prompt], texts: Sequence[str]) -> list[Record]:
        ids = [tokenizer.encode(text, add_special_tokens=False) for text in texts] if tokenizer else None
        return score_completions(prompts, texts, reward, judge, cluster, ids, at_end)

    return score


def thought_notes(prompts: Sequence[Prompt], completions: Mapping[str, Sequence[str]], limit: int) -> list[str]:
    """Describe for each model how many of its completions end inside their thought."""
    notes = []
    for model, texts in completions.items():
        pairs = zip(prompts, texts, strict=True)
        inside = sum(ends_in_thought(text, prompt.opens_thought) for prompt, text in pairs)
        if inside:
            notes.append(
                f"{model}: {inside} of {len(texts)} completions end inside their thought and say nothing to grade; "
                f"raise eval.max_new_tokens ({limit}), or set data.enable_thinking to false"
            )
    return notes


def _find_runs(name: str | None, others: Sequence[str]) -> list[Run]:
    """Return the runs; UserError where the rubric or the held-out rows of one have changed since it began."""
    runs = [Run.find(name), *map(Run.find, others)]
    for run in runs:
        run.check_inputs("rubric", "heldout")
    return runs


def _make(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out: {folder} can't be made ({error.strerror}); choose another folder") from None
    return folder


def _write(run: Run, folder: Path, results: Record, scored: Episodes) -> list[Path]:
    """Write figures, episodes and pictures into a folder, and return their paths."""
    files, pictures = write_results(folder, results, scored), folder / "plots"
    return [*files, *draw_training(run.metrics_file, pictures), *draw_evaluation(results, scored, pictures)]


def _greedy_settings(
    config: Config, backend: str, device: str, max_new_tokens: int | None, ranks: Ranks
) -> GreedySettings:
    """Return the settings of all completions; UserError where the device is not there."""
    return GreedySettings(
        backend=backend,
        device=_pick_device(backend, device, ranks),
        dtype=trained_dtype(config.fine_tune_type, config.dtype),
        max_new_tokens=max_new_tokens or config.eval.max_new_tokens,
        batch_size=config.eval.batch_size,
    )


def _pick_device(backend: str, device: str, ranks: Ranks) -> str:
    """Return the device that was asked for or that "auto" means; UserError where it is not there."""
    if backend == "torch":
        if ranks.size > 1:
            raise UserError("--backend torch: PyTorch uses every core by itself; add --backend mlx to share prompts")
        return pick_device(device)
    present = str(mx.default_device().type).rpartition(".")[2]
    if device not in ("auto", present):
        raise UserError(f"--device {device}: MLX computes on the {present} here; leave it out, or use torch")
    return present


def _torch_device(backend: str, episodes: int | None) -> str:
    """Return PyTorch's device for its part of MLX's evaluation; UserError where all of it is PyTorch's."""
    if episodes and backend == "torch":
        raise UserError("--torch-episodes: every episode is completed in PyTorch already; add --backend mlx")
    return pick_device() if episodes else ""


def _check(prompts: Sequence[Prompt], config: Config, settings: GreedySettings) -> None:
    """Raise UserError where the reward can't grade a prompt, or a completion would not fit the model's context."""
    check_columns(config.reward, prompts)
    limit = ModelFolder.read(find_model(config.model)).length_limit
    check_lengths(prompts, settings.max_new_tokens, limit, "max_new_tokens")


def _facts(run: Run, matrix: RunMatrix, settings: GreedySettings, n_episodes: int) -> Record:
    """Return the beginning of eval.json: what was evaluated, and how."""
    reward = run.config.reward
    return {
        "model": model_name(run.config.model),
        "run": run.name,
        "runs": {name: run.name for name, run in matrix.runs.items()},
        "rubric": reward.rubric or ", ".join(reward.functions),
        "rubric_version": rubric_version(run.config),
        "backend": settings.backend,
        "device": settings.device,
        "n_episodes": n_episodes,
        "max_new_tokens": settings.max_new_tokens,
        "kept_step": run.kept_step(),
    }
