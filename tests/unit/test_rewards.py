"""Completions to rewards, by a rubric or by a user's own functions."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import mlx_grpo  # noqa: F401  (before mlx.core: it loads the BLAS)

# isort: split
import mlx.core as mx
import numpy as np
import pytest
from support.facts import FACTS

from mlx_grpo.config.files import validate
from mlx_grpo.config.schema import Config, RewardConfig
from mlx_grpo.data.types import Prompt
from mlx_grpo.errors import UserError
from mlx_grpo.generation.rollout import decode_completion
from mlx_grpo.grpo import group_advantages
from mlx_grpo.models.policy import load_tokenizer_of
from mlx_grpo.rewards import LARGEST_REWARD, check_columns, load_judge, load_reward
from reward import PUBLISHED, STRICT
from reward.checks import check_reasons

LABEL = {"decision": "reject", "score": 0.2}
PROMPT = Prompt("r1", "", (1,), {"gold": 0.25, **LABEL, "facts": FACTS, "context": "Python"})
ANSWER = '{"decision":"reject","score":0.2,"reasons":["knows Python"]}'


def functions(*names: str, weights: list[float] | None = None) -> RewardConfig:
    return RewardConfig(
        rubric=None, functions=[f"support.toy_rewards:{name}" for name in names], reward_weights=weights
    )


def test_a_rubric_scores_each_completion_against_its_rows_columns():
    scores = load_reward(RewardConfig(rubric="published"))([PROMPT, PROMPT], [f"<think>hm</think>{ANSWER}", "nonsense"])
    expected = PUBLISHED(ANSWER, **LABEL, context="Python")
    assert scores.rewards[0] == pytest.approx(expected.total)
    assert scores.components["format_valid"].tolist() == [1, 0]
    assert "total" not in scores.components


def test_a_thought_that_the_prompt_began_earns_what_the_answer_after_it_does():
    prompt = replace(PROMPT, text="<|im_start|>assistant\n<think>\n")
    completions = [f"hm {{}}\n</think>\n{ANSWER}", f"<think>hm</think>{ANSWER}", f"hm {ANSWER}"]
    rewards = load_reward(RewardConfig(rubric="published"))([prompt] * 3, completions).rewards
    whole = PUBLISHED(ANSWER, **LABEL, context="Python").total
    assert rewards.tolist() == [whole, whole, PUBLISHED("", **LABEL, context="Python").total]


def test_strict_is_handed_the_facts_and_published_the_user_message_without_a_context():
    prompt = Prompt("r1", "rendered", (1,), {**LABEL, "facts": FACTS}, "Python")
    answer = ANSWER.replace('"knows Python"', '"Python: expert, 40 months"')
    strict = load_reward(RewardConfig(rubric="strict"))([prompt], [answer])
    assert strict.rewards[0] == STRICT(answer, **LABEL, facts=FACTS).total
    assert strict.components["reason_quality"][0] > 0
    published = load_reward(RewardConfig(rubric="published"))([prompt], [answer])
    assert published.rewards[0] == PUBLISHED(answer, **LABEL, context="Python").total


def test_rows_without_facts_are_refused_under_strict_and_accepted_under_published():
    prompt = Prompt("r1", "rendered", (1,), LABEL, "Python")
    check_columns(RewardConfig(rubric="published"), [prompt])
    with pytest.raises(UserError, match=r"row r1: has no facts.*\(and 1 other rows like it\)") as caught:
        check_columns(RewardConfig(rubric="strict"), [prompt, replace(prompt, id="r2")])
    assert "mlx-grpo data build" in caught.value.problems[0]


@pytest.mark.parametrize("completion", ["nonsense", "{}", '{"reasons": "one"}', '{"reasons": []}', "[" * 9999])
def test_a_completion_without_a_list_of_reasons_has_none_to_check(completion: str):
    assert check_reasons(completion, FACTS).texts == []


def test_reasons_that_are_no_text_are_unread_beside_the_others():
    checked = check_reasons('{"reasons": [1, "no SQL; Python: beginner"]}', FACTS)
    assert checked.texts == ["1", "no SQL; Python: beginner"]
    assert [[clause.status for clause in clauses] for clauses in checked.evidence.reasons] == [
        ["unread"],
        ["confirmed", "refuted"],
    ]


def test_configured_weights_change_the_total():
    only_format = dict.fromkeys(("decision_match", "score_alignment", "reason_quality"), 0)
    only_format |= {"length_penalty": 0, "no_hallucination": 0}
    scores = load_reward(RewardConfig(rubric="published", weights=only_format))([PROMPT], ['{"x":1}'])
    assert scores.rewards[0] == pytest.approx(1.0)


def test_an_unknown_weight_is_a_users_mistake():
    with pytest.raises(UserError, match="brevity"):
        load_reward(RewardConfig(rubric="strict", weights={"brevity": 1}))


def test_functions_of_the_same_name_in_two_modules_have_their_own_components():
    config = RewardConfig(rubric=None, functions=["support.toy_rewards:constant", "support.toy_rewards_two:constant"])
    scores = load_reward(config)([PROMPT, PROMPT], ["a", "b"])
    assert scores.rewards.tolist() == pytest.approx([10.7, 10.7])
    assert scores.components["support.toy_rewards_two:constant"].tolist() == [10.0, 10.0]


def test_functions_are_weighted_and_summed_and_read_columns():
    scores = load_reward(functions("share_of_letters", "gold_column", weights=[2.0, 1.0]))([PROMPT], ["aB"])
    assert scores.rewards.tolist() == [2 * 0.5 + 0.25]
    assert scores.components["gold_column"].tolist() == [0.25]


def test_none_means_does_not_apply():
    scores = load_reward(functions("only_long"))([PROMPT, PROMPT], ["short", "no"])
    np.testing.assert_array_equal(scores.rewards, [0.5, math.nan])
    both = load_reward(functions("only_long", "share_of_letters"))([PROMPT], ["aa"])
    assert both.rewards.tolist() == [1.0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raises", "raised KeyError"),
        ("too_few", "returned 1 values for 2 completions"),
        ("not_a_number", "returned nan for row r1"),
        ("signaling_nan", "returned Decimal.* for row r1; return a finite number"),
        ("beyond_float32", r"returned 1e\+39 for row r1; return a finite number up to 1e\+15"),
        ("square_beyond_float32", r"returned -1e\+20 for row r1; return a finite number up to 1e\+15"),
        ("absent", "has no absent"),
    ],
)
def test_a_faulty_function_is_named(name: str, message: str):
    with pytest.raises(UserError, match=message):
        load_reward(functions(name))([PROMPT, PROMPT], ["a", "b"])


def test_weights_that_make_a_reward_too_large_are_named():
    reward = load_reward(functions("gold_column", "constant", weights=[1e30, 1.0]))
    with pytest.raises(UserError, match=r"reward_weights: the weighted rewards of row r1 sum to 2.5e\+29; lower"):
        reward([PROMPT], ["a"])


@pytest.mark.parametrize("scale", ["group", "batch"])
def test_largest_reward_allowed_has_advantages(scale: str):
    rewards = mx.array([[LARGEST_REWARD, -LARGEST_REWARD] * 256] * 8)  # [P, G], far more than a step has
    np.testing.assert_allclose(np.abs(np.array(group_advantages(rewards, scale))), 1.0, rtol=1e-3)
    assert mx.all(group_advantages(rewards * 1e5, scale) == 0)  # the deviation is infinite: nothing would be learned


def test_a_module_that_cannot_be_imported_is_named():
    with pytest.raises(UserError, match="nowhere_at_all"):
        load_reward(RewardConfig(rubric=None, functions=["nowhere_at_all:f"]))


def test_a_completion_of_nothing_or_of_the_stop_token_alone_is_scored(tiny_qwen3: Path):
    tokenizer = load_tokenizer_of(tiny_qwen3)
    texts = [decode_completion(tokenizer, ids) for ids in ([], [tokenizer.eos_token_id])]
    assert texts == ["", ""]
    assert load_reward(RewardConfig(rubric="strict"))([PROMPT, PROMPT], texts).rewards.tolist() == [0.0, 0.0]
    assert load_reward(functions("share_of_letters"))([PROMPT, PROMPT], texts).rewards.tolist() == [0.0, 0.0]


def judged_by(name: str) -> Config:
    return validate(
        {"model": "m", "reward": {**functions("constant").model_dump(), "judge": f"support.toy_rewards:{name}"}}
    )


def test_judge_of_the_user_names_the_figures_of_each_completion():
    judge = load_judge(judged_by("length_figures"))
    assert judge([PROMPT, PROMPT], ["long enough", "no"]) == [
        {"correct": False, "excess": 7.0},
        {"correct": True, "excess": None},
    ]
    assert load_judge(validate({"model": "m", "data": {"train": "a.jsonl"}, "reward": functions("constant")})) is None


def test_rubric_and_bundled_rows_bring_their_tasks_judge():
    for values in ({}, {"data": {"train": "shortlist"}, "reward": functions("constant")}):
        judge = load_judge(validate({"model": "m", **values}))
        [figures] = judge([PROMPT], [f"<think>hm</think>{ANSWER}"])
        assert (figures["correct"], figures["score"], figures["fit"]) == (True, 0.2, 0.2)


def test_judge_beside_a_rubric_is_refused():
    with pytest.raises(UserError, match=r"reward\.judge belongs to"):
        validate({"model": "m", "reward": {"judge": "a:b"}})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raises", "raised KeyError"),
        ("too_few", "returned 1 values for 2 completions"),
        ("constant", "row r1: returned 0.7; return a dictionary"),
        ("figures_that_differ", "has the figures right, the first row correct"),
        ("figure_named_reward", "'reward' is a name of the evaluation's own"),
        ("figure_off_the_scale", "score is 7.0; scale it"),
        ("figure_without_its_label", "fit is None; it says what is right"),
        ("absent", "reward.judge: .* has no absent"),
    ],
)
def test_faulty_judge_is_named(name: str, message: str):
    with pytest.raises(UserError, match=message):
        load_judge(judged_by(name))([PROMPT, PROMPT], ["a", "b"])


def test_column_with_the_name_of_a_parameter_is_no_harm():
    prompt = replace(PROMPT, columns={**PROMPT.columns, "completions": 1, "self": 2, "context": "Python"})
    config = validate({"model": "m"})
    assert load_reward(config.reward)([prompt], [ANSWER]).rewards[0] > 0
    assert load_judge(config)([prompt], [ANSWER])[0]["correct"]
