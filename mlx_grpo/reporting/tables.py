"""The evaluation as the tables of a model card, for a terminal or in Markdown."""

from __future__ import annotations

from typing import Any

Row = list[str]
RANKING = {
    "balanced_accuracy": "balanced accuracy",
    "roc_auc": "ROC AUC",
    "spearman": "Spearman",
    "ndcg_at_10": "NDCG@10",
    "valid": "valid JSON",
    "characters": "chars",
}
NOTHING = "–"


def headline(results: dict[str, Any]) -> tuple[Row, list[Row]]:
    """Header and a row for each model: mean reward, the published rubric's, decision accuracy, gain with interval."""
    keys = _headline_keys(results)
    rows = []
    for model, means in results["means"].items():
        gain = results["differences"][model]["reward"] if model != BASELINE else None
        rows.append(
            [model, *(_figure(key, means[key]) for key in keys), *([_gain(gain), _p(gain)] if gain else ["", ""])]
        )
    return ["model", *keys.values(), "reward gain [95% interval]", "p"], rows


def components(results: dict[str, Any]) -> tuple[Row, list[Row]]:
    """Header and rows: each component of the reward, and the total, for the first run's models."""
    models = first_run(results)
    rows = []
    for name in [*component_names(results), "reward"]:
        means = [_figure(name, results["means"][model][name]) for model in models]
        gain = _gain(results["differences"]["trained"][name])
        rows.append(["total" if name == "reward" else name, *means, gain])
    return ["component", *models, "gain [95% interval]"], rows


def all_components(results: dict[str, Any]) -> tuple[Row, list[Row]]:
    """Header and a row for each model of every run: the components of the reward."""
    names = component_names(results)
    rows = [[model, *(_figure(name, means[name]) for name in names)] for model, means in results["means"].items()]
    return ["model", *(name.replace("_", " ") for name in names)], rows


def ranking(results: dict[str, Any]) -> tuple[Row, list[Row]]:
    """Header and a row for each model: how well its scores order the candidates, and the form of what it writes."""
    keys = {key: name for key, name in RANKING.items() if key in results["means"][BASELINE]}
    rows = [[model, *(_figure(key, means[key]) for key in keys)] for model, means in results["means"].items()]
    return ["model", *keys.values()], rows


def gains(results: dict[str, Any]) -> tuple[Row, list[Row]]:
    """Header and a row for each figure: what GRPO added to the warm start (to the base where there was none)."""
    over = "warm start" if "grpo_over_warm_start" in results else BASELINE
    found = results.get("grpo_over_warm_start") or results["differences"]["trained"]
    names = {"reward": "reward", **{key: _headline_keys(results).get(key, key) for key in found}}
    rows = [
        [_plain(names[key]), _figure(key, results["means"]["trained"][key]), _gain(found[key], key), _p(found[key])]
        for key in names
    ]
    return ["figure", "trained", f"over {over} [95% interval]", "p"], rows


def every_gain(results: dict[str, Any]) -> tuple[Row, list[Row]]:
    """Header and a row for each trained model that had a warm start: what GRPO added to that."""
    keys = [key for key in ("reward", "correct") if key in results["means"][BASELINE]]
    names = {"reward": f"reward ({results['rubric']})", "correct": "decisions"}
    rows = [
        [model, *(cell for key in keys for cell in (_gain(found[key]), _p(found[key])))]
        for model, found in results["over_warm_start"].items()
    ]
    return ["over its warm start", *(cell for key in keys for cell in (f"{names[key]} [95% interval]", "p"))], rows


def seeds(results: dict[str, Any]) -> tuple[Row, list[Row]]:
    """Header and a row for each set of runs that differ in the seed alone: mean ± standard deviation over seeds."""
    keys = _headline_keys(results)
    rows = []
    for name, found in results["seeds"].items():
        added = found.get("over_warm_start")
        rows.append(
            [name, *(_spread(found["figures"][key]) for key in keys), _spread(added["reward"], "+") if added else ""]
        )
    return ["mean ± sd", *keys.values(), "reward over warm start"], rows


def grpo_gain(results: dict[str, Any]) -> str | None:
    """What GRPO added to the warm start, in a sentence; None where there was no warm start."""
    if "grpo_over_warm_start" not in results:
        return None
    reward = results["grpo_over_warm_start"]["reward"]
    text = f"GRPO over the warm start: reward {_gain(reward)}"
    if "correct" in results["grpo_over_warm_start"]:
        correct = results["grpo_over_warm_start"]["correct"]
        text += f", decisions {_gain(correct)}"
    if results.get("kept_step") == 0:
        return f"{text}; kept: the adapter before GRPO, which none after it beat by more than chance"
    if results.get("kept_step") is not None:
        text += f"; kept: step {results['kept_step']}, the best on other held-out prompts"
    return text


def first_run(results: dict[str, Any]) -> list[str]:
    """The base and the models of the first run."""
    return [name for name in (BASELINE, "warm start", "trained") if name in results["models"]]


def component_names(results: dict[str, Any]) -> list[str]:
    """The components of the reward, in its order."""
    return list(results["models"][BASELINE][0]["components"])


def markdown_table(header: Row, rows: list[Row]) -> str:
    """The same table in Markdown."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _headline_keys(results: dict[str, Any]) -> dict[str, str]:
    keys = {"reward": f"reward ({results['rubric']})"}
    if "published" in results["means"][BASELINE]:
        keys |= {} if results["rubric"] == "published" else {"published": "reward (published)"}
        keys["correct"] = f"decisions (majority {results['majority_class_rate']:.2f})"
    return keys


def _plain(name: str) -> str:
    return RANKING.get(name, name.partition(" (majority")[0])


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


def _spread(found: dict[str, float], sign: str = "") -> str:
    return NOTHING if found["mean"] is None else f"{found['mean']:{sign}.3f} ± {found['sd']:.3f}"


BASELINE = "baseline"
