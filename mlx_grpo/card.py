"""The model card of an export, from the run's own files."""

from __future__ import annotations

import json
from pathlib import Path

from mlx_grpo import tables
from mlx_grpo.config import Config
from mlx_grpo.data import BUNDLED, dataset_files, read_rows
from mlx_grpo.runs import RESULTS, read_config

SNIPPET = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("PATH_OR_REPO")
model = AutoModelForCausalLM.from_pretrained("PATH_OR_REPO")
messages = {messages}
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, enable_thinking={thinking}, return_tensors="pt", return_dict=True
)
output = model.generate(**inputs, max_new_tokens={tokens}, do_sample=False)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
```"""


def model_card(run: Path) -> str:
    """Markdown with front matter: what was trained on what, how, the measured results, and how to use it."""
    config = read_config(run)
    parts = [_front_matter(config), f"# {run.name}", _summary(config), "## Use", _snippet(config)]
    if (run / RESULTS).is_file():
        results = json.loads((run / RESULTS).read_text(encoding="utf-8"))
        parts += ["## Results", _results(results)]
    parts += ["## Training", _training(config)]
    if config.reward.rubric:
        parts += ["## Limitations", LIMITATIONS]
    return "\n\n".join(parts) + "\n"


LIMITATIONS = (
    "Trained on synthetic or supplied profiles against a rule-based reward; it does not know more of a person than "
    "the prompt shows. It can be wrong, and it inherits the base model's biases. Hiring decisions belong to people."
)


def _front_matter(config: Config) -> str:
    base = f"base_model: {config.model}\n" if not Path(config.model).exists() else ""
    return f"---\n{base}library_name: transformers\npipeline_tag: text-generation\ntags: [grpo, mlx, mlx-grpo]\n---"


def _summary(config: Config) -> str:
    name = f"`{Path(config.model).name}` trained with GRPO in MLX by mlx-grpo"
    if config.reward.rubric:
        return (
            f"{name}, rewarded by the rules of the `{config.reward.rubric}` rubric, with no language model as a judge."
        )
    return f"{name}, rewarded by {', '.join(f'`{function}`' for function in config.reward.functions)}."


def _snippet(config: Config) -> str:
    # A made-up prompt: a row of the training data could be a real person's profile.
    example = [{"role": "user", "content": "..."}]
    if config.data.train in BUNDLED:
        example = read_rows(dataset_files(config.data)[1])[0]["prompt"]
    return SNIPPET.format(
        messages=json.dumps(example, ensure_ascii=False, indent=4),
        thinking=config.data.enable_thinking,
        tokens=config.eval.max_new_tokens,
    )


def _results(results: dict) -> str:
    gain = tables.grpo_gain(results)
    parts = [
        f"{results['n_episodes']} held-out prompts, greedy, {results['backend']} on {results['device']}.",
        tables.markdown_table(*tables.headline(results)),
        tables.markdown_table(*tables.components(results)),
        tables.markdown_table(*tables.ranking(results)),
        tables.markdown_table(*tables.gains(results)),
    ]
    shown = [f"![{name}]({name}.png)" for name in ("training_curves", "baseline_vs_trained", "reward_components")]
    return "\n\n".join(parts + ([gain + "."] if gain else []) + shown)


def _training(config: Config) -> str:
    warm = config.warm_start
    shown = {
        "method": "GRPO" if config.fine_tune_type == "full" else f"GRPO, LoRA rank {config.lora.rank}",
        "warm start": f"{warm.steps} supervised steps of {warm.batch_size} examples" if warm.steps else "none",
        "steps": config.max_steps,
        "prompts per step": config.prompts_per_step,
        "completions per prompt": config.num_generations,
        "loss": config.loss_type,
        "beta": config.beta,
        "learning rate": f"{config.learning_rate:g}",
        "temperature": config.temperature,
        "max completion length": config.max_completion_length,
        "seed": config.seed,
    }
    return tables.markdown_table(["setting", "value"], [[key, str(value)] for key, value in shown.items()])
