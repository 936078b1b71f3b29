"""Thoughts in a completion: where they end, and if they do."""

from __future__ import annotations

import pytest

from mlx_grpo.data.thinking import ends_in_thought, strip_thinking
from mlx_grpo.data.types import Prompt


@pytest.mark.parametrize(
    ("text", "opened", "left"),
    [
        ("<think>why</think> yes", False, "yes"),
        ("why</think> yes", False, "yes"),
        ("why</think> yes", True, "yes"),
        ("<think>why</think> yes", True, "yes"),
        ("<think>a</think>x<think>b</think>y", False, "y"),
        ("no thought", False, "no thought"),
        ("", False, ""),
    ],
)
def test_everything_up_to_the_last_close_is_thought(text: str, opened: bool, left: str):
    assert strip_thinking(text, opened) == left
    assert not ends_in_thought(text, opened)


@pytest.mark.parametrize(
    ("text", "opened", "left"),
    [
        ("<think>never finished", False, ""),
        ("never finished", True, ""),
        ("", True, ""),
        ("yes<think>never finished", False, "yes"),
        ("a</think>yes<think>never finished", True, "yes"),
    ],
)
def test_a_thought_without_a_close_lasts_to_the_end(text: str, opened: bool, left: str):
    assert strip_thinking(text, opened) == left
    assert ends_in_thought(text, opened)


def test_a_prompt_opens_a_thought_by_its_last_mark():
    opens = {text: Prompt("r", text, (1,)).opens_thought for text in ("a <think>\n", "<think>\n\n</think>\n\n", "hi")}
    assert list(opens.values()) == [True, False, False]
