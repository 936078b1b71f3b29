"""The evaluation's figures and tests by hand."""

from __future__ import annotations

import numpy as np
import pytest

from mlx_grpo.evaluation import statistics
from mlx_grpo.evaluation.statistics import (
    NO_SCORE,
    Outcome,
    balanced_accuracy,
    cluster_ndcg,
    compare,
    figures,
    ndcg,
    roc_auc,
    spearman,
    weighted_mean,
)

ONCE = np.ones((1, 4))
LOG3 = np.log2(3)


def means_of(*values: float, clusters: list[int] | None = None) -> Outcome:
    numbers = None if clusters is None else np.array(clusters)
    return Outcome({"reward": np.array(values, float)}, clusters=numbers)


def labelled(positive: np.ndarray, correct: np.ndarray, fit: np.ndarray, score: np.ndarray) -> dict[str, np.ndarray]:
    return {"positive": positive, "correct": correct, "fit": fit, "score": score}


def random_outcome(seed: int, clusters: np.ndarray) -> Outcome:
    rng = np.random.default_rng(seed)
    fit = np.random.default_rng(0).random(clusters.size)
    scores = rng.integers(0, 5, clusters.size) / 4
    columns = labelled(fit >= 0.5, (scores >= 0.5) == (fit >= 0.5), fit, scores)
    return Outcome({"reward": rng.random(clusters.size)}, columns, clusters)


def test_balanced_accuracy_is_the_mean_of_the_labels_recalls():
    positive, correct = np.array([True, True, True, False]), np.array([True, False, False, True])
    assert balanced_accuracy(positive, correct, ONCE)[0] == pytest.approx((1 / 3 + 1) / 2)
    assert np.isnan(balanced_accuracy(np.ones(4, bool), correct, ONCE)[0])


def test_roc_auc_counts_ties_half():
    positive = np.array([True, True, False, False])
    assert roc_auc(positive, np.array([0.8, 0.5, 0.5, 0.2]), ONCE)[0] == pytest.approx(3.5 / 4)
    assert roc_auc(positive, np.full(4, NO_SCORE), ONCE)[0] == 0.5
    assert np.isnan(roc_auc(np.ones(4, bool), np.arange(4.0), ONCE)[0])


def test_spearman_gives_ties_their_middle_rank():
    # Ranks 1, 2, 3, 4 against 1, 2.5, 2.5, 4: 4.5 / sqrt(5 * 4.5).
    tied = spearman(np.array([0.1, 0.2, 0.3, 0.9]), np.array([1.0, 2.0, 2.0, 4.0]), ONCE)
    assert tied[0] == pytest.approx(4.5 / np.sqrt(22.5))
    assert spearman(np.arange(4.0), -np.exp(np.arange(4.0)), ONCE)[0] == pytest.approx(-1)
    assert spearman(np.arange(4.0), np.full(4, NO_SCORE), ONCE)[0] == 0


def test_ndcg_discounts_by_the_logarithm_of_the_rank():
    gains, scores = np.array([1.0, 0.5, 0.0]), np.array([0.1, 0.9, 0.5])
    best = 1 + 0.5 / LOG3
    assert ndcg(gains, scores) == pytest.approx((0.5 + 1 / 2) / best)  # ranked 0.5, 0, 1
    assert ndcg(gains, scores, k=2) == pytest.approx(0.5 / best)
    assert ndcg(gains, np.array([0.9, 0.5, 0.1])) == 1
    assert np.isnan(ndcg(np.zeros(3), scores))


def test_ndcg_of_ties_is_the_mean_over_their_orders():
    gains, scores = np.array([1.0, 0.5, 0.0]), np.array([0.7, 0.7, NO_SCORE])
    assert ndcg(gains, scores) == pytest.approx(0.75 * (1 + 1 / LOG3) / (1 + 0.5 / LOG3))


def test_each_cluster_counts_once_in_the_mean_ndcg_whatever_its_size():
    gains, scores = np.array([1.0, 0.0, 1.0, 0.0, 0.0]), np.array([0.9, 0.1, 0.1, 0.9, 0.0])
    clusters = np.array([0, 0, 1, 1, 1])
    np.testing.assert_allclose(cluster_ndcg(gains, scores, clusters), [1, 1, 1 / LOG3, 1 / LOG3, 1 / LOG3])
    outcome = Outcome({"reward": gains}, labelled(gains > 0, gains > 0, gains, scores), clusters)
    assert figures(outcome)["ndcg_at_10"] == pytest.approx((1 + 1 / LOG3) / 2)


@pytest.mark.parametrize("figure", [balanced_accuracy, roc_auc, spearman])
def test_a_weight_is_a_row_repeated(figure):
    rng = np.random.default_rng(1)
    weights = rng.integers(0, 4, (3, 30)).astype(float)
    left = rng.random(30) if figure is spearman else rng.random(30) < 0.5
    right = rng.random(30) < 0.5 if figure is balanced_accuracy else rng.integers(0, 6, 30) / 5
    for weighted, counts in zip(figure(left, right, weights), weights.astype(int), strict=True):
        repeated = figure(np.repeat(left, counts), np.repeat(right, counts), np.ones((1, counts.sum())))
        assert weighted == pytest.approx(repeated[0])


def test_what_does_not_apply_is_left_out_of_a_mean():
    assert weighted_mean(np.array([1.0, np.nan, 2.0]), np.array([[1, 5, 3]]))[0] == pytest.approx(7 / 4)


