"""The warm start: what it learns from a row, what it refuses, and that of another run."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.tiny_models import TEMPLATE, tiny_config, tiny_policy, with_template
from support.tiny_runs import reward_by, rows_file

from mlx_grpo import runs
from mlx_grpo.config.schema import Config
from mlx_grpo.data.dataset import make_prompt, with_full_paths
from mlx_grpo.data.types import Prompt
from mlx_grpo.errors import UserError
from mlx_grpo.generation.rollout import decode_completion
from mlx_grpo.training.progress import SilentReporter
from mlx_grpo.training.trainer import train
from mlx_grpo.training.warm_start import check_completions, find_warm_start, target_ids


def test_warm_start_targets_end_with_the_stop_token(tiny_qwen3: Path):
    policy = tiny_policy(tiny_qwen3)
    prompt = make_prompt({"id": "0", "prompt": "hi", "completion": "ab"}, policy.tokenizer)
    *text, stop = target_ids(policy, prompt)
    assert policy.tokenizer.decode(text) == "ab"
    assert stop in policy.stop_ids


def test_warm_start_ends_a_turn_as_the_template_does(tiny_qwen3: Path, tmp_path: Path):
    policy = tiny_policy(with_template(tiny_qwen3, tmp_path / "m", TEMPLATE.replace("<|im_end|>", "<|im_start|>")))
    prompt = make_prompt({"id": "0", "prompt": "hi", "completion": "ab"}, policy.tokenizer)
    assert policy.tokenizer.decode(target_ids(policy, prompt)) == "ab<|im_start|>"  # its eos_token is <|im_end|>


def test_warm_start_closes_a_thought_that_the_prompt_began(tiny_qwen3: Path):
    policy = tiny_policy(tiny_qwen3)
    texts = []
    for completion in ("ab", "hm</think>ab"):
        prompt = Prompt("0", "assistant\n<think>\n", (1,), {"completion": completion})
        texts.append(decode_completion(policy.tokenizer, target_ids(policy, prompt)))
    assert texts == ["\n</think>\n\nab", "hm</think>ab"]


@pytest.mark.parametrize("content", ["ab", [{"role": "assistant", "content": "ab"}]])
def test_warm_start_learns_completions_of_one_assistant_message(tiny_qwen3: Path, content: object):
    policy = tiny_policy(tiny_qwen3)
    row = {"id": "0", "prompt": [{"role": "user", "content": "hi"}], "completion": content}
    prompt = make_prompt(row, policy.tokenizer)
    check_completions(policy, [prompt])
    assert policy.tokenizer.decode(target_ids(policy, prompt)[:2]) == "ab"


def test_warm_start_refuses_completions_of_several_messages(tiny_qwen3: Path):
    policy = tiny_policy(tiny_qwen3)
    turns = [{"role": "assistant", "content": "ab"}, {"role": "user", "content": "and?"}]
    row = {"id": "0", "prompt": [{"role": "user", "content": "hi"}], "completion": turns}
    with pytest.raises(UserError, match="row 0: `completion` is a list, but not of one assistant message"):
        check_completions(policy, [make_prompt(row, policy.tokenizer)])


def test_warm_start_refuses_completions_beyond_the_models_context(tiny_qwen3: Path):
    policy = tiny_policy(tiny_qwen3)
    fits, exceeds = (
        make_prompt({"id": str(n), "prompt": "hi", "completion": "a" * n}, policy.tokenizer) for n in (509, 510)
    )
    check_completions(policy, [fits])
    with pytest.raises(UserError, match=r"row 510: 2 prompt tokens and a `completion` of 511 exceed .* context of 512"):
        check_completions(policy, [fits, exceeds])


def test_reference_is_the_policy_after_the_warm_start(tiny_qwen3: Path, tmp_path: Path):
    data = {"train": rows_file(tmp_path, completion="aaa")}
    config = tiny_config(
        tiny_qwen3,
        data=data,
        reward=reward_by("share_of_letters"),
        output_dir=str(tmp_path / "runs"),
        warm_start={"steps": 3, "batch_size": 2, "learning_rate": 1e-1},
        beta=0.04,
    )
    run = train(config, SilentReporter()).folder
    first = next(m for m in runs.read_jsonl(run / runs.METRICS) if "reward" in m)
    assert first["kl"] == pytest.approx(0.0, abs=1e-9)


def test_warm_start_of_another_run_needs_the_same_settings(
    tiny_qwen3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rows_file(tmp_path, completion="aaa")
    monkeypatch.chdir(tmp_path)

    def settings(**warm: object) -> Config:
        return tiny_config(
            tiny_qwen3,
            data={"train": "rows.jsonl"},  # a run's config has its absolute path
            reward=reward_by("share_of_letters"),
            output_dir=str(tmp_path / "runs"),
            warm_start={"steps": 2, **warm},
            seed=1 if warm else 0,
        )

    first = train(settings(), SilentReporter()).folder
    second = train(settings(run="runs/latest"), SilentReporter()).folder
    assert runs.Run(second).config.warm_start.run == str(first)  # `latest` is another run by now
    starts = [(run / runs.WARM_START / "adapters.safetensors").read_bytes() for run in (first, second)]
    assert starts[0] == starts[1]
    assert not any("phase" in record for record in runs.read_jsonl(second / runs.METRICS))
    made = len(list((tmp_path / "runs").iterdir()))
    with pytest.raises(UserError, match=r"warm_start.run: warm_start.steps was 2 in .*, 3 here"):
        train(settings(run=str(first), steps=3), SilentReporter())
    with pytest.raises(UserError, match=r"warm_start.run: max_grad_norm was 1.0 in .*, 0.5 here"):
        train(settings(run=str(first)).model_copy(update={"max_grad_norm": 0.5}), SilentReporter())
    with pytest.raises(UserError, match=r"warm_start.run: data.columns.prompt was None in .*, 'text' here"):
        other = with_full_paths(settings(run=str(first)))
        data = other.data.model_copy(update={"columns": {"prompt": "text"}})
        find_warm_start(other.model_copy(update={"data": data}))
    with pytest.raises(UserError, match=r"warm_start.run: .*not a run folder"):
        train(settings(run=str(tmp_path)), SilentReporter())
    (first / runs.WARM_START / "adapters.safetensors").unlink()
    with pytest.raises(UserError, match=r"warm_start.run: .*has no warm_start yet"):
        train(settings(run=str(first)), SilentReporter())
    assert len(list((tmp_path / "runs").iterdir())) == made
