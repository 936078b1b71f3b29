"""What the README says is so: its Python runs, its commands parse, its files exist."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable

import click
import pytest
import yaml
from support.paths import ROOT

from mlx_grpo.cli.main import main
from mlx_grpo.config.files import load_config, validate

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_every_python_example_runs():
    assert len(blocks("python")) >= 2
    for code in blocks("python"):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, f"{code}\n{done.stderr}"


def test_every_yaml_example_is_valid():
    for text in blocks("yaml"):
        assert validate({"model": "m", **yaml.safe_load(text)})


def commands() -> list[list[str]]:
    planned = subprocess.run(["make", "-n", "demo", "study"], capture_output=True, text=True, cwd=ROOT, check=True)
    text = "".join(blocks("sh")) + planned.stdout.replace("\\\n", "").replace(".venv/bin/", "")
    lines = [line.partition("#")[0].split() for line in text.splitlines()]
    return [words[1:] for words in lines if words and words[0] == "mlx-grpo"]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_parses(words: list[str]):
    command: click.Command = main
    while isinstance(command, click.Group):
        command, words = command.commands[words[0]], words[1:]
    context = command.make_context(command.name, list(words))
    if command.name == "train":
        assert load_config(context.params["config"], context.params["overrides"])


def test_every_make_target_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make ([\w-]+)", README, flags=re.MULTILINE):
        assert f"\n{target}:" in makefile


@pytest.mark.parametrize("name", ["smollm2-long", "smollm2-split", "smollm2-branch", "smollm2-noisy"])
def test_make_study_writes_the_data_that_a_config_tells_to_write(name: str):
    path = ROOT / "configs" / f"{name}.yaml"
    told = re.search(r"#   (mlx-grpo data synthetic .*)", path.read_text(encoding="utf-8"))[1]
    study = ["make", "-n", "-B", "study", f"CONFIG={path}"]
    printed = subprocess.run(study, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    commands = [re.sub(r"[\s\\]+", " ", command).strip() for command in re.split(r"(?<!\\)\n", printed)]
    assert any(command.endswith(told) for command in commands), told


def test_every_file_in_the_tree_exists_and_every_module_is_in_the_tree():
    tree = next(block for block in README.split("```")[1::2] if "mlx_grpo/\n" in block)
    named = set(re.findall(r"[\w]+\.py", tree))
    modules = {path.name for path in (ROOT / "mlx_grpo").glob("*.py")} - {"__init__.py", "errors.py"}
    assert named == modules


def test_every_picture_and_linked_file_exists():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README) + re.findall(
        r"`(configs/[\w.-]+|tests/[\w.-]+)`", README
    ):
        assert (ROOT / target).exists(), target


def model_of(row: str, models: Iterable[str]) -> str:
    """The model that a row of the results tells of, where one eval.json holds several seeds or the control."""
    kind = next(kind for kind in ("baseline", "warm start", "trained") if kind in row.replace("GRPO", "trained"))
    apart = {"seed 1": "seed 1", "seed 2": "seed 2", "the control": "shuffled reward"}
    return next((m for told, name in apart.items() if told in row for m in models if name in m), kind)


def test_every_figure_of_the_results_is_that_of_the_run_kept():
    rows = [
        re.split(r" *\| *", line.strip("| "))
        for line in README.splitlines()
        if re.search(r"\| `docs/[\w/]+` \|$", line)
    ]
    assert len(rows) >= 6
    for name, _, _, prompts, reward, gain, *figures, folder in rows:
        results = json.loads((ROOT / folder.strip("`") / "eval.json").read_text(encoding="utf-8"))
        model = model_of(name, results["means"])
        means = results["means"][model]
        assert int(prompts) == results["n_episodes"]
        assert [reward, *figures] == [f"{means[key]:.3f}" for key in ("reward", "correct", "roc_auc")], name
        over = results["over_warm_start"].get(model, {}).get("reward")
        assert gain == ("{mean:+.3f} [{low:+.3f}, {high:+.3f}]".format(**over) if over else ""), name
