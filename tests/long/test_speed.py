"""The ratios of docs/results/speed.json hold on this machine, as far as its noise allows."""

from __future__ import annotations

import json

import pytest
from support import speed
from support.paths import SMOLLM2

NOISE = {"shared_over_plain": 0.7, "tree_over_groups": 0.75, "trl_over_step": 0.6}
"""The least share of each recorded ratio that a run must reach; TRL's varies most with the processor."""


@pytest.mark.long
def test_sharing_is_as_much_faster_as_recorded_and_trl_as_much_slower():
    recorded = json.loads(speed.FILE.read_text(encoding="utf-8"))["short"]
    measured = speed.measure_short(str(SMOLLM2))
    print(recorded, measured)
    assert {name: ratio for name, ratio in measured.items() if ratio < NOISE[name] * recorded[name]} == {}
