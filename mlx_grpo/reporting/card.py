"""The model card of an export, from the run's own files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData, metadata_load

from mlx_grpo.config.schema import Config
from mlx_grpo.data.dataset import BUNDLED, dataset_files, read_rows
from mlx_grpo.models.policy import ADAPTER_CONFIG
from mlx_grpo.reporting import tables
from mlx_grpo.rewards import make_rubric
from mlx_grpo.runs import Run

SNIPPET = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{repo}")
model = AutoModelForCausalLM.from_pretrained("{repo}")
messages = {messages}
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, {thinking}return_tensors="pt", return_dict=True
)
output = model.generate(**inputs, max_new_tokens={tokens}, do_sample=False)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
```"""

PICTURES = {
    "training_curves": "Reward and loss by step",
    "components_by_step": "Components of the reward by step",
    "completion_lengths": "Length of completions by step",
    "baseline_vs_trained": "Reward of each held-out prompt, baseline and trained",
    "reward_components": "Mean of each reward component",
    "reward_distribution": "Distribution of rewards",
    "calibration": "Score against the fit",
    "before_after": "Score of each held-out candidate, before and after",
}

LIMITATIONS = (
    "The reward is all that training asked for: it says nothing of other tasks, prompts or languages. The model can be "
    "wrong, and it inherits the base model's biases."
)
HIRING = (
    "Trained on synthetic or supplied profiles against a rule-based reward, it does not know more of a person than the "
    "prompt shows. Hiring decisions belong to people."
)


def model_card(run: Run, base: Path, repo: str | None = None) -> str:
    """Return Markdown with metadata: what was trained on what, how, the measured results, and how to use it.

    `base` is the base model's folder, read for its licence and template. `repo` is the export's name on the Hub.
    """
    config, results = run.config, run.results()
    licence = _licence(base)
    title = repo.rpartition("/")[2] if repo else run.name
    metadata = ModelCardData(
        base_model=_hub_id(run, config),
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["grpo", "mlx", "mlx-grpo"],
        model_name=title,
        eval_results=_eval_results(config, results) if results else None,
        license=licence.get("license"),
        license_name=licence.get("license_name"),
        license_link=licence.get("license_link"),
    )
    if not metadata.eval_results:
        metadata.pop("model_name")
    parts = [f"# {title}", _summary(run, config), "## Use"]
    parts += _use(config, base, repo or "USER/NAME")
    parts += ["## Results", *(_results(run, results) if results else ["Not evaluated yet."])]
    parts += ["## Training", *_training(run, config)]
    parts += ["## Limitations", f"{LIMITATIONS} {HIRING}" if config.reward.rubric else LIMITATIONS]
    parts += ["## Licence", _licence_text(run, config, licence)]
    return f"---\n{metadata.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n"


def _hub_id(run: Run, config: Config) -> str | None:
    """Return the base model's name on the Hub; None where it was a folder, whose path should not be published."""
    name = _base_name(run)
    return name if name == config.model and not Path(name).is_dir() else None


def _base_name(run: Run) -> str:
    """Return the base model's Hub id or its folder's name, as the adapter has it."""
    return json.loads((run.adapter() / ADAPTER_CONFIG).read_text(encoding="utf-8"))["model"]


def _base_link(run: Run, config: Config) -> str:
    hub_id = _hub_id(run, config)
    return f"[{hub_id}](https://huggingface.co/{hub_id})" if hub_id else f"`{_base_name(run)}`"


def _dataset(config: Config) -> str:
    return Path(config.data.train).name


def _summary(run: Run, config: Config) -> str:
    rows = f"the `{_dataset(config)}` prompts"
    if config.data.train in BUNDLED:
        rows += " that come with mlx-grpo (synthetic jobs and candidates)"
    text = f"{_base_link(run, config)} trained with GRPO in MLX by mlx-grpo on {rows}, rewarded by "
    if not config.reward.rubric:
        return f"{text}{', '.join(f'`{function}`' for function in config.reward.functions)}."
    version = run.inputs.rubric if run.inputs else config.reward.rubric
    weights = ", ".join(f"{name} {weight:g}" for name, weight in vars(make_rubric(config.reward).weights).items())
    return (
        f"{text}the rules of the rubric `{version}`, with no language model as a judge.\n\n"
        f"Weights of the rubric's components: {weights}."
    )


def _use(config: Config, base: Path, repo: str) -> list[str]:
    thinking = f"enable_thinking={config.data.enable_thinking}, " if _thinks(base) else ""
    snippet = SNIPPET.format(
        repo=repo,
        messages=json.dumps(_example_prompt(config), ensure_ascii=False, indent=4),
        thinking=thinking,
        tokens=config.eval.max_new_tokens,
    )
    if not thinking or config.data.enable_thinking:
        return [snippet]
    return [snippet, "Trained and evaluated with thinking switched off, as above."]


