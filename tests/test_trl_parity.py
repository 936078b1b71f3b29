"""Our loss, gradients and metrics are TRL 1.16.0's: live where trl is installed, and pinned where it is not."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import numpy as np
import pytest
from trl_cases import FIXTURE, cases, fingerprint, name_of, ours, shifted

CASES = cases()
PINNED = {case["name"]: case for case in json.loads((FIXTURE / "cases.json").read_text())}
METRICS = {
    "entropy": "entropy",
    "kl": "kl",
    "clip_ratio/low_mean": "clip_ratio/low_mean",
    "clip_ratio/high_mean": "clip_ratio/high_mean",
    "cispo_clip_ratio": "clip_ratio/high_mean",
}
"""TRL's metric names and ours."""

needs_trl = pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="needs trl, the oracle: [dev] extra")


@pytest.fixture(scope="module")
def oracles() -> Any:
    """TRL's trainer by sampling temperature."""
    from trl_oracle import Oracle

    return {temperature: Oracle(FIXTURE, temperature) for temperature in (1.0, 0.7)}


def test_there_are_enough_cases_and_all_are_pinned():
    assert len(CASES) >= 60
    assert {name_of(case) for case in CASES} == set(PINNED)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_loss_and_gradients_are_those_pinned_from_trl(case: dict[str, Any]):
    pinned = PINNED[name_of(case)]
    loss, gradients, metrics = ours(FIXTURE, case, np.array(pinned["old"]), np.array(pinned["reference"]))
    assert loss == pytest.approx(pinned["loss"], rel=1e-5, abs=1e-6)
    assert gradients.keys() == pinned["gradients"].keys()
    for name, gradient in gradients.items():
        largest = pinned["gradients"][name][0]
        np.testing.assert_allclose(fingerprint(gradient), pinned["gradients"][name], atol=1e-4 * largest, err_msg=name)
    for theirs, name in METRICS.items():
        if theirs in pinned["metrics"]:
            assert metrics[name] == pytest.approx(pinned["metrics"][theirs], rel=1e-4, abs=1e-6), theirs


@needs_trl
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_loss_and_every_gradient_entry_are_trls(case: dict[str, Any], oracles: Any):
    oracle = oracles[case.get("temperature", 1.0)]
    old, reference = shifted(oracle.logps(case))
    their_loss, their_gradients, _ = oracle.answer(case, old, reference)
    loss, gradients, _ = ours(FIXTURE, case, old, reference)
    assert loss == pytest.approx(their_loss, rel=1e-5, abs=1e-6)
    for name, wanted in their_gradients.items():
        np.testing.assert_allclose(gradients[name], wanted, atol=1e-5 * np.abs(wanted).max(), rtol=0, err_msg=name)
