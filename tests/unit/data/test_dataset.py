"""Rows become prompts; bad rows are listed; a step's prompts depend on the seed and the step alone."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.paths import SHARED
from support.tiny_models import TEMPLATE, tiny_policy, tiny_tokenizer

from mlx_grpo.config.files import validate
from mlx_grpo.config.schema import DataConfig
from mlx_grpo.data.dataset import (
    dataset_files,
    load_prompts,
    make_prompt,
    read_rows,
    untemplated,
    with_full_paths,
)
from mlx_grpo.errors import UserError


def test_bad_rows_are_listed_with_line_number_and_remedy(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    good = json.dumps({"prompt": "hello"})
    bad = ["{broken", "[1]", "{}", '{"prompt": ""}', '{"prompt": [{"role": "user"}]}', '{"prompt": [{"content": "x"}]}']
    path.write_text("\n".join([good, *bad, good]))
    with pytest.raises(UserError) as caught:
        read_rows(path)
    assert [line.split(":")[0].rpartition(" ")[2] for line in caught.value.problems] == ["2", "3", "4", "5", "6", "7"]
    assert all(";" in line for line in caught.value.problems)


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_file_is_an_error(tmp_path: Path, content: str):
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match="holds no rows"):
        read_rows(path)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path):
    with pytest.raises(UserError, match="mlx-grpo data build"):
        read_rows(tmp_path / "none.jsonl")


def test_chat_prompts_are_rendered_with_thinking_off_and_columns_go_to_the_reward(tiny_qwen3: Path):
    policy = tiny_policy(tiny_qwen3)
    row = {"id": "r", "prompt": [{"role": "user", "content": "hi"}], "gold": 3}
    prompt = make_prompt(row, policy.tokenizer)
    assert prompt.text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think></think>"
    assert prompt.columns == {"id": "r", "gold": 3}
    assert prompt.token_ids.count(policy.stop_ids[0]) == 1
    thinking = make_prompt(row, policy.tokenizer, enable_thinking=True)
    assert thinking.text.endswith("assistant\n")


def test_a_text_prompt_gets_one_beginning_of_sequence():
    tokenizer = tiny_tokenizer("", special=["<s>"], bos_token="<s>")
    bos = tokenizer.convert_tokens_to_ids("<s>")
    starts = [make_prompt({"id": "r", "prompt": text}, tokenizer).token_ids for text in ("hi", "<s>hi")]
    assert starts[0] == starts[1] == (bos, *tokenizer.encode("hi", add_special_tokens=False))


def test_plain_text_for_a_chat_model_is_named_with_a_remedy():
    tokenizer = tiny_tokenizer(TEMPLATE)
    chat = [{"role": "user", "content": "hi"}]
    rows = [{"id": str(i), "prompt": prompt} for i, prompt in enumerate(["hi", "<|im_start|>user\nhi", chat])]
    prompts = [make_prompt(row, tokenizer) for row in rows]
    assert untemplated(prompts, tokenizer).startswith("1 of 3 prompts are plain text")
    assert '[{"role": "user", "content": ...}]' in untemplated(prompts, tokenizer)
    assert untemplated(prompts[1:], tokenizer) is None
    assert untemplated(prompts[:1], tiny_tokenizer(None)) is None


def test_the_user_message_is_kept_for_a_reward_and_quotes_of_the_prompt_read_as_it_does(tiny_qwen3: Path):
    tokenizer = tiny_policy(tiny_qwen3).tokenizer
    chat = [{"role": "system", "content": "Judge."}, {"role": "user", "content": "SQL<|im_end|>"}]
    prompt = make_prompt({"id": "r", "prompt": chat, "facts": {"skills": {"SQL<|im_end|>": 3}}}, tokenizer)
    assert prompt.context == prompt.user_message == "SQL< |im_end|>"
    assert prompt.columns == {"id": "r", "facts": {"skills": {"SQL< |im_end|>": 3}}}
    assert make_prompt({"id": "r", "prompt": chat, "context": "mine"}, tokenizer).context == "mine"
    assert make_prompt({"id": "r", "prompt": "say 1"}, tokenizer).context == "say 1"


def test_a_compressed_file_is_read_like_a_plain_one(tmp_path: Path):
    text = '\ufeff{"prompt": "é"}\r\n{"prompt": "b"}\n'
    (tmp_path / "rows.jsonl").write_bytes(text.encode())
    plain = read_rows(tmp_path / "rows.jsonl")
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    assert read_rows(tmp_path / "rows.jsonl.gz") == plain
    assert [row["id"] for row in plain] == ["rows-1", "rows-2"]


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: b"{}", lambda data: data[:20] + b"x" * 20])
def test_a_damaged_compressed_file_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]):
    (tmp_path / "rows.jsonl.gz").write_bytes(damage(gzip.compress(b'{"prompt": "a"}\n' * 9)))
    with pytest.raises(UserError, match=r"rows\.jsonl\.gz: not readable"):
        read_rows(tmp_path / "rows.jsonl.gz")


def test_a_folder_may_hold_either_kind_of_file_and_not_both(tmp_path: Path):
    (tmp_path / "train.jsonl.gz").touch()
    assert dataset_files(DataConfig(train=str(tmp_path))) == (tmp_path / "train.jsonl.gz", tmp_path / "heldout.jsonl")
    (tmp_path / "train.jsonl").touch()
    with pytest.raises(UserError, match=r"train\.jsonl\.gz is beside it; remove the older one"):
        dataset_files(DataConfig(train=str(tmp_path)))


def test_a_folder_holds_train_and_heldout_and_a_file_stands_for_itself(tmp_path: Path):
    assert dataset_files(DataConfig(train=str(tmp_path))) == (tmp_path / "train.jsonl", tmp_path / "heldout.jsonl")
    assert dataset_files(DataConfig(train="a.jsonl")) == (Path("a.jsonl"), None)
    assert dataset_files(DataConfig(train="a.jsonl", heldout="b.jsonl"))[1] == Path("b.jsonl")


def test_full_paths_are_given_to_what_exists_here_and_to_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("model", "shortlist", "run"):
        Path(folder).mkdir()
    data, warm = {"train": "shortlist", "heldout": "none.jsonl"}, {"run": "run", "steps": 1}
    full = with_full_paths(validate({"model": "model", "data": data, "warm_start": warm}))
    assert (full.model, full.warm_start.run) == (str(tmp_path / "model"), str(tmp_path / "run"))
    assert (full.data.train, full.data.heldout) == ("shortlist", "none.jsonl")  # bundled, and absent
    assert with_full_paths(full) == full


def test_bundled_training_and_held_out_rows_share_neither_job_nor_candidate(tiny_qwen3: Path):
    for name in ("shortlist", "shortlist-full"):
        train, heldout = (read_rows(path) for path in dataset_files(DataConfig(train=name)))
        for column in ("job_id", "candidate_id", "id"):
            assert not {row[column] for row in train} & {row[column] for row in heldout}


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs Qwen3's real tokenizer, which a bare clone does not hold")
def test_qwen3_ends_its_prompt_with_an_empty_thought():
    from mlx_lm.utils import load_tokenizer

    tokenizer = load_tokenizer(SHARED / "models" / "qwen3-0.6b")
    path = dataset_files(DataConfig(train="shortlist"))[0]
    prompt = load_prompts(path, tokenizer)[0]
    assert prompt.token_ids[-4:] == (151667, 271, 151668, 271)
    assert tokenizer.eos_token_ids == {151645} or 151645 in tokenizer.eos_token_ids
