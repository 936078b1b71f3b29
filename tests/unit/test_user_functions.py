"""A user's functions receive TRL's arguments, the columns of their file, and texts where they judge."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from support.tiny_models import tiny_policy

from mlx_grpo.config.files import validate
from mlx_grpo.config.schema import RewardConfig
from mlx_grpo.data.dataset import load_prompts
from mlx_grpo.data.types import Prompt, Rollout
from mlx_grpo.errors import UserError
from mlx_grpo.rewards import Reward, column_warnings, load_judge, load_reward
from mlx_grpo.training.groups import score_rollouts
from mlx_grpo.user_functions import RESERVED, TrainerState

CHAT = ({"role": "user", "content": "hi"},)
WRAPPER_NAMES = ("call", "function", "functions", "key", "name", "arguments", "keywords", "prompt", "columns", "wanted")

handed: list[dict[str, Any]] = []
"""The arguments of each call of `recorder`."""
loops: list[Any] = []


def recorder(**arguments: Any) -> list[float]:
    handed.append(arguments)
    return [0.0] * len(arguments["completions"])


def judge(**arguments: Any) -> list[dict[str, float]]:
    handed.append(arguments)
    return [{"correct": 1.0} for _ in arguments["completions"]]


async def same_loop(completions: list[Any], **columns: Any) -> list[float]:
    """Gives 1 as long as it runs in one event loop, to which a client would be bound."""
    loops.append(asyncio.get_running_loop())
    return [float(len(set(loops)) == 1)] * len(completions)


async def fails_on_b(completions: list[Any], **columns: Any) -> list[float]:
    if "b" in completions:
        raise ValueError("no b")
    return [0.0] * len(completions)


class Weigher:
    """A reward with settings of its own."""

    def __call__(self, completions: list[Any], **columns: Any) -> list[float]:
        return [0.5] * len(completions)


weigher = Weigher()


def reward_of(name: str) -> Reward:
    return load_reward(RewardConfig(rubric=None, functions=[f"{__name__}:{name}"]))


@pytest.fixture(autouse=True)
def forget():
    handed.clear()
    loops.clear()


def test_chat_rows_hand_over_messages_and_plain_rows_text():
    reward_of("recorder")([Prompt("r", "<user>hi", (1,), {}, "hi", CHAT)], ["yo"], [(5, 2)], TrainerState(3, 10))
    [arguments] = handed
    assert arguments["prompts"] == [[{"role": "user", "content": "hi"}]]
    assert arguments["completions"] == [[{"role": "assistant", "content": "yo"}]]
    assert arguments["completion_ids"] == [[5, 2]]
    assert (arguments["trainer_state"].global_step, arguments["trainer_state"].max_steps) == (3, 10)
    reward_of("recorder")([Prompt("r", "hi", (1,))], ["yo"])
    assert (handed[1]["prompts"], handed[1]["completions"]) == (["hi"], ["yo"])


def test_function_that_changes_its_messages_leaves_the_dataset_as_it_is():
    prompt = Prompt("r", "hi", (1,), {}, "hi", CHAT)
    reward_of("recorder")([prompt], ["yo"])
    handed[0]["prompts"][0][0]["content"] = "changed"
    assert prompt.messages == ({"role": "user", "content": "hi"},)


def test_completion_ids_include_the_shared_prefix_of_a_branched_group():
    prompt = Prompt("r", "hi", (1,), shared_prefix_ids=(8, 9))
    score_rollouts(reward_of("recorder"), [Rollout(prompt, (5, 2), "abc", "stop")], TrainerState())
    assert handed[0]["completion_ids"] == [[8, 9, 5, 2]]


def test_judge_receives_texts_for_chat_rows():
    values = {"rubric": None, "functions": [f"{__name__}:recorder"], "judge": f"{__name__}:judge"}
    own = load_judge(validate({"model": "m", "data": {"train": "a.jsonl"}, "reward": values}))
    own([Prompt("r", "<user>hi", (1,), {"gold": 1, "completion": "right"}, "hi", CHAT)], ["yo"])
    assert handed == [{"prompts": ["<user>hi"], "completions": ["yo"], "gold": [1], "completion": ["right"]}]


def test_columns_with_names_of_the_wrappers_own_reach_the_function():
    reward_of("recorder")([Prompt("r", "hi", (1,), dict.fromkeys(WRAPPER_NAMES, 7))], ["yo"])
    assert {name: handed[0][name] for name in WRAPPER_NAMES} == {name: [7] for name in WRAPPER_NAMES}


def test_column_named_self_does_not_reach_a_method():
    assert reward_of("weigher")([Prompt("r", "hi", (1,), {"self": 7})], ["yo"]).rewards.tolist() == [0.5]


def test_columns_named_like_an_argument_are_dropped_with_one_warning():
    prompt = Prompt("r", "hi", (1,), {**dict.fromkeys(RESERVED, "taken"), "completion": "gold", "gold": 1})
    config = RewardConfig(rubric=None, functions=[f"{__name__}:recorder"])
    load_reward(config)([prompt], ["yo"])
    assert handed[0].keys() == {"prompts", "completions", "completion_ids", "trainer_state", "gold"}
    assert "taken" not in str(handed)
    [line] = column_warnings(config, [prompt])
    assert all(name in line for name in RESERVED)
    assert column_warnings(config, [Prompt("r", "hi", (1,), {"gold": 1})]) == []
    assert column_warnings(RewardConfig(), [prompt]) == []


def test_column_that_some_rows_lack_is_none_for_them_even_alone_in_a_step(tiny_qwen3: Path, tmp_path: Path):
    rows = [{"id": 1, "prompt": "a", "gold": 4}, {"id": 2, "prompt": "b", "tests": ["x"]}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    first, second = load_prompts(tmp_path / "rows.jsonl", tiny_policy(tiny_qwen3).tokenizer)
    for prompts in ([first, second], [second], [first]):
        reward_of("recorder")(prompts, ["yo"] * len(prompts))
    found = [(call["id"], call["gold"], call["tests"]) for call in handed]
    assert found == [([1, 2], [4, None], [None, ["x"]]), ([2], [None], [["x"]]), ([1], [4], [None])]


def test_async_functions_keep_their_event_loop_between_steps():
    reward = reward_of("same_loop")
    assert [reward([Prompt("r", "hi", (1,))] * 2, ["a", "b"]).rewards.tolist() for _ in range(2)] == [[1, 1], [1, 1]]


def test_failing_async_function_names_the_completion():
    with pytest.raises(UserError, match=r"fails_on_b raised ValueError: no b for row q \(completion: 'b'\)"):
        reward_of("fails_on_b")([Prompt("p", "hi", (1,)), Prompt("q", "hi", (1,))], ["a", "b"])


def by_length_of_text(completions: list[str], **columns: Any) -> list[float]:
    return [float(len(text.strip())) for text in completions]


def test_function_made_for_texts_is_told_the_shape_of_chat_rows():
    reward = reward_of("by_length_of_text")
    with pytest.raises(UserError, match=r"'list' object has no attribute 'strip' .*chat messages a completion is \[\{"):
        reward([Prompt("r", "hi", (1,), messages=CHAT)], ["a"])
    assert reward([Prompt("r", "hi", (1,))], ["a"]).rewards.tolist() == [1.0]
