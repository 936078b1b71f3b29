"""Data sets by their id on the Hub, from a Hub on loopback."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from support.hub_data import SUMS, TESTS, as_client, data_config, forget, jsonl, parquet, point_to
from support.hub_server import TOKEN, Dataset, Hub
from support.tiny_models import tiny_config
from support.tiny_runs import reward_by

from mlx_grpo.config.files import save_config, validate
from mlx_grpo.data.dataset import dataset_files, read_rows, with_full_paths
from mlx_grpo.data.hub_files import is_hub_id
from mlx_grpo.errors import UserError
from mlx_grpo.evaluation.episodes import heldout_prompts
from mlx_grpo.runs import Run, find_resumable
from mlx_grpo.training.progress import SilentReporter
from mlx_grpo.training.trainer import train


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with as_client(tmp_path / "home") as hub:
        yield hub


def rows_of(**changes: Any) -> list[dict[str, Any]]:
    return read_rows(dataset_files(data_config(**changes))[0])


def problem_of(**changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        dataset_files(data_config(**changes))
    return str(caught.value)


def test_split_of_several_parquet_files_is_read_in_order_with_its_columns_renamed(hub: Hub):
    train, heldout = dataset_files(data_config())
    assert heldout is not None
    assert read_rows(train) == [
        {"id": f"train-{n}", "prompt": row["question"], "answer": row["answer"]} for n, row in enumerate(SUMS, 1)
    ]
    assert [row["id"] for row in read_rows(heldout)] == ["test-1", "test-2", "test-3"]
    assert [row["answer"] for row in read_rows(heldout)] == [row["answer"] for row in TESTS]
    assert {path for _, path, _ in hub.requests if "README" in path} == set()


def test_prompt_of_text_becomes_a_chat_with_a_system_message(hub: Hub):
    rows = rows_of(as_messages=True, system="Answer with a number.")
    assert rows[0]["prompt"] == [
        {"role": "system", "content": "Answer with a number."},
        {"role": "user", "content": "What is 0 + 1?"},
    ]
    assert rows_of(as_messages=True)[0]["prompt"] == [{"role": "user", "content": "What is 0 + 1?"}]


def test_messages_of_parquet_have_no_empty_fields(hub: Hub):
    messages = [{"role": "system", "content": "s", "name": "n"}, {"role": "user", "content": "hi", "name": None}]
    hub.datasets["org/chat"] = Dataset({"main": {"train.parquet": parquet([{"prompt": messages}])}})
    [row] = rows_of(train="org/chat", columns={}, as_messages=True, system="another")
    assert row["prompt"] == [messages[0], {"role": "user", "content": "hi"}]


def test_values_of_parquet_become_values_of_json(hub: Hub):
    row = {"prompt": "p", "at": datetime(2026, 1, 2, 3), "price": Decimal("1.5"), "x": float("nan"), "in": [{"a": [1]}]}
    hub.datasets["org/values"] = Dataset({"main": {"train.parquet": parquet([{**row, "id": None}])}})
    [read] = rows_of(train="org/values", columns={"id": None})
    assert read == {**row, "at": "2026-01-02T03:00:00", "price": 1.5, "x": None, "id": "train-1"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.jsonl", jsonl(SUMS)),
        ("data/train.jsonl.gz", gzip.compress(jsonl(SUMS))),
        ("default/train/0000.parquet", parquet(SUMS)),
        ("data/train-00000-of-00001-0123456789abcdef.parquet", parquet(SUMS)),
    ],
)
def test_split_is_found_by_the_usual_names(hub: Hub, name: str, content: bytes):
    hub.datasets["org/sums"] = Dataset({"main": {name: content, "notes.txt": b""}})
    assert [row["answer"] for row in rows_of()] == [1, 2, 3, 4, 5]
    assert dataset_files(data_config())[1] is None


def test_subset_is_chosen_by_name_and_several_are_listed(hub: Hub):
    files = {
        f"{name}/{split}-00000-of-00001.parquet": parquet(SUMS[i:])
        for i, (name, split) in enumerate([("main", "train"), ("socratic", "train"), ("main", "test")])
    }
    hub.datasets["org/sums"] = Dataset({"main": files})
    assert [row["answer"] for row in rows_of(subset="socratic")] == [2, 3, 4, 5]
    assert dataset_files(data_config(subset="socratic"))[1] is None
    assert dataset_files(data_config(subset="main"))[1] is not None
    assert problem_of() == "data.subset: org/sums has the subsets main, socratic; choose one of them"
    assert problem_of(subset="socratc") == "data.subset: org/sums has no subset 'socratc'; did you mean socratic?"


def test_data_set_without_rows_of_its_own_is_read_as_the_hub_converted_it(hub: Hub):
    converted = {"default/train/0000.parquet": parquet(SUMS), "default/test/0000.parquet": parquet(TESTS)}
    hub.datasets["org/sums"] = Dataset({"main": {"rows.csv": b"a,b"}, "refs/convert/parquet": converted})
    assert [row["answer"] for row in rows_of()] == [1, 2, 3, 4, 5]
    config = with_full_paths(validate({"model": "m", "data": data_config().model_dump()}))
    assert config.data.train == f"org/sums@{hub.datasets['org/sums'].commit('refs/convert/parquet')}"
    assert dataset_files(config.data) == dataset_files(data_config())


def test_pinned_rows_are_those_of_the_commit_and_need_no_hub(hub: Hub):
    config = with_full_paths(validate({"model": "m", "data": data_config().model_dump()}))
    files = dataset_files(config.data)
    revisions = hub.datasets["org/sums"].revisions
    revisions["before"] = revisions["main"]
    revisions["main"] = {"data/train-00000-of-00001.parquet": parquet(SUMS[:1])}
    forget()
    asked = len(hub.requests)
    assert dataset_files(config.data) == files
    assert hub.requests[asked:] == []
    assert len(rows_of()) == 1
    newer = with_full_paths(validate({"model": "m", "data": data_config().model_dump()}))
    assert newer.data.train != config.data.train


@pytest.mark.parametrize("offline", [True, False])
def test_cached_rows_are_read_where_the_hub_is_out_of_reach(
    hub: Hub, tmp_path: Path, offline: bool, monkeypatch: pytest.MonkeyPatch
):
    before = dataset_files(data_config())
    forget()
    point_to("http://127.0.0.1:9", tmp_path / "home", monkeypatch)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    assert dataset_files(data_config()) == before
    # Another shape of the rows is made of the cached files.
    assert rows_of(as_messages=True)[0]["prompt"][0]["role"] == "user"
    reason = "HF_HUB_OFFLINE is set" if offline else "can't be reached"
    problem = problem_of(train="org/others")
    assert problem.startswith("data.train: 'org/others' is no file or folder here and could not be had from the Hub (")
    assert reason in problem
    assert problem.endswith(", and the cache lacks it); check the name, your connection, or give a JSONL file")


def test_half_a_download_is_not_taken_for_the_whole(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    dataset_files(data_config())
    forget()
    point_to("http://127.0.0.1:9", tmp_path / "home", monkeypatch)
    for path in (tmp_path / "home").rglob("train-00001-of-00002.parquet"):
        path.unlink()
    assert "the cache lacks it" in problem_of(columns={"prompt": "question", "answer": None})


def test_mistakes_in_split_and_columns_are_named_with_what_there_is(hub: Hub):
    assert problem_of(split="trian") == "data.split: org/sums has no split 'trian'; did you mean train?"
    assert problem_of(heldout_split="eval") == "data.heldout_split: org/sums has no split 'eval'; it has test, train"
    has = "org/sums has question, answer"
    assert problem_of(columns={"prompt": "query"}) == f"data.columns.prompt: there is no column 'query'; {has}"
    assert problem_of(columns={}) == (
        f"data.train: {has}, and no `prompt`; name the column, such as data.columns: {{prompt: question}}"
    )
    hub.datasets["org/broken"] = Dataset({"main": {"rows.csv": b"", "train.parquet": b"PAR1"}})
    assert "train.parquet: not readable as parquet (" in problem_of(train="org/broken")
    hub.datasets["org/empty"] = Dataset({"main": {"rows.csv": b""}})
    assert "org/empty holds no files by the usual names" in problem_of(train="org/empty")


def test_column_that_json_cannot_hold_is_named_with_the_remedy(hub: Hub):
    hub.datasets["org/pictures"] = Dataset({"main": {"train.parquet": parquet([{"prompt": "p", "image": b"\x89PNG"}])}})
    assert "leave it out: data.columns: {image: null}" in problem_of(train="org/pictures", columns={})
    assert rows_of(train="org/pictures", columns={"image": None}) == [{"id": "train-1", "prompt": "p"}]


@pytest.mark.parametrize(
    ("rows", "fault"),
    [([{"prompt": "p", "id": 1}] * 2, "`id` 1 is that of line 1 too"), ([{"prompt": None}], "`prompt` is NoneType")],
)
def test_rows_that_do_not_fit_are_mended_by_the_config_not_in_the_cache(hub: Hub, rows: list[Any], fault: str):
    hub.datasets["org/own-ids"] = Dataset({"main": {"train.parquet": parquet(rows)}})
    with pytest.raises(UserError) as caught:
        rows_of(train="org/own-ids", columns={})
    first, remedy = caught.value.problems
    assert fault in first
    assert "is made of org/own-ids: choose other columns (data.columns: {id: null} leaves `id` out)" in remedy


def test_a_missing_pyarrow_names_the_extra(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert problem_of() == "data.train: org/sums is parquet, which pyarrow reads: pip install 'mlx-grpo[datasets]'"


def test_refusals_of_the_hub_say_what_to_do_without_the_token(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    assert "there is no such repository, or it is private" in problem_of(train="org/others")
    hub.datasets["org/sums"].private = True
    forget()
    assert "there is no such repository, or it is private" in problem_of()
    hub.datasets["org/sums"].private, hub.datasets["org/sums"].gated = False, True
    assert "its owner asks for terms to be accepted on its page, and for a login: `hf auth login`" in problem_of()
    monkeypatch.setenv("HF_TOKEN", "hf_wrongSecret")
    forget()
    assert "the Hub refuses the token (401)" in problem_of()
    assert "hf_wrongSecret" not in problem_of()
    monkeypatch.setenv("HF_TOKEN", "hf_sec\x01ret")
    forget()
    assert "characters that no token has" in problem_of()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    forget()
    assert len(rows_of()) == 5
    assert "Invalid rev id: v9" in problem_of(train="org/sums@v9")


def test_run_records_the_commit_and_refuses_other_rows(
    hub: Hub, tiny_qwen3: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch
):
    settings = {"data": data_config().model_dump(), "reward": reward_by("constant"), "max_steps": 1}
    run = train(tiny_config(tiny_qwen3, **settings), SilentReporter())
    commit = hub.datasets["org/sums"].commit("main")
    assert run.config.data.train == f"org/sums@{commit}"
    save_config(tiny_config(tiny_qwen3, **settings), workdir / "sums.yaml")
    assert find_resumable("sums.yaml", [])[1].folder == run.folder.resolve()

    hub.datasets["org/sums"].revisions["main"] = {"train.jsonl": jsonl(SUMS[:2])}
    forget()
    with pytest.raises(UserError, match=rf"data\.train: 'org/sums@{commit}' in .*, 'org/sums@.*' now; it can't change"):
        find_resumable("sums.yaml", [])
    point_to("http://127.0.0.1:9", Path(constants.HF_HOME), monkeypatch)
    assert find_resumable(str(run.folder), [])[1].folder == run.folder.resolve()
    assert [prompt.id for prompt in heldout_prompts(Run(run.folder))] == ["test-1", "test-2", "test-3"]
    for path in Path(constants.HF_HOME).rglob("test.jsonl"):
        path.write_bytes(jsonl([{"id": 1, "prompt": "another"}]))
    with pytest.raises(UserError, match=r"data\.heldout: the rows of .* have changed since it began"):
        Run(run.folder).check_inputs("heldout")


@pytest.mark.parametrize("key", ["train", "heldout"])
def test_an_address_is_refused_with_the_form_of_an_id(key: str):
    data = {"train": "rows.jsonl", key: "https://huggingface.co/datasets/org/sums"}
    with pytest.raises(UserError, match=rf"data\.{key}: .*/org/sums is an address; name a data set .* as org/name"):
        dataset_files(validate({"model": "m", "data": data}).data)


def test_evaluation_without_a_test_split_asks_for_another_one(hub: Hub, tiny_qwen3: Path, tmp_path: Path):
    hub.datasets["org/sums"] = Dataset({"main": {"train.jsonl": jsonl(SUMS), "validation.jsonl": jsonl(TESTS)}})
    settings = {"data": data_config().model_dump(), "reward": reward_by("constant"), "output_dir": str(tmp_path)}
    with pytest.raises(UserError, match=r"data\.heldout: not set.* for a data set on the Hub data\.heldout_split"):
        heldout_prompts(Run.create(tiny_config(tiny_qwen3, **settings)))
    assert dataset_files(data_config(heldout_split="validation"))[1] is not None


def test_paths_are_no_ids(workdir: Path):
    (workdir / "org").mkdir()
    (workdir / "org" / "here").mkdir()
    names = ["org/here", "my-data/train.jsonl", "a/b.jsonl.gz", "/a/b", "./a", "a/b/c", "a", "../a/b", "shortlist"]
    assert not any(map(is_hub_id, names))
    assert all(map(is_hub_id, ["org/name", "HuggingFaceH4/MATH-500", "org/name@main", "org/name@refs/pr/1"]))


@pytest.mark.parametrize("key", ["split: x", "subset: main", "columns: {prompt: question}", "as_messages: true"])
def test_keys_of_the_hub_with_a_file_are_refused(key: str, workdir: Path):
    name, _, value = key.partition(": ")
    data = {"train": "rows.jsonl", name: {"x": "x", "main": "main", "true": True}.get(value, {"prompt": "question"})}
    with pytest.raises(UserError, match=rf"data\.{name}: set, but no data set on the Hub is named; remove it"):
        dataset_files(validate({"model": "m", "data": data}).data)


def test_system_message_without_messages_is_refused():
    with pytest.raises(UserError, match=r"data\.system: set, but data\.as_messages is false"):
        validate({"model": "m", "data": {"train": "org/sums", "system": "s"}})