def test_the_paired_interval_is_the_bootstrap_of_differences():
    base, gain = np.linspace(0, 1, 50), np.linspace(-0.1, 0.5, 50)
    found = compare(means_of(*base), means_of(*(base + gain)))["reward"]
    assert found.mean == pytest.approx(0.2)
    # Normal theory: 1.96 standard errors either side.
    error = gain.std() / np.sqrt(50)
    assert found.low == pytest.approx(0.2 - 1.96 * error, abs=0.01)
    assert found.high == pytest.approx(0.2 + 1.96 * error, abs=0.01)


def test_a_clusters_episodes_are_one_draw():
    gain = np.linspace(-0.1, 0.5, 50)
    alone = compare(means_of(*np.zeros(50)), means_of(*gain))["reward"]
    clusters = list(np.repeat(np.arange(50), 4))
    fourfold = compare(means_of(*np.zeros(200), clusters=clusters), means_of(*np.repeat(gain, 4), clusters=clusters))[
        "reward"
    ]
    independent = compare(means_of(*np.zeros(200)), means_of(*np.repeat(gain, 4)))["reward"]
    assert (fourfold.low, fourfold.high, fourfold.p) == pytest.approx((alone.low, alone.high, alone.p))
    assert independent.high - independent.low == pytest.approx((alone.high - alone.low) / 2, rel=0.05)


@pytest.mark.parametrize(
    ("differences", "p"),
    [([1, 1, 1, 1, 1, 1], 2 / 64), ([1, 1, 1, 1, 1, -1], 14 / 64), ([1, -1, 1, -1, 1, -1], 1)],
)
def test_the_p_value_is_the_share_of_exchanges_that_differ_as_much(differences: list[float], p: float):
    assert compare(means_of(*[0.0] * 6), means_of(*differences))["reward"].p == pytest.approx(p, abs=0.012)


def test_whole_clusters_are_exchanged():
    # 12 episodes of 6 clusters, all better: by episode 2 / 2^12, by cluster 2 / 2^6.
    clusters = [0, 1, 2, 3, 4, 5] * 2
    assert compare(means_of(*[0] * 12), means_of(*[1] * 12))["reward"].p == pytest.approx(2 / 4096, abs=0.001)
    by_cluster = compare(means_of(*[0] * 12, clusters=clusters), means_of(*[1] * 12, clusters=clusters))["reward"]
    assert by_cluster.p == pytest.approx(2 / 64, abs=0.006)


def test_exchanges_of_ranking_figures_have_the_null_they_should():
    clusters = np.arange(60) % 10
    left, right = random_outcome(1, clusters), random_outcome(2, clusters)
    there, back = compare(left, right), compare(right, left)
    for name in ("balanced_accuracy", "roc_auc", "spearman", "ndcg_at_10"):
        assert there[name].mean == pytest.approx(figures(right)[name] - figures(left)[name])
        assert there[name].mean == pytest.approx(-back[name].mean)
        assert there[name].p == pytest.approx(back[name].p, abs=0.02)
        assert there[name].low < there[name].mean < there[name].high
    fit = left.labelled["fit"]
    positive = left.labelled["positive"]
    perfect = Outcome(left.means, labelled(positive, positive | True, fit, fit), clusters)
    assert all(compare(left, perfect)[name].p < 0.01 for name in ("balanced_accuracy", "roc_auc", "spearman"))


def test_an_unchanged_model_differs_by_nothing():
    clusters = np.arange(40) % 8
    for found in compare(random_outcome(1, clusters), random_outcome(1, clusters)).values():
        assert (found.mean, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_too_few_clusters_to_resample_leave_the_episodes_and_no_interval_for_a_ranking():
    clusters = np.arange(40) % 5
    found = compare(random_outcome(1, clusters), random_outcome(2, clusters))
    assert np.isnan([found["ndcg_at_10"].low, found["ndcg_at_10"].high, found["ndcg_at_10"].p]).all()
    single = compare(random_outcome(1, np.zeros(40, int)), random_outcome(2, np.zeros(40, int)))["reward"]
    assert single.low < single.mean < single.high


def test_an_episode_that_one_model_has_no_figure_for_is_left_out_of_both():
    found = compare(means_of(0.0, 0.5, np.nan), means_of(1.0, np.nan, 5.0))["reward"]
    assert (found.mean, found.low, found.high) == (1, 1, 1)
    assert np.isnan(compare(means_of(np.nan, 1.0), means_of(1.0, np.nan))["reward"].mean)


def test_interval_ends_are_the_2_5_and_97_5_percentiles_of_the_resampled_mean():
    # 50 gains of 1 and 50 of 0: a resampled sum is binomial (100, 1/2). Its 2.5% and 97.5% quantiles are 40 and 60,
    # its 5% and 95% quantiles 42 and 58.
    found = compare(means_of(*[0] * 100), means_of(*[1] * 50, *[0] * 50))["reward"]
    assert (found.low, found.high) == pytest.approx((0.40, 0.60))


@pytest.mark.parametrize("tied", [1, 2])
def test_interval_covers_the_true_gain_in_95_percent_of_simulated_evaluations(
    tied: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(statistics, "RESAMPLES", 1_000)
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(100), tied)
    gains = {str(i): rng.normal(0.1, 0.3, 100)[clusters] + rng.normal(0, 0.1, clusters.size) for i in range(600)}
    before = Outcome({name: np.zeros(clusters.size) for name in gains}, clusters=clusters)
    differences = compare(before, Outcome(gains, clusters=clusters))
    covered = np.mean([found.low <= 0.1 <= found.high for found in differences.values()])
    assert 0.925 <= covered <= 0.97  # an interval of 90% covers 0.90, one that resamples tied rows alone 0.85
