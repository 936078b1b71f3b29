"""`mlx-grpo report`: a run as one HTML file that opens anywhere, without network, model or PyTorch.

The page is report.html with report.css and report.js inside it. This module gathers the records that they show.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from mlx_grpo.config.schema import Config
from mlx_grpo.data.dataset import context_of, dataset_files, read_rows
from mlx_grpo.data.inputs import rubric_version
from mlx_grpo.data.thinking import strip_thinking
from mlx_grpo.errors import UserError
from mlx_grpo.json_files import Record
from mlx_grpo.models.policy import model_name
from mlx_grpo.reporting import tables
from mlx_grpo.reporting.report_curves import curves
from mlx_grpo.runs import EPISODES, METRICS, RESULTS, SAMPLES, Episodes, Run
from mlx_grpo.tasks.base import Shown, ShownRow
from mlx_grpo.tasks.lookup import find_task

MAX_COMPLETION = 2400
"""Characters of a completion on the page."""
MAX_CONTEXT = 6000
"""Characters of a prompt on the page."""
MAX_SAMPLES = 400_000
"""Characters of all sampled completions: about 1.5 MB of the page."""


@dataclass(frozen=True, slots=True)
class Report:
    """A page that was written."""

    path: Path
    size: int
    """In bytes."""
    episodes: int
    """The number of held-out episodes on it."""
    missing: list[str]
    """Parts that it lacks, each with the reason."""


def write_report(name: str | None, out: Path | None = None) -> Report:
    """Write a run's page, by default to RUN/report.html.

    Raises UserError where the run's files can't be read or the page can't be written.
    """
    run = Run.find(name)
    records = gather(run)
    page = render(records).encode()
    path = out or run.folder / "report.html"
    try:
        path.write_bytes(page)
    except OSError as error:
        raise UserError(f"{path}: can't be written ({error.strerror}); name a file with --out") from None
    return Report(path, len(page), len(records["episodes"]), records["missing"])


def gather(run: Run) -> Record:
    """Return everything that the page shows, as JSON can hold it."""
    config = run.config
    results, episodes = run.results(), run.episodes()
    metrics, samples = run.metrics(), run.samples()
    missing = _missing(results, episodes, metrics, samples)
    train, heldout = _datasets(run, missing) if episodes or samples else (None, None)
    heldout_rows = _rows(heldout if episodes else None, missing)
    train_rows = _rows(train if samples else None, missing)
    return {
        "model": model_name(config.model),
        "run": run.name,
        "facts": _facts(config, results, metrics),
        **_comparison(results),
        "episodes": _episodes(episodes, heldout_rows, config),
        "curves": curves(metrics),
        "samples": _samples(samples, train_rows, config),
        "missing": missing,
    }


def render(records: Record) -> str:
    """Return the page with the records in it; its policy allows its own style and script, and no connection."""
    here = Path(__file__).resolve().parent
    page, style, script = ((here / f"report.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    # "<" would end the script element or open a comment in it; ASCII also carries half a surrogate pair.
    data = json.dumps(records, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    parts = {"POLICY": policy, "STYLE": style, "SCRIPT": script, "DATA": data}  # data last: it may hold these words
    for mark, text in parts.items():
        page = page.replace("{{" + mark + "}}", text, 1)
    return page


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _missing(results: Record | None, episodes: Episodes, metrics: list[Record], samples: list[Record]) -> list[str]:
    """List the files that the run lacks, each with what the page lacks for it."""
    missing = []
    if results is None:
        missing.append(f"{RESULTS}: not written yet, so there is no comparison; run `mlx-grpo eval` first")
    elif not episodes:
        missing.append(f"{EPISODES}: not in this folder, so no held-out completions are shown")
    if not any(record.get("reward") is not None for record in metrics):
        missing.append(f"{METRICS}: holds no GRPO step yet")
    if not samples:
        missing.append(f"{SAMPLES}: not in this folder, so no sampled completions are shown")
    return missing


def _datasets(run: Run, missing: list[str]) -> tuple[Path | None, Path | None]:
    """Return the files of the run's training and held-out rows, none where they are no longer what the run read."""
    try:
        run.check_inputs("rubric", "train", "heldout")
    except UserError as error:
        missing.append(f"{error.problems[0]}; prompts are not shown, and reasons are not marked")
        return None, None
    return dataset_files(run.config.data)


