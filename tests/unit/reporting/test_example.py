"""The prompt whose completions before and after are shown."""

from __future__ import annotations

import math

from mlx_grpo.reporting.example import example_lines, typical


def episodes(*gains: float, text: str = "a b") -> dict:
    rows = [{"prompt_id": f"p{n}", "completion": text, "reward": gain, "correct": 1.0} for n, gain in enumerate(gains)]
    return {"baseline": [{**row, "reward": 0.0, "correct": 0.0} for row in rows], "trained": rows}


def test_typical_prompt_has_the_median_gain():
    assert typical(episodes(0.1, 0.9, 0.4)) == 2
    assert typical(episodes(0.5)) == 0
    assert typical(episodes(math.nan, 0.9, math.nan, 0.1, 0.4)) == 4  # no reward function applied to two of them


def test_both_completions_are_wrapped_with_their_reward_and_verdict():
    lines = example_lines(episodes(0.25, text="word " * 30), 40)
    assert lines[0] == "One prompt, p0, whose gain in reward is the median:"
    assert [line for line in lines if not line.startswith(" ")][1:] == [
        "before, reward 0.00, wrong:",
        "after, reward 0.25, right:",
    ]
    assert all(len(line) <= 40 for line in lines[1:])
    after = lines.index("after, reward 0.25, right:")
    assert " ".join(lines[after + 1 :]).split() == ["word"] * 30


def test_empty_completion_is_named():
    assert "  (nothing)" in example_lines(episodes(0.0, text=""), 40)
