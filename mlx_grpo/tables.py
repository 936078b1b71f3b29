"""The evaluation as the two tables of a model card, for a terminal or in Markdown."""

from __future__ import annotations

from typing import Any

from rich.table import Table

Row = list[str]


def headline(results: dict[str, Any]) -> tuple[Row, list[Row]]:
    """Header and rows: the mean reward, the published rubric's, and decision accuracy, each with its interval."""
    models = list(results["models"])
    labels = {"reward": f"mean reward ({results['rubric']})"}
    if "published" in results["means"]["baseline"]:
        labels["published"] = "mean reward (published rubric)"
        labels["correct"] = f"decision accuracy (majority class: {results['majority_class_rate']:.3f})"
    if results["rubric"] == "published":
        labels.pop("published", None)
    rows = [_row(results, models, key, label, interval=True) for key, label in labels.items()]
    return ["", *models, "gain over baseline [95% interval]"], rows


def components(results: dict[str, Any]) -> tuple[Row, list[Row]]:
    """Header and rows: each component of the reward, and the total."""
    models = list(results["models"])
    names = [*results["models"]["baseline"][0]["components"], "reward"]
    rows = [_row(results, models, name, "total" if name == "reward" else name, interval=False) for name in names]
    return ["component", *models, "gain"], rows


def grpo_gain(results: dict[str, Any]) -> str | None:
    """What GRPO added to the warm start, in a sentence; None where there was no warm start."""
    if "grpo_over_warm_start" not in results:
        return None
    reward = results["grpo_over_warm_start"]["reward"]
    text = f"GRPO over the warm start: {reward['mean']:+.3f} reward {_interval(reward)}"
    if "correct" in results["grpo_over_warm_start"]:
        correct = results["grpo_over_warm_start"]["correct"]
        text += f", {correct['mean']:+.3f} decision accuracy {_interval(correct)}"
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


def _row(results: dict[str, Any], models: list[str], key: str, label: str, interval: bool) -> Row:
    difference = results["differences"]["trained"][key]
    gain = f"{difference['mean']:+.3f}"
    if interval:
        gain += f" {_interval(difference)}"
    return [label, *(f"{results['means'][model][key]:.3f}" for model in models), gain]


def _interval(difference: dict[str, float]) -> str:
    return f"[{difference['low']:+.3f}, {difference['high']:+.3f}]"
