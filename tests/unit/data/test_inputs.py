"""The record of a run's rows and rubric: what later commands refuse, and in which words."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from support.facts import CONTEXT, FACTS
from support.tiny_models import tiny_config

from mlx_grpo.config.files import save_config
from mlx_grpo.config.schema import Config
from mlx_grpo.data.inputs import Inputs, changed_inputs
from mlx_grpo.errors import UserError
from mlx_grpo.evaluation.eval import run_eval
from mlx_grpo.runs import INPUTS, Run, find_resumable
from mlx_grpo.tasks.shortlist.instruction import instruction_of
from reward import STRICT

ROW = {"id": "a", "prompt": "say 1", "decision": "shortlist", "score": 0.57, "facts": FACTS}
EVERYTHING = ("rubric", "train", "heldout")


def config_of(folder: Path, **changes: object) -> Config:
    for split in ("train", "heldout"):
        (folder / f"{split}.jsonl").write_text(json.dumps({**ROW, "id": split}))
    settings = {"data": {"train": str(folder)}, "output_dir": str(folder / "runs"), **changes}
    return tiny_config(folder / "model", **{"reward": {"rubric": "strict"}, **settings})


def test_a_run_of_the_bundled_rows_keeps_their_instruction_and_form(tmp_path: Path):
    for name, form in (("shortlist", "compact"), ("shortlist-full", "full")):
        inputs = Inputs.of(config_of(tmp_path, data={"train": name}))
        assert (tuple(inputs.instruction), inputs.form, inputs.rubric) == (instruction_of(form), form, STRICT.version)


def test_rows_of_another_task_have_neither_and_functions_have_no_rubric(tmp_path: Path):
    functions = {"rubric": None, "functions": ["support.toy_rewards:constant"]}
    inputs = Inputs.of(config_of(tmp_path, reward=functions))
    assert (inputs.instruction, inputs.form, inputs.rubric) == ([], None, None)
    chat = [{"role": "user", "content": CONTEXT}]
    (tmp_path / "train.jsonl").write_text(json.dumps({**ROW, "prompt": chat}))
    assert Inputs.of(config_of(tmp_path)).instruction == []


def test_a_new_run_writes_the_record_and_finds_nothing_changed(tmp_path: Path):
    run = Run.create(config_of(tmp_path))
    assert Inputs.read(run.folder / INPUTS) == run.inputs == Inputs.of(run.config)
    run.check_inputs(*EVERYTHING)


def test_a_run_of_data_that_is_absent_is_not_created(tmp_path: Path):
    config = config_of(tmp_path)
    (tmp_path / "train.jsonl").unlink()
    with pytest.raises(UserError, match="no such file"):
        Run.create(config)
    assert not (tmp_path / "runs").exists()


def test_every_input_that_changed_is_named_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = Run.create(config_of(tmp_path))
    (tmp_path / "heldout.jsonl").write_text(json.dumps({**ROW, "score": 0.5}))
    run.check_inputs("rubric", "train")
    record = json.loads((run.folder / INPUTS).read_text())
    (run.folder / INPUTS).write_text(json.dumps({**record, "rubric": "strict 1"}))
    with pytest.raises(UserError) as caught:
        Run(run.folder).check_inputs(*EVERYTHING)
    (problem,) = caught.value.problems
    assert f"the rubric was strict 1 and is {STRICT.version} now" in problem
    assert f"data.heldout: the rows of {tmp_path / 'heldout.jsonl'} have changed since it began" in problem
    assert "data.train" not in problem
    assert problem.endswith("start a new run, or use the version that began it")


def test_compressing_a_file_of_rows_changes_nothing(tmp_path: Path):
    config = config_of(tmp_path)
    before = Inputs.of(config)
    data = (tmp_path / "train.jsonl").read_bytes()
    (tmp_path / "train.jsonl").unlink()
    (tmp_path / "train.jsonl.gz").write_bytes(gzip.compress(data))
    assert changed_inputs(before, config, EVERYTHING) == []


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({}, True),
        ({"data": {"train": "shortlist"}, "reward": {"rubric": "published"}}, True),
        ({"reward": {"rubric": "published"}}, False),
        ({"reward": {"rubric": None, "functions": ["support.toy_rewards:constant"]}}, False),
    ],
)
def test_a_run_without_a_record_is_old_where_rubric_or_rows_have_changed_since(tmp_path: Path, changes, refused):
    problems = changed_inputs(None, config_of(tmp_path, **changes), EVERYTHING)
    assert problems == (["it is older than the rubric and the rows of this version"] if refused else [])


def test_resume_and_eval_refuse_a_run_from_before(tmp_path: Path):
    folder = tmp_path / "old"
    folder.mkdir()
    save_config(config_of(tmp_path), folder / "config.yaml")
    with pytest.raises(UserError, match=f"{folder}: it is older than the rubric and the rows"):
        find_resumable(str(folder), [])
    with pytest.raises(UserError, match=f"{folder}: it is older than the rubric and the rows"):
        run_eval(str(folder), backend="mlx", device="auto", episodes=None, max_new_tokens=None, progress=print)


def test_a_record_that_is_damaged_is_the_users_to_mend(tmp_path: Path):
    run = Run.create(config_of(tmp_path))
    (run.folder / INPUTS).write_text("{")
    with pytest.raises(UserError, match=r"inputs\.json: not readable"):
        Run(run.folder).check_inputs("train")