def _example_prompt(config: Config) -> list[dict[str, str]]:
    """Return a bundled row's prompt, else a made-up one: a user's row could be a real person's profile."""
    if config.data.train in BUNDLED and (config.data.heldout is None or config.data.heldout in BUNDLED):
        _, heldout = dataset_files(config.data)
        if heldout is not None:
            return read_rows(heldout)[0]["prompt"]
    return [{"role": "user", "content": "..."}]


def _thinks(base: Path) -> bool:
    """Return True if the base model's chat template can switch thinking off."""
    files = (base / "chat_template.jinja", base / "tokenizer_config.json")
    return any("enable_thinking" in file.read_text(encoding="utf-8") for file in files if file.is_file())


def _results(run: Run, results: dict[str, Any]) -> list[str]:
    parts = [
        f"{results['n_episodes']} held-out prompts, greedy, up to {results['max_new_tokens']} new tokens, "
        f"{results['backend']} on {results['device']}; gains are over the baseline, with 95% intervals.",
        tables.markdown_table(*tables.headline(results)),
        tables.markdown_table(*tables.components(results)),
        tables.markdown_table(*tables.ranking(results)),
        tables.markdown_table(*tables.gains(results)),
    ]
    gain = tables.grpo_gain(results)
    drawn = {name: text for name, text in PICTURES.items() if (run.folder / "plots" / f"{name}.png").is_file()}
    return parts + ([f"{gain}."] if gain else []) + [f"![{text}]({name}.png)" for name, text in drawn.items()]


def _eval_results(config: Config, results: dict[str, Any]) -> list[EvalResult]:
    """Return the trained model's figures as the Hub lists them."""
    means = results["means"]["trained"]
    names = {"reward": f"mean reward ({results['rubric']})", "correct": "decision accuracy"}
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
        if key in means and math.isfinite(means[key])
    ]


def _training(run: Run, config: Config) -> list[str]:
    """Return the parts on training: the settings that matter most, which adapter was kept, and every setting."""
    warm, taken = config.warm_start, _steps_taken(run)
    shown = {
        "method": "GRPO, all weights" if config.fine_tune_type == "full" else f"GRPO, LoRA rank {config.lora.rank}",
        "warm start": f"{warm.steps} supervised steps of {warm.batch_size} examples" if warm.steps else "none",
        "steps": config.max_steps if taken == config.max_steps else f"{taken} of {config.max_steps}",
        "prompts per step": config.prompts_per_step,
        "completions per prompt": config.num_generations,
        "loss": config.loss_type,
        "beta": config.beta,
        "learning rate": f"{config.learning_rate:g}, {config.lr_scheduler_type}",
        "temperature": config.temperature,
        "top-p": config.top_p,
        "max completion length": config.max_completion_length,
        "seed": config.seed,
    }
    rows = [[key, str(value)] for key, value in shown.items()]
    every = yaml.safe_dump(_public(run, config), sort_keys=False, allow_unicode=True)
    return [
        tables.markdown_table(["setting", "value"], rows),
        _kept(run),
        f"<details><summary>Every setting</summary>\n\n```yaml\n{every}```\n\n</details>",
    ]


def _steps_taken(run: Run) -> int:
    return sum("reward" in record for record in run.metrics())


def _kept(run: Run) -> str:
    steps = _steps_taken(run)
    kept = run.kept_step()
    if kept is None:
        return f"These weights are those after the last of {steps} GRPO steps."
    if kept == 0:
        return (
            f"These weights are those before the first of {steps} GRPO steps: none after it did better by more than "
            "chance on held-out prompts kept aside for that."
        )
    return (
        f"These weights are those after step {kept} of {steps}, which did best on held-out prompts kept aside for that."
    )


def _public(run: Run, config: Config) -> dict[str, Any]:
    """Return every setting, with paths cut down to names."""
    values = config.model_dump(exclude={"output_dir"})
    values["model"] = _base_name(run)
    values["data"] |= {key: Path(values["data"][key]).name for key in ("train", "heldout") if values["data"][key]}
    values["warm_start"] |= {"run": config.warm_start.run and Path(config.warm_start.run).name}
    return values


def _licence(base: Path) -> dict[str, str]:
    """Return the base model's licence as its own card states it; empty where it has no card that can be read."""
    try:
        stated = metadata_load(base / "README.md") or {}
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return {key: stated[key] for key in ("license", "license_name", "license_link") if isinstance(stated.get(key), str)}


def _licence_text(run: Run, config: Config, licence: dict[str, str]) -> str:
    name = licence.get("license_name") or licence.get("license")
    stated = f", `{name}`" if name else " (see there)"
    link = f": {licence['license_link']}" if "license_link" in licence else ""
    return f"These weights derive from {_base_link(run, config)} and stay under its licence{stated}{link}."
