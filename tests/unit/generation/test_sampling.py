"""Samples follow the distribution that the settings describe: temperature first, then the filters."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from mlx_grpo.generation.sampling import Sampling, draw, row_keys

PROBABILITIES = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
DRAWS = 20_000


def normal_logps(rows: int, size: int) -> mx.array:
    values = mx.random.normal((rows, size))
    return values - mx.logsumexp(values, axis=-1, keepdims=True)


def expected(**settings: float) -> np.ndarray:
    """The distribution by the definition, in NumPy."""
    p = PROBABILITIES ** (1 / settings.get("temperature", 1.0))
    p /= p.sum()
    order = np.argsort(-p)
    if settings.get("top_k"):
        p[order[settings["top_k"] :]] = 0
        p /= p.sum()
    before = np.cumsum(p[order]) - p[order]
    p[order[before >= settings.get("top_p", 1.0)]] = 0
    p /= p.sum()
    p[p < settings.get("min_p", 0.0) * p.max()] = 0
    return p / p.sum()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 2.0},
        {"top_k": 2},
        {"top_p": 0.75},
        {"min_p": 0.3},
        {"temperature": 0.5, "top_p": 0.8},
        {"temperature": 2.0, "top_k": 3, "top_p": 0.9},
    ],
)
def test_sampled_frequencies_match_the_expected_ones(settings: dict):
    logits = mx.broadcast_to(mx.log(mx.array(PROBABILITIES)), (DRAWS, 5))
    tokens = draw(logits, row_keys(0, 1, range(DRAWS)), 3, Sampling(1, **settings)).tokens
    counts, wanted = np.bincount(np.array(tokens), minlength=5), expected(**settings)
    assert counts[wanted == 0].sum() == 0
    kept = wanted > 0
    chi_square = ((counts[kept] - DRAWS * wanted[kept]) ** 2 / (DRAWS * wanted[kept])).sum()
    assert chi_square < 18.5  # the 0.1% point with 4 degrees of freedom


def test_temperature_comes_before_top_p():
    # At temperature 0.5 two tokens hold 0.8 of the mass; filtering first would keep three.
    logits = mx.broadcast_to(mx.log(mx.array(PROBABILITIES)), (2000, 5))
    tokens = draw(logits, row_keys(0, 0, range(2000)), 0, Sampling(1, temperature=0.5, top_p=0.8)).tokens
    assert set(tokens.tolist()) == {0, 1}


def test_log_probabilities_and_entropies_are_of_the_tempered_distribution_before_any_filter():
    logits = mx.broadcast_to(mx.log(mx.array(PROBABILITIES)), (50, 5))
    tokens, logps, entropies = draw(logits, row_keys(0, 0, range(50)), 0, Sampling(1, temperature=0.5, top_k=2))
    np.testing.assert_allclose(np.array(logps), np.log(expected(temperature=0.5))[np.array(tokens)], rtol=1e-5)
    entropy = -(expected(temperature=0.5) * np.log(expected(temperature=0.5))).sum()
    np.testing.assert_allclose(np.array(entropies), np.full(50, entropy), rtol=1e-5)


def test_row_draws_the_same_beside_any_other_rows():
    logits, keys = normal_logps(6, 50), row_keys(0, 4, range(6))
    together = draw(logits, keys, 2, Sampling(1))[0].tolist()
    alone = [draw(logits[i : i + 1], keys[i : i + 1], 2, Sampling(1))[0].item() for i in range(6)]
    assert together == alone


def test_rows_steps_seeds_and_positions_draw_differently():
    logits = mx.full((64, 1000), -np.log(1000))
    draws = {
        name: tuple(draw(logits, row_keys(seed, step, range(64)), position, Sampling(1))[0].tolist())
        for name, seed, step, position in (("a", 0, 0, 0), ("b", 1, 0, 0), ("c", 0, 1, 0), ("d", 0, 0, 1))
    }
    assert len(set(draws.values())) == 4
    assert len(set(draws["a"])) > 50
