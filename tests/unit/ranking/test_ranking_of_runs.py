"""A run ranks with its adapter, and is asked as its rows were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.paths import BUNDLED_ROWS
from support.pools import profile
from support.tiny_models import TEMPLATE, tiny_config, tiny_policy, with_template

from mlx_grpo import Ranker
from mlx_grpo.data.dataset import read_rows
from mlx_grpo.errors import UserError
from mlx_grpo.models.policy import save_adapter
from mlx_grpo.runs import ADAPTER, INPUTS, Run
from mlx_grpo.tasks.shortlist.condense import compact_view
from mlx_grpo.tasks.shortlist.pool import read_candidate
from mlx_grpo.tasks.shortlist.records import Job
from mlx_grpo.tasks.shortlist.rows import make_row


def test_run_ranks_with_its_adapter_in_the_form_it_was_trained_on(tiny_qwen3: Path, tmp_path: Path):
    config = tiny_config(
        tiny_qwen3,
        data={"train": "shortlist-full", "enable_thinking": True},
        eval={"max_new_tokens": 7, "batch_size": 3},
        reward={"limits": {"max_reasons": 4}},
        output_dir=str(tmp_path / "runs"),
    )
    run = Run.create(config).folder
    with pytest.raises(UserError, match="has no adapter yet"):
        Ranker(run)
    policy = tiny_policy(tiny_qwen3)
    save_adapter(policy, config, run / ADAPTER)
    found = Ranker(run).model
    settings = found.settings
    assert (settings.form, settings.token_budget, settings.max_new_tokens) == ("full", 1000, 7)
    assert (settings.enable_thinking, found.batch_size, found.dtype) == (True, 3, "float32")
    assert found.rubric.limits.max_reasons == 4
    assert Ranker(run, form="compact").model.settings.token_budget == 200
    assert found.fingerprint() != Ranker(tiny_qwen3).model.fingerprint()


def test_run_is_asked_with_the_instruction_of_its_own_rows(tiny_qwen3: Path, tmp_path: Path):
    rows = read_rows(BUNDLED_ROWS / "train.jsonl.gz")[:2]
    for row in rows:
        row["prompt"][0]["content"] = "An older instruction."
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = tiny_config(tiny_qwen3, data={"train": str(tmp_path / "rows.jsonl")}, output_dir=str(tmp_path / "runs"))
    run = Run.create(config).folder
    save_adapter(tiny_policy(tiny_qwen3), config, run / ADAPTER)
    (tmp_path / "rows.jsonl").unlink()  # the record is enough
    candidate, _ = read_candidate("x", profile("C0"))
    for form in (None, "full"):
        prompt = Ranker(run, form=form)._prompt(Job("Analyst", ("Python",)), candidate)
        assert prompt.text.startswith("<|im_start|>system\nAn older instruction.<|im_end|>")
        assert prompt.user_message.startswith("[JOB]\nTitle: " if form else "[JOB]\nAnalyst, ")
    (run / INPUTS).unlink()
    with pytest.raises(UserError, match="is older than the prompts of this version"):
        Ranker(run)


@pytest.mark.parametrize("form", ["compact", "full"])
def test_run_on_the_published_wording_is_asked_in_it(form: str, tiny_qwen3: Path, tmp_path: Path):
    job = Job("Analyst", ("Python",))
    candidate, _ = read_candidate("x", profile("C0"))
    row = make_row(job, compact_view(job, candidate), form, kind="pool", wording="published")
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    config = tiny_config(tiny_qwen3, data={"train": str(tmp_path / "rows.jsonl")}, output_dir=str(tmp_path / "runs"))
    run = Run.create(config).folder
    save_adapter(tiny_policy(tiny_qwen3), config, run / ADAPTER)
    prompt = Ranker(run)._prompt(job, compact_view(job, candidate))
    assert prompt.messages == tuple(row["prompt"])
    assert prompt.user_message.startswith("[JOB DESCRIPTION]\n")


def test_run_ranks_with_the_date_of_its_first_day(tiny_qwen3: Path, tmp_path: Path):
    base = with_template(tiny_qwen3, tmp_path / "m", "{{ strftime_now('%Y-%m-%d') }}" + TEMPLATE)
    config = tiny_config(base, data={"train": "shortlist"}, output_dir=str(tmp_path / "runs"))
    run = Run.create(config, "2026-01-31").folder
    save_adapter(tiny_policy(base), config, run / ADAPTER)
    candidate, _ = read_candidate("x", profile("C0"))
    assert Ranker(run)._prompt(Job("Analyst", ("Python",)), candidate).text.startswith("2026-01-31<|im_start|>")


def test_run_of_another_task_needs_a_form(tiny_qwen3: Path, tmp_path: Path):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "say 1"}\n')
    config = tiny_config(tiny_qwen3, data={"train": str(tmp_path / "rows.jsonl")}, output_dir=str(tmp_path / "runs"))
    run = Run.create(config).folder
    save_adapter(tiny_policy(tiny_qwen3), config, run / ADAPTER)
    with pytest.raises(UserError, match="--form compact or --form full"):
        Ranker(run)
    assert Ranker(run, form="full").model.settings.form == "full"
