"""The figures of an evaluation as tables, for a terminal or in Markdown; each is made from eval.json alone."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

Results = dict[str, Any]
"""What eval.json holds."""
Row = list[str]
Table = tuple[Row, list[Row]]
"""A header and rows of as many cells."""
BASELINE = "baseline"
TITLES = {
    "balanced_accuracy": "balanced accuracy",
    "roc_auc": "ROC AUC",
    "spearman": "Spearman",
    "ndcg_at_10": "NDCG@10",
    "characters": "chars",
}
"""The engine's own figures, each with its column's title."""
BRIEF = ("published", "correct", "roc_auc", "valid", "coverage", "confirmed", "shortlisted")
"""The figures of `brief` besides the reward, where they exist."""
NOTHING = "–"
"""Stands for a figure that is undefined."""


def headline(results: Results) -> Table:
    """Tabulate each model's mean reward, the published rubric's, accuracy, and reward gain with interval."""
    keys = _headline_keys(results)
    rows = []
    for model, means in results["means"].items():
        gain = results["differences"][model]["reward"] if model != BASELINE else None
        rows.append(
            [model, *(_figure(key, means[key]) for key in keys), *([_gain(gain), _p(gain)] if gain else ["", ""])]
        )
    return ["model", *keys.values(), "reward gain [95% interval]", "p"], rows


def brief(results: Results) -> Table:
    """Tabulate the figures that matter most for the first run's models, and what GRPO added to each."""
    models = first_run(results["means"])
    gained = results.get("grpo_over_warm_start") or results["differences"]["trained"]
    titles = _headline_keys(results) | _figure_titles(results)
    keys = [key for key in ("reward", *BRIEF) if key in titles and key in gained]
    rows = [
        [_plain(titles[key]), *(_figure(key, results["means"][model][key]) for model in models), _gain(gained[key])]
        for key in keys
    ]
    return ["figure", *models, "GRPO added [95% interval]"], rows


def components(results: Results) -> Table:
    """Tabulate each component of the reward, and the total, for the first run's models."""
    models = first_run(results["means"])
    rows = []
    for name in [*results["components"], "reward"]:
        means = [_figure(name, results["means"][model][name]) for model in models]
        gain = _gain(results["differences"]["trained"][name])
        rows.append(["total" if name == "reward" else name, *means, gain])
    return ["component", *models, "gain [95% interval]"], rows


def all_components(results: Results) -> Table:
    """Tabulate the components of the reward for the models of every run."""
    names = results["components"]
    rows = [[model, *(_figure(name, means[name]) for name in names)] for model, means in results["means"].items()]
    return ["model", *(name.replace("_", " ") for name in names)], rows


def figures(results: Results) -> Table:
    """Tabulate each model's figures that are neither a reward nor the accuracy."""
    names = _figure_titles(results)
    rows = [[model, *(_figure(key, means[key]) for key in names)] for model, means in results["means"].items()]
    return ["model", *names.values()], rows


def gains(results: Results) -> Table:
    """Tabulate what GRPO added to each figure of the warm start (of the base where there was none)."""
    over = "warm start" if "grpo_over_warm_start" in results else BASELINE
    gained = results.get("grpo_over_warm_start") or results["differences"]["trained"]
    names = {"reward": "reward", **{key: _headline_keys(results).get(key, key) for key in gained}}
    trained = results["means"]["trained"]
    rows = [[_plain(names[key]), _figure(key, trained[key]), _gain(gained[key], key), _p(gained[key])] for key in names]
    return ["figure", "trained", f"over {over} [95% interval]", "p"], rows


def every_gain(results: Results) -> Table:
    """Tabulate what GRPO added to the warm start of each trained model that had one."""
    keys = [key for key in ("reward", "correct") if key in results["means"][BASELINE]]
    names = {"reward": f"reward ({results['rubric']})", "correct": "accuracy"}
    rows = [
        [model, *(cell for key in keys for cell in (_gain(gained[key]), _p(gained[key])))]
        for model, gained in results["over_warm_start"].items()
    ]
    return ["over its warm start", *(cell for key in keys for cell in (f"{names[key]} [95% interval]", "p"))], rows