def _facts(config: Config, results: Record | None, metrics: list[Record]) -> list[str]:
    """Return the short lines under the page's title."""
    steps = sum(record.get("reward") is not None for record in metrics)
    facts = [f"{steps} GRPO steps", f"reward: {rubric_version(config) or ', '.join(config.reward.functions)}"]
    if results is None:
        return facts
    facts.append(f"{results['n_episodes']} held-out prompts, greedy, up to {results['max_new_tokens']} tokens")
    return [*facts, f"completed by {results['backend']} on {results['device']}"]


def _comparison(results: Record | None) -> Record:
    """Return the models, the reward's components, and the tables of the evaluation."""
    if results is None:
        return {"models": [], "components": [], "tables": [], "gain": None}
    return {
        "models": list(results["means"]),
        "components": results["components"],
        "tables": [tables.headline(results), tables.components(results)],
        "gain": tables.grpo_gain(results),
    }


def _episodes(episodes: Episodes, rows: dict[str, Record], config: Config) -> list[Record]:
    """Return each held-out prompt with every model's completion of it."""
    records = []
    for of_models in zip(*episodes.values(), strict=True):
        first = of_models[0]
        row = rows.get(first["prompt_id"], {})
        records.append(
            {
                "id": first["prompt_id"],
                "fit": _number(first.get("fit")),
                **_row(row, config),
                "answers": [_completion(episode, episode["components"], row, config) for episode in of_models],
            }
        )
    return records


def _samples(samples: list[Record], rows: dict[str, Record], config: Config) -> Record:
    """Return the sampled completions by step and prompt; only every n-th prompt where all would be too many."""
    groups = [list(group) for _, group in groupby(samples, key=lambda s: (s["step"], s["prompt_id"]))]
    every = max(1, math.ceil(sum(min(len(s["completion"]), MAX_COMPLETION) for s in samples) / MAX_SAMPLES))
    steps: dict[int, list[Record]] = {}
    for group in groups[::every]:
        row = rows.get(group[0]["prompt_id"], {})
        completions = [_completion(sample, sample["rewards"], row, config) for sample in group]
        steps.setdefault(group[0]["step"] + 1, []).append(
            {"id": group[0]["prompt_id"], **_row(row, config), "answers": completions}
        )
    return {
        "components": list(samples[0]["rewards"]) if samples else [],
        "shown": [len(groups[::every]), len(groups)],
        "steps": [{"step": step, "groups": of_step} for step, of_step in steps.items()],
    }


def _rows(path: Path | None, missing: list[str]) -> dict[str, Record]:
    """Return a dataset's rows by id, none where the file is gone, which is added to `missing`."""
    try:
        return {str(row["id"]): row for row in read_rows(path)} if path else {}
    except UserError as error:
        missing.append(f"{error.problems[0]}; prompts are not shown")
        return {}


def _row(row: Record, config: Config) -> Record:
    """Return a row's label and its prompt in parts with headings, as its task shows them."""
    task, context = find_task(config), context_of(row)
    text = context if isinstance(context, str) else ""
    label, parts = task.show_row(row, text) if task and row else ShownRow(None, [])
    shown = parts or ([("Prompt", text)] if text else [])
    return {"label": label, "shown": [[heading, _cut(part, MAX_CONTEXT)] for heading, part in shown]}


def _completion(scored: Record, components: dict[str, float | None], row: Record, config: Config) -> Record:
    """Return one completion: its reward and components, and its verdict and remarks as its task shows them."""
    task, text = find_task(config), strip_thinking(scored["completion"], scored.get("prompt_opens_thought", False))
    shown = task.show(text, row, config.reward) if task else Shown(None, None, None)
    return {
        "reward": _number(scored["reward"]),
        "components": [_number(value) for value in components.values()],
        "correct": None if scored.get("correct") is None else bool(scored["correct"]),
        "verdict": shown.verdict,
        "score": _number(scored.get("score", shown.score)),  # an evaluation has read it already
        "remarks": None if shown.remarks is None else [remark._asdict() for remark in shown.remarks],
        "text": _cut(scored["completion"], MAX_COMPLETION),
    }


def _number(value: float | None) -> float | None:
    """Return a figure as JSON holds it: NaN, where a reward does not apply, is null."""
    return None if value is None or not math.isfinite(value) else round(float(value), 4)


def _cut(text: str, most: int) -> str:
    text = text.strip()
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most} more characters)"
