"""The model card of an export, from the run's own files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData, metadata_load

from mlx_grpo.config.schema import Config
from mlx_grpo.data.dataset import dataset_files, read_rows
from mlx_grpo.data.hub_files import is_hub_id
from mlx_grpo.errors import UserError
from mlx_grpo.json_files import read_json
from mlx_grpo.models.policy import ADAPTER_CONFIG
from mlx_grpo.reporting import tables
from mlx_grpo.runs import Run
from mlx_grpo.tasks.lookup import BUNDLED, TASK_OF_RUBRIC, find_task

TEMPLATE = Path(__file__).with_name("card.md.jinja")

Library = Literal["transformers", "mlx"]
"""The libraries that load an export, by their names on the Hub."""

PICTURES = {
    "training_curves": "Reward and loss by step",
    "components_by_step": "Components of the reward by step",
    "completion_lengths": "Length of completions by step",
    "baseline_vs_trained": "Reward of each held-out prompt, baseline and trained",
    "reward_components": "Mean of each reward component",
    "reward_distribution": "Distribution of rewards",
    "figures": "Mean of each figure of the evaluation",
    "calibration": "Score against the fit",
    "before_after": "Score of each held-out prompt's completion, before and after",
}


def model_card(run: Run, base: Path, repo: str | None = None, library: Library = "transformers") -> str:
    """Return Markdown with metadata: what was trained on what, how, the measured results, and how to use it.

    `base` is the base model's folder, read for its licence and template. `repo` is the export's name on the Hub, and
    `library` the one that loads the export.
    """
    config, results, task = run.config, run.results(), find_task(run.config)
    title = repo.rpartition("/")[2] if repo else run.name
    card = ModelCard.from_template(
        _metadata(run, base, title, library, results),
        str(TEMPLATE),
        title=title,
        repo=repo or "USER/NAME",
        config=config,
        base_link=_base_link(run, config),
        dataset=_dataset(config),
        bundled=config.data.train in BUNDLED,
        weights=_weights(config),
        caution=task.caution if task else "",
        rubric=run.inputs.rubric if run.inputs else config.reward.rubric,
        library=library,
        messages=_example_prompt(config, base),
        thinks="enable_thinking" in _chat_template(base),
        results=results,
        tables=_tables(results) if results else [],
        gain=tables.grpo_gain(results) if results else None,
        pictures={name: text for name, text in PICTURES.items() if (run.folder / "plots" / f"{name}.png").is_file()},
        steps=sum("reward" in record for record in run.metrics()),
        kept_step=run.kept_step(),
        settings=yaml.safe_dump(_public(run, config), sort_keys=False, allow_unicode=True),
    )
    return f"{card}\n"


def _metadata(run: Run, base: Path, title: str, library: Library, results: dict[str, Any] | None) -> ModelCardData:
    licence = _licence(base)
    eval_results = _eval_results(run.config, results) if results else None
    return ModelCardData(
        base_model=hub_id(run, run.config),
        datasets=_dataset(run.config) if is_hub_id(run.config.data.train) else None,
        library_name=library,
        pipeline_tag="text-generation",
        tags=["grpo", "mlx", "mlx-grpo"],
        model_name=title if eval_results else None,
        eval_results=eval_results or None,
        license=licence.get("license"),
        license_name=licence.get("license_name"),
        license_link=licence.get("license_link"),
    )


def hub_id(run: Run, config: Config) -> str | None:
    """Return the base model's name on the Hub; None where it was a folder, whose path should not be published."""
    name = _base_name(run)
    return name if name == config.model and not Path(name).is_dir() else None


def _base_name(run: Run) -> str:
    """Return the base model's Hub id or its folder's name, as the adapter has it."""
    return read_json(run.adapter() / ADAPTER_CONFIG)["model"]


def _base_link(run: Run, config: Config) -> str:
    name = hub_id(run, config)
    return f"[{name}](https://huggingface.co/{name})" if name else f"`{_base_name(run)}`"


def _dataset(config: Config) -> str:
    return _name(config.data.train).partition("@")[0]


def _name(data: str) -> str:
    """Return the name of a data set without a private path; an id on the Hub stays whole."""
    return data if is_hub_id(data) else Path(data).name


def _weights(config: Config) -> str:
    """Return the weights of the rubric's components in words, none where the reward is a user's own functions."""
    if not config.reward.rubric:
        return ""
    weights = TASK_OF_RUBRIC[config.reward.rubric].weights(config.reward)
    return ", ".join(f"{name} {weight:g}" for name, weight in weights.items())


def _example_prompt(config: Config, base: Path) -> str:
    """Return the messages of an example as JSON, "" for a run whose prompts are plain text.

    They are a bundled row's, else made up: a user's row could be a real person's profile.
    """
    messages = [{"role": "user", "content": "..."}]
    if config.data.train in BUNDLED and (config.data.heldout is None or config.data.heldout in BUNDLED):
        train, heldout = dataset_files(config.data)
        messages = read_rows(heldout or train)[0]["prompt"]
    elif _has_text_prompts(config, base):
        return ""
    return json.dumps(messages, ensure_ascii=False, indent=4)


def _has_text_prompts(config: Config, base: Path) -> bool:
    """Return True if the prompts of a run are plain text: by its first row, or by the base where the rows are gone."""
    try:
        return isinstance(read_rows(dataset_files(config.data)[0])[0]["prompt"], str)
    except UserError:
        return not _chat_template(base)


def _chat_template(base: Path) -> str:
    """Return the base model's chat template, "" where it has none."""
    file, settings = base / "chat_template.jinja", base / "tokenizer_config.json"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    return str(read_json(settings).get("chat_template") or "") if settings.is_file() else ""


def _tables(results: dict[str, Any]) -> list[str]:
    parts = (tables.headline, tables.components, tables.figures, tables.gains)
    return [tables.markdown_table(*part(results)) for part in parts]


def _eval_results(config: Config, results: dict[str, Any]) -> list[EvalResult]:
    """Return the trained model's figures as the Hub lists them."""
    means = results["means"]["trained"]
    names = {"reward": f"mean reward ({results['rubric']})", "correct": "accuracy"}
    if results["rubric"] != "published":
        names["published"] = "mean reward (published)"
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=_dataset(config),
            dataset_name=f"{_dataset(config)}, held out, {results['n_episodes']} prompts",
            dataset_split="heldout",
            metric_type="accuracy" if key == "correct" else "reward",
            metric_name=name,
            metric_value=round(means[key], 4),
        )
        for key, name in names.items()
        if means.get(key) is not None
    ]


def _public(run: Run, config: Config) -> dict[str, Any]:
    """Return every setting, with paths cut down to names."""
    values = config.model_dump(exclude={"output_dir"})
    values["model"] = _base_name(run)
    values["data"] |= {key: _name(values["data"][key]) for key in ("train", "heldout") if values["data"][key]}
    values["warm_start"] |= {"run": config.warm_start.run and Path(config.warm_start.run).name}
    return values


def _licence(base: Path) -> dict[str, Any]:
    """Return the base model's licence, or its list of them, as its own card states it; empty where none can be read."""
    try:
        stated = metadata_load(base / "README.md") or {}
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    keys = ("license", "license_name", "license_link")
    licence: dict[str, Any] = {key: stated[key] for key in keys if isinstance(stated.get(key), str)}
    several = stated.get("license")
    if isinstance(several, list) and several and all(isinstance(name, str) for name in several):
        licence["license"] = several
    return licence
