"""The evaluation as the two tables of a model card, for a terminal or in Markdown."""

from __future__ import annotations

from typing import Any

from rich.table import Table

Row = list[str]


def headline(results: dict[str, Any]) -> tuple[Row, list[Row]]:
    """Header and a row for each model: mean reward, the published rubric's, decision accuracy, gain with interval."""
    keys = {"reward": f"reward ({results['rubric']})"}
    if "published" in results["means"]["baseline"]:
        keys |= {} if results["rubric"] == "published" else {"published": "reward (published)"}
        keys["correct"] = f"decisions (majority {results['majority_class_rate']:.2f})"
    rows = []
    for model, means in results["means"].items():
        gain = "" if model == "baseline" else _gain(results["differences"][model]["reward"])
        rows.append([model, *(f"{means[key]:.3f}" for key in keys), gain])
    return ["model", *keys.values(), "reward gain [95% interval]"], rows


def components(results: dict[str, Any]) -> tuple[Row, list[Row]]:
    """Header and rows: each component of the reward and the total, with the trained model's gain and its interval."""
    models = list(results["models"])
    names = [*results["models"]["baseline"][0]["components"], "reward"]
    rows = []
    for name in names:
        means = [f"{results['means'][model][name]:.3f}" for model in models]
        rows.append(["total" if name == "reward" else name, *means, _gain(results["differences"]["trained"][name])])
    return ["component", *models, "gain [95% interval]"], rows


def grpo_gain(results: dict[str, Any]) -> str | None:
    """What GRPO added to the warm start, in a sentence; None where there was no warm start."""
    if "grpo_over_warm_start" not in results:
        return None
    reward = results["grpo_over_warm_start"]["reward"]
    text = f"GRPO over the warm start: reward {_gain(reward)}"
    if "correct" in results["grpo_over_warm_start"]:
        correct = results["grpo_over_warm_start"]["correct"]
        text += f", decisions {_gain(correct)}"
    if results.get("kept_step") is not None:
        text += f"; kept: step {results['kept_step']}, the best on other held-out prompts"
    return text


def console_table(header: Row, rows: list[Row], title: str) -> Table:
    """A table for a terminal; the first column gives way when the terminal is narrow."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def markdown_table(header: Row, rows: list[Row]) -> str:
    """The same table in Markdown."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _gain(difference: dict[str, float]) -> str:
    return f"{difference['mean']:+.3f} {_interval(difference)}"


def _interval(difference: dict[str, float]) -> str:
    return f"[{difference['low']:+.3f}, {difference['high']:+.3f}]"
