"""Write an evaluation and its runs' rewards by step to docs/results, and draw these.

`python -m support.record NAME EVALUATION RUN...`, run in `tests/`: EVALUATION is the folder that `mlx-grpo eval`
wrote, and each RUN a folder it compared, in that order. `python -m support.record --draw NAME` draws
docs/pictures/NAME.png from the file.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from support.paths import ROOT
from support.stated import stated_auc

from mlx_grpo.config.files import flat
from mlx_grpo.config.schema import Config
from mlx_grpo.evaluation.run_matrix import IGNORED_KEY_PREFIXES
from mlx_grpo.json_files import read_jsonl
from mlx_grpo.reporting.plots_training import BLUE, GREY, legend, moving_average, save, whole_numbers
from mlx_grpo.runs import Run, read_episodes

RESULTS, PICTURES = ROOT / "docs" / "results", ROOT / "docs" / "pictures"
WINDOW = 3
"""Steps that a moving average spans."""
LEFT_OUT = ("run", "runs", "kept_step", "grpo_over_warm_start")


DEFAULTS = flat(Config(model="").model_dump())
"""The settings that a file of results leaves out."""


def settings_of(config: Config) -> dict[str, Any]:
    """Return the settings that decide what a run learns, where they are not the defaults."""
    settings = flat(config.model_dump())
    return {
        key: Path(value).name if str(value).startswith("/") else value
        for key, value in settings.items()
        if value != DEFAULTS.get(key) and not key.startswith(IGNORED_KEY_PREFIXES)
    }


def rewards_of(run: Run) -> list[float]:
    """Return the mean reward of a run's sampled completions, step by step."""
    records = [record for record in read_jsonl(run.folder / "metrics.jsonl") if record.get("reward") is not None]
    return [round(record["reward"], 4) for record in records]


def rounded(value: Any) -> Any:
    """Return JSON with its floats rounded to six digits."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return round(value, 6) if isinstance(value, float) else value


def record(options: argparse.Namespace) -> dict[str, Any]:
    """Return what docs/results keeps of an evaluation."""
    results = rounded(json.loads((options.evaluation / "eval.json").read_text(encoding="utf-8")))
    runs = [Run(folder.resolve()) for folder in options.runs]
    models = [model for model in results["means"] if model.startswith("trained")]
    rewards = {model: rewards_of(run) for model, run in zip(models, runs, strict=True)}
    kept = {key: value for key, value in results.items() if key not in LEFT_OUT}
    about = {"name": options.name, "machine": options.machine, "settings": settings_of(runs[0].config)}
    if options.data:
        about["data_made_by"] = options.data
    if options.model:
        kept["model"] = about["settings"]["model"] = options.model
    if results["rubric"] == "strict":
        episodes = read_episodes(options.evaluation / "eval.json")
        kept["stated_auc"] = {model: round(stated_auc(own), 6) for model, own in episodes.items()}
    return {**about, **kept, "rewards_by_step": rewards}


def draw(results: dict[str, Any]) -> Figure:
    """Draw the reward by step of every run: each step faint, the moving average on top, the control in grey."""
    figure, axes = plt.subplots(figsize=(8, 4.5))
    for number, (model, rewards) in enumerate(results["rewards_by_step"].items()):
        control = "shuffled" in model
        colour = GREY if control else BLUE
        label = "control, rewards at random" if control else f"seed {number}"
        steps = range(1, len(rewards) + 1)
        axes.plot(steps, rewards, ".", color=colour, alpha=0.25)
        style = "-" if control else ("-", "--", ":")[number % 3]
        axes.plot(steps[WINDOW - 1 :], moving_average(rewards, WINDOW), style, color=colour, linewidth=2, label=label)
    axes.set(
        xlabel="GRPO step",
        ylabel="mean reward of the sampled completions",
        title=f"Reward by step, and its mean over {WINDOW} steps",
    )
    axes.xaxis.set_major_locator(whole_numbers())
    legend(figure, columns=4)
    return figure


def main() -> None:
    """Record an evaluation, or draw a recorded one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("evaluation", nargs="?", type=Path)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--machine", default="two cores of an Intel Xeon, Linux, no GPU")
    parser.add_argument("--model", help="its name, where its folder has another")
    parser.add_argument("--data", help="the command that wrote the run's data")
    parser.add_argument("--draw", action="store_true")
    options = parser.parse_args()
    file = RESULTS / f"{options.name}.json"
    if options.draw:
        save(draw(json.loads(file.read_text(encoding="utf-8"))), PICTURES / f"{options.name}.png")
        return
    file.write_text(json.dumps(record(options), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
