"""What sharing saves, and a step beside TRL's, have not become less than docs/results/speed.json says."""

from __future__ import annotations

import json

import pytest
from support.paths import SMOLLM2
from support.speed import FILE, SHORT_STEP, SHORT_TREE, beside_trl, config_of, state_of, time_tree

from mlx_grpo.planning.flops import Shape

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not SMOLLM2.is_dir(), reason="needs SmolLM2's weights: make model"),
]

NOISE = 0.75
"""The share of a recorded ratio that a loaded machine still reaches."""


def test_tree_is_faster_than_groups_by_what_was_recorded():
    recorded = json.loads(FILE.read_text())["short"]["trees"]
    state = state_of(config_of(str(SMOLLM2)))
    for text, prompts in SHORT_TREE.items():
        before = recorded[f"{prompts} x {text}"]["tree_over_groups"]
        assert time_tree(state, Shape.parse(text, prompts), 2)["tree_over_groups"] >= NOISE * before


def test_step_is_faster_than_trls_by_what_was_recorded():
    before = json.loads(FILE.read_text())["short"]["steps"][SHORT_STEP]["trl_over_step"]
    state = state_of(config_of(str(SMOLLM2)))
    assert beside_trl(state, SMOLLM2, Shape.parse(SHORT_STEP), 2)["trl_over_step"] >= NOISE * before