def seeds(results: Results) -> Table:
    """Tabulate each set of runs that differ in the seed alone: mean ± standard deviation over seeds."""
    keys = _headline_keys(results)
    rows = []
    for name, over_seeds in results["seeds"].items():
        spreads = [_spread(over_seeds["figures"][key]) for key in keys]
        gain = over_seeds.get("over_warm_start")
        rows.append([name, *spreads, _spread(gain["reward"], "+") if gain else ""])
    return ["mean ± sd", *keys.values(), "reward over warm start"], rows


def grpo_gain(results: Results) -> str | None:
    """Say in a sentence what GRPO added to the warm start; None where there was no warm start."""
    if "grpo_over_warm_start" not in results:
        return None
    differences = results["grpo_over_warm_start"]
    titles = {"reward": "reward", "correct": "accuracy"}
    gains = {title: differences[key] for key, title in titles.items() if key in differences}
    text = "GRPO over the warm start: " + ", ".join(f"{title} {_gain(gain)}" for title, gain in gains.items())
    if all(gain["low"] is not None and gain["low"] <= 0 <= gain["high"] for gain in gains.values()):
        text += "; within chance"
    if results.get("kept_step") == 0:
        return f"{text}; kept: the adapter before GRPO, which none after it beat by more than chance"
    if results.get("kept_step") is not None:
        text += f"; kept: step {results['kept_step']}, the best on other held-out prompts"
    return text


def in_torch(results: Results) -> str | None:
    """Say in a sentence what PyTorch made of the exported model; None where it was not asked."""
    if "in_torch" not in results:
        return None
    torch = results["in_torch"]
    return (
        f"PyTorch, from the exported folder: {torch['same']} of {torch['episodes']} completions are MLX's to the "
        f"letter; reward {_number(torch['reward'], '.3f')}, in MLX {_number(torch['reward_in_mlx'], '.3f')}"
    )


def first_run(models: Collection[str]) -> list[str]:
    """Return the names of the base and of the first run's models, of an evaluation's `models`."""
    return [name for name in (BASELINE, "warm start", "trained") if name in models]


def markdown_table(header: Row, rows: list[Row]) -> str:
    """Return a table in Markdown."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _headline_keys(results: Results) -> dict[str, str]:
    means = results["means"][BASELINE]
    keys = {"reward": f"reward ({results['rubric']})"}
    if "published" in means and results["rubric"] != "published":
        keys["published"] = "reward (published)"
    if "correct" in means:
        majority = f" (majority {results['majority_class_rate']:.2f})" if "majority_class_rate" in results else ""
        keys["correct"] = f"accuracy{majority}"
    return keys


def _figure_titles(results: Results) -> dict[str, str]:
    """Return the titles of the figures by their keys; files of older versions name no figures of the judge."""
    judged = {name: name.replace("_", " ") for name in results.get("figures", ["valid"])}
    every = TITLES | judged
    every["characters"] = every.pop("characters")  # last
    shown = results["means"][BASELINE].keys() - {"published", "correct"}
    return {key: title for key, title in every.items() if key in shown}


def _plain(name: str) -> str:
    return TITLES.get(name, name.partition(" (majority")[0])


def _figure(key: str, value: float | None) -> str:
    return _number(value, ".0f" if key == "characters" else ".3f")


def _number(value: float | None, form: str) -> str:
    return NOTHING if value is None else format(value, form)


def _gain(difference: dict[str, float], key: str = "reward") -> str:
    form = "+.1f" if key == "characters" else "+.3f"
    if difference["low"] is None:
        return _number(difference["mean"], form)
    return f"{difference['mean']:{form}} [{difference['low']:{form}}, {difference['high']:{form}}]"


def _p(difference: dict[str, float]) -> str:
    p = difference["p"]
    return NOTHING if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def _spread(over_seeds: dict[str, float], sign: str = "") -> str:
    return NOTHING if over_seeds["mean"] is None else f"{over_seeds['mean']:{sign}.3f} ± {over_seeds['sd']:.3f}"
