"""The documents' examples run, their commands parse, and what they name exists."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
import yaml
from support.documents import DOCUMENTS, LINK, blocks, name_of, table_rows, write_named_blocks
from support.hub_data import as_client, parquet
from support.hub_server import Dataset
from support.paths import ROOT

from mlx_grpo.cli.main import main
from mlx_grpo.config.files import load_config, validate
from mlx_grpo.config.schema import RewardConfig
from mlx_grpo.data.dataset import dataset_files, read_rows
from mlx_grpo.data.types import Prompt
from mlx_grpo.evaluation.episodes import score_completions
from mlx_grpo.evaluation.run_matrix import RunMatrix
from mlx_grpo.evaluation.summary import summarize
from mlx_grpo.rewards import load_judge, load_reward

README = ROOT / "README.md"
OWN_TASK = ROOT / "docs" / "guide" / "your-own-task.md"
ASK = ({"role": "user", "content": "What is 17 + 25?"},)
ARCHITECTURE = ROOT / "docs" / "architecture.md"


def text_of(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def examples(language: str) -> list:
    """Return the documents' blocks of a language, as a test's cases."""
    return [
        pytest.param(block, id=f"{name_of(document)}-{number}")
        for document in DOCUMENTS
        for number, block in enumerate(blocks(language, document), start=1)
    ]


def commands() -> Iterator:
    """Yield every `mlx-grpo` command of the documents and of the Makefile's targets, as a test's cases."""
    planned = subprocess.run(
        ["make", "-n", "demo", "qwen3", "study"], capture_output=True, text=True, cwd=ROOT, check=True
    )
    made = planned.stdout.replace("\\\n", "").replace(".venv/bin/", "")
    for document, block in [(d, b) for d in DOCUMENTS for b in blocks("sh", d)] + [(ROOT / "Makefile", made)]:
        for line in block.splitlines():
            words = line.partition("#")[0].split()
            if "mlx-grpo" in words:
                words = words[words.index("mlx-grpo") + 1 :]
                yield pytest.param(document, words, id=f"{name_of(document)}: {' '.join(words)}")


def test_issue_template_asks_for_a_command_that_parses():
    form = yaml.safe_load(text_of(ROOT / ".github" / "ISSUE_TEMPLATE" / "bench.yml"))
    assert {"name", "description", "body"} <= form.keys()
    [line] = re.findall(r"mlx-grpo (bench .*)", form["body"][0]["attributes"]["value"])
    context = main.commands["bench"].make_context("bench", line.split()[1:])
    assert context.params["as_json"] and context.params["shapes"] == "19x4x256"
    assert load_config(context.params["config"], context.params["overrides"])
    assert line.removesuffix(" --json") in text_of(ROOT / "docs" / "performance.md")


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_no_line_asks_an_index_for_this_projects_name(document: Path):
    lines = [line.partition("#")[0] for block in blocks("sh", document) for line in block.splitlines()]
    for line in [*lines, *re.findall(r"`([^`\n]+)`", text_of(document))]:
        if re.search(r"\b(pip3? install|uv (pip|add|tool)|uvx|pipx)\b", line):
            asked = line.partition(" mlx-grpo ")[0] if "--from" in line else line
            assert not re.search(r"(?<![\w./-])mlx[-_]grpo(?!_)", asked), line


def test_wheel_that_the_readme_names_is_the_one_that_is_built():
    version = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]["version"]
    named = re.findall(r"dist/(\S+?\.whl)", text_of(README))
    assert set(named) == {f"mlx_grpo-{version}-py3-none-any.whl"}


@pytest.mark.parametrize("target", ["demo", "qwen3"])
def test_make_takes_another_model_and_fetches_none(target: str):
    command = ["make", "-n", target, "MODEL=my/model"]
    planned = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert re.search(r"mlx-grpo train configs/\w+\.yaml model=my/model", planned)
    assert "convert.gguf" not in planned


def test_readme_has_at_most_1200_words():
    assert len(text_of(README).split()) <= 1200


def test_readme_has_one_picture():
    assert len(re.findall(r"!\[", text_of(README))) == 1


@pytest.mark.parametrize("code", examples("python"))
def test_python_example_runs(code: str):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("text", examples("yaml"))
def test_yaml_example_is_a_valid_config(text: str):
    assert validate({"model": "m", **yaml.safe_load(text)})


@pytest.mark.parametrize("text", examples("json"))
def test_json_example_parses(text: str):
    assert yaml.safe_load(text)  # YAML holds all of JSON


@pytest.mark.parametrize(("document", "words"), list(commands()))
def test_command_parses(document: Path, words: list[str], workdir: Path):
    write_named_blocks(document, workdir)
    command: click.Command = main
    while isinstance(command, click.Group):
        command, words = command.commands[words[0]], words[1:]
    context = command.make_context(command.name, [word.strip("'\"") for word in words])
    if "overrides" in context.params:
        assert load_config(context.params["config"], context.params["overrides"])


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_make_targets_exist(document: Path):
    makefile = text_of(ROOT / "Makefile")
    lines = [line.partition("#")[0].split() for block in blocks("sh", document) for line in block.splitlines()]
    for words in lines:
        for target in words[1:] if words[:1] == ["make"] else []:
            assert "=" in target or re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_and_pictures_exist(document: Path):
    for target in LINK.findall(text_of(document)):
        assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_named_paths_exist(document: Path):
    for target in re.findall(r"`((?:configs|docs|mlx_grpo|convert|reward|tests)/[\w./-]*)`", text_of(document)):
        assert (ROOT / target).exists(), target


def test_every_document_is_linked_from_the_readme():
    linked = {(ROOT / target).resolve() for target in LINK.findall(text_of(README))}
    assert {document for document in DOCUMENTS if document != README} <= linked


def test_own_task_example_rewards_a_right_answer(workdir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(workdir)
    assert {path.name for path in write_named_blocks(OWN_TASK, workdir)} == {
        "my_rewards.py",
        "my_figures.py",
        "my-task.yaml",
        "gsm8k.yaml",
        "gsm8k_rewards.py",
    }
    reward = load_reward(load_config("my-task.yaml").reward)
    row = yaml.safe_load(blocks("json", OWN_TASK)[0])
    prompt = Prompt(row["id"], "", (1,), {"answer": row["answer"]}, messages=tuple(row["prompt"]))
    scores = reward([prompt] * 2, ["17 + 25 = 42", "17 + 25 = 41"])
    assert scores.components["correct"].tolist() == [1, 0]
    assert scores.rewards[0] - scores.rewards[1] == pytest.approx(1)


def test_hub_example_reads_its_columns_and_rewards_a_right_answer(workdir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(workdir)
    write_named_blocks(OWN_TASK, workdir)
    config = load_config("gsm8k.yaml")
    rows = parquet([{"question": "What is 17 + 25?", "answer": "17 + 25 = <<17+25=42>>42\n#### 42"}])
    folders = [f"{subset}/{split}" for subset in ("main", "socratic") for split in ("train", "test")]
    files = {f"{folder}-00000-of-00001.parquet": rows for folder in folders}
    with as_client(workdir / "home") as hub:
        hub.datasets["openai/gsm8k"] = Dataset({"main": files})
        train, heldout = dataset_files(config.data)
    [row], [other] = read_rows(train), read_rows(heldout)
    assert [message["role"] for message in row["prompt"]] == ["system", "user"]
    assert (row["prompt"][1]["content"], other["id"]) == ("What is 17 + 25?", "test-1")
    prompt = Prompt(row["id"], "", (1,), {"answer": row["answer"]}, messages=tuple(row["prompt"]))
    assert load_reward(config.reward)([prompt] * 2, ["42 #### 42", "#### 41"]).rewards.tolist() == [1, 0]


def test_readme_example_rewards_the_shorter_completion(workdir: Path, monkeypatch: pytest.MonkeyPatch):
    [code] = [block for block in blocks("python", README) if "def brevity" in block]
    module: dict[str, object] = {}
    exec(code, module)
    monkeypatch.setitem(sys.modules, "readme_rewards", SimpleNamespace(**module))
    reward = load_reward(RewardConfig(rubric=None, functions=["readme_rewards:brevity"]))
    assert reward([Prompt("r", "", (1,), messages=ASK)] * 2, ["no", "none"]).rewards.tolist() == [1 / 3, 1 / 5]


def test_own_task_example_judges_in_twenty_lines(workdir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(workdir)
    write_named_blocks(OWN_TASK, workdir)
    [code] = [block for block in blocks("python", OWN_TASK) if "def judge" in block]
    assert len(code.splitlines()) <= 20
    config = load_config("my-task.yaml")
    prompts = [Prompt(f"sum-{i}", "", (1,), {"answer": 42}, messages=ASK) for i in range(3)]
    reward, judge = load_reward(config.reward), load_judge(config)
    before = score_completions(prompts, ["41", "no idea", "41"], reward, judge)
    after = score_completions(prompts, ["17 + 25 = 42", "no idea", "41"], reward, judge)
    summary = summarize({"baseline": before, "trained": after}, RunMatrix())
    assert summary["figures"] == ["correct", "valid", "off_by"]
    assert summary["means"]["trained"] | {"reward": 0, "brevity": 0, "characters": 0} == pytest.approx(
        {"reward": 0, "correct": 1 / 3, "valid": 2 / 3, "off_by": 0.5, "characters": 0, "brevity": 0}
    )
    gain = summary["differences"]["trained"]["correct"]
    assert (gain["mean"], gain["low"], gain["high"]) == pytest.approx((1 / 3, 0, 1))


def test_architecture_lists_the_packages_in_the_order_of_imports():
    settings = tomllib.loads(text_of(ROOT / "pyproject.toml"))["tool"]["importlinter"]
    layers = next(contract["layers"] for contract in settings["contracts"] if contract["type"] == "layers")
    ordered = [name.strip().removeprefix("mlx_grpo.") for layer in layers for name in layer.split("|")]
    house = next(block for block in text_of(ARCHITECTURE).split("```") if "mlx_grpo/\n" in block)
    assert re.findall(r"^  (\w+)", house, flags=re.MULTILINE) == [name for name in ordered if name != "convert"]


def test_architecture_names_the_module_of_each_line_of_the_step():
    rows = [row for row in table_rows(ARCHITECTURE) if "hands on" in row]
    named = {row["line"].strip("`"): row["module"].strip("`") for row in rows}
    for function, path in named.items():
        module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
        assert callable(vars(module)[function]), function
    step = next(block for block in text_of(README).split("```") if "sample_prompts" in block)
    assert re.findall(r"^\w+ += (\w+)\(", step, flags=re.MULTILINE) == list(named)
