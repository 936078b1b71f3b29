"""`mlx-grpo score`: marks and reasons for completions in a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console
from support.facts import CONTEXT, FACTS

from mlx_grpo.cli.score import print_grades
from mlx_grpo.config.files import save_config
from mlx_grpo.config.schema import Config, DataConfig
from mlx_grpo.data.inputs import Inputs
from mlx_grpo.errors import UserError
from mlx_grpo.evaluation.score import grade_file
from mlx_grpo.runs import INPUTS, write_results
from reward import PUBLISHED, STRICT

LABEL = {"decision": "shortlist", "score": 0.57}
GOLD = {**LABEL, "facts": FACTS, "context": CONTEXT}
FALSE = '{"reasons":["worked at Initech; SQL: expert","lacks Python"],"score":0.57,"decision":"shortlist"}'
GOOD = '{"reasons":["Python: expert, 40 months; no SQL","Analyst: related work"],"score":0.57,"decision":"shortlist"}'


def strict(completion: str) -> dict[str, float]:
    return STRICT(completion, **LABEL, facts=FACTS).as_dict()


def write(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def printed(*arguments: object, width: int = 80) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_grades(console, grade_file(*arguments))
    return console.export_text()


def test_each_component_is_explained_in_words(tmp_path: Path):
    file = write(tmp_path / "mine.jsonl", {"completion": FALSE, **GOLD}, "", {"completion": GOOD, **GOLD})
    text = printed(file, "strict", None)
    assert "refuted: SQL: expert (the profile does not list 'sql')" in text
    assert "unread: worked at Initech (is in none of the forms)" in text
    assert "confirmed: Analyst: related work (" in text
    assert "mine-1  total" in text
    assert "mine-3  total" in text
    grades = grade_file(file, "strict", None)
    assert grades.completions[0].marks == strict(FALSE)
    totals = [grade.marks["total"] for grade in grades.completions]
    assert [(clause["reason"], clause["text"], clause["status"]) for clause in grades.completions[1].clauses] == [
        (1, "Python: expert, 40 months", "confirmed"),
        (1, "no SQL", "confirmed"),
        (2, "Analyst: related work", "confirmed"),
    ]
    assert grades.completions[1].clauses[1]["fact"] == "SQL: missing"
    assert grades.means[""]["total"] == pytest.approx(sum(totals) / 2)
    assert totals[1] > totals[0]


def test_the_rubric_can_be_chosen_and_thinking_does_not_count(tmp_path: Path):
    file = write(tmp_path / "mine.jsonl", {"completion": f"<think>{{}}</think>{GOOD}", **GOLD})
    assert (
        grade_file(file, "published", None).completions[0].marks == PUBLISHED(GOOD, **LABEL, context=CONTEXT).as_dict()
    )


def test_the_samples_of_a_run_find_their_labels_in_its_dataset(tmp_path: Path):
    write(tmp_path / "data.jsonl", {"id": "a", "prompt": "p", **GOLD})
    data = {"train": str(tmp_path / "data.jsonl")}
    config = Config(model="m", data=DataConfig(**data))
    save_config(config, tmp_path / "config.yaml")
    Inputs.of(config).write(tmp_path / INPUTS)
    file = write(tmp_path / "samples.jsonl", {"prompt_id": "a", "completion": GOOD, "reward": 0.1})
    by_run = grade_file(file, "strict", None)
    assert by_run.completions[0].id == "a"
    (tmp_path / "config.yaml").unlink()
    assert grade_file(file, "strict", data["train"]) == by_run


def test_samples_say_if_their_prompt_began_a_thought(tmp_path: Path):
    rows = [{"completion": text, "prompt_opens_thought": True, **GOLD} for text in (f"hm</think>{GOOD}", GOOD)]
    closed, open_ended = grade_file(write(tmp_path / "samples.jsonl", *rows), "strict", None).completions
    assert (closed.marks, open_ended.completion) == (strict(GOOD), "")


def test_a_row_of_a_dataset_is_graded_by_its_last_message_where_it_has_no_context(tmp_path: Path):
    chat = [{"role": "system", "content": "Judge."}, {"role": "user", "content": CONTEXT}]
    labels = write(tmp_path / "data.jsonl", {"id": "a", "prompt": chat, **LABEL, "facts": FACTS})
    file = write(tmp_path / "mine.jsonl", {"prompt_id": "a", "completion": GOOD})
    graded = grade_file(file, "published", str(labels)).completions[0]
    assert graded.marks == PUBLISHED(GOOD, **LABEL, context=CONTEXT).as_dict()
    assert graded.clauses == []


def test_a_run_whose_rows_have_changed_is_not_graded(tmp_path: Path):
    data = write(tmp_path / "data.jsonl", {"id": "a", "prompt": "p", **GOLD})
    config = Config(model="m", data=DataConfig(train=str(data)))
    save_config(config, tmp_path / "config.yaml")
    file = write(tmp_path / "samples.jsonl", {"prompt_id": "a", "completion": GOOD, "reward": 0.1})
    with pytest.raises(UserError, match="is older than the rubric and the rows of this version"):
        grade_file(file, "strict", None)
    Inputs.of(config).write(tmp_path / INPUTS)
    write(data, {"id": "a", "prompt": "p", **GOLD, "score": 0.2})
    with pytest.raises(UserError, match=r"data\.train: the rows of .* have changed since it began; start a new run"):
        grade_file(file, "strict", None)
    assert grade_file(file, "strict", str(data)).completions[0].id == "a"


EPISODES = {name: [{"prompt_id": "a", "completion": text, "score": 0.1}] for name, text in (("x", FALSE), ("y", GOOD))}


@pytest.fixture
def labels(tmp_path: Path) -> str:
    """A dataset with the row that EPISODES are about."""
    return str(write(tmp_path / "data.jsonl", {"id": "a", "prompt": "p", **GOLD}))


def test_evaluation_is_graded_model_by_model_from_both_layouts(tmp_path: Path, labels: str):
    old = write(tmp_path / "old.json", {"models": EPISODES})  # as 0.1 wrote it
    write_results(tmp_path, {"means": {"x": {}, "y": {}}}, EPISODES)
    grades = grade_file(old, "strict", labels)
    assert list(grades.means) == ["x", "y"]
    assert grades.means["y"]["total"] == strict(GOOD)["total"]
    assert grade_file(tmp_path / "eval.json", "strict", labels) == grades
    assert grade_file(tmp_path / "episodes.jsonl", "strict", labels) == grades
    assert "y, mean of 1 by strict 2" in printed(tmp_path / "episodes.jsonl", "strict", labels)


def test_evaluation_without_its_episodes_is_refused_with_a_remedy(tmp_path: Path, labels: str):
    write_results(tmp_path, {"means": {"x": {}, "y": {}}}, EPISODES)
    (tmp_path / "episodes.jsonl").unlink()
    with pytest.raises(UserError, match=r"no episodes\.jsonl is beside it; run `mlx-grpo eval` again"):
        grade_file(tmp_path / "eval.json", "strict", labels)


def test_every_bad_row_is_listed_by_its_line(tmp_path: Path):
    file = write(
        tmp_path / "mine.jsonl",
        {"completion": GOOD, **GOLD},
        {"completion": GOOD, **GOLD, "decision": "maybe"},
        "nonsense",
        [1],
        {"completion": 3, **GOLD},
        {"completion": GOOD, "decision": "reject"},
        {"completion": GOOD, "prompt_id": "a"},
        {"completion": GOOD, **GOLD, "facts": None},
        {"completion": GOOD, **LABEL, "context": CONTEXT},
    )
    with pytest.raises(UserError) as caught:
        grade_file(file, "strict", None)
    told = [
        "maybe",
        "not JSON",
        "holds list",
        "has no `completion`",
        "has no score, facts",
        "--data",
        "facts is NoneType",
    ]
    told += ["--rubric published"]
    assert len(caught.value.problems) == 8
    for line, (problem, words) in enumerate(zip(caught.value.problems, told, strict=True), start=2):
        assert f"line {line}: " in problem
        assert words in problem


@pytest.mark.parametrize("text", ["[]", "{}", "nonsense", '{"models": [1]}', '{"models": {"x": [{}]}}'])
def test_json_file_that_is_no_evaluation_is_refused(text: str, tmp_path: Path):
    with pytest.raises(UserError, match=r"not an eval\.json"):
        grade_file(write(tmp_path / "other.json", text), "strict", None)
    with pytest.raises(UserError, match="No such file"):
        grade_file(tmp_path / "absent.json", "strict", None)


def test_foreign_text_cannot_act_on_the_terminal(tmp_path: Path):
    file = write(tmp_path / "mine.jsonl", {"id": "[red]\x1b[2J", "completion": "\x1b[31m\ud800 [bold]x", **GOLD})
    text = printed(file, "strict", None)
    assert "\x1b" not in text
    assert "\\x1b[31m\\ud800 [bold]x" in text
    assert "[red]\\x1b[2J" in text
