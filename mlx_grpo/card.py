"""The model card of an export, from the run's own files."""

from __future__ import annotations

import json
from pathlib import Path

from mlx_grpo import tables
from mlx_grpo.config import Config
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


def model_card(run: Path, example: list[dict[str, str]]) -> str:
    """Markdown with front matter: what was trained on what, how, the measured results, and how to use it."""
    config = read_config(run)
    parts = [_front_matter(config), f"# {run.name}", _summary(config), "## Use", _snippet(config, example)]
    if (run / RESULTS).is_file():
        results = json.loads((run / RESULTS).read_text(encoding="utf-8"))
        parts += ["## Results", _results(results)]
    parts += ["## Training", _training(config), "## Limitations", LIMITATIONS]
    return "\n\n".join(parts) + "\n"


LIMITATIONS = (
    "Trained on synthetic or supplied profiles against a rule-based reward; it does not know more of a person than "
    "the prompt shows. It can be wrong, and it inherits the base model's biases. Hiring decisions belong to people."
)


def _front_matter(config: Config) -> str:
    base = f"base_model: {config.model}\n" if not Path(config.model).exists() else ""
    return f"---\n{base}library_name: transformers\npipeline_tag: text-generation\ntags: [grpo, mlx, mlx-grpo]\n---"


def _summary(config: Config) -> str:
    graded = f"the `{config.reward.rubric}` rubric" if config.reward.rubric else ", ".join(config.reward.functions)
    return (
        f"`{Path(config.model).name}` trained with GRPO in MLX by mlx-grpo, rewarded by {graded}, "
        "with no language model as a judge."
    )


def _snippet(config: Config, example: list[dict[str, str]]) -> str:
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
    ]
    return "\n\n".join(parts + ([gain + "."] if gain else []))


def _training(config: Config) -> str:
    shown = {
        "method": "GRPO" if config.fine_tune_type == "full" else f"GRPO, LoRA rank {config.lora.rank}",
        "warm start": f"{config.warm_start.steps} supervised steps of {config.warm_start.batch_size} examples",
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
