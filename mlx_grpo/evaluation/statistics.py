"""Figures over episodes, and comparisons of two models on the same ones: arrays in, numbers out.

A resample is a weight for every episode, so that each figure is a function of weighted rows. Episodes may be tied
together in clusters: the bootstrap weighs an episode by how often its cluster was drawn, and the permutation test gives
each cluster's rows to one model or to the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

RESAMPLES = 10_000
CHUNK = 1_000
"""Resamples held in memory at once."""
MIN_CLUSTERS = 6
"""With fewer, no two-sided permutation test over clusters can fall below 0.05 (2 / 2^6 = 0.03)."""
NDCG_CUTOFF = 10
NO_SCORE = -np.inf
"""Stands for the score of a completion without one: below every score, so that it ranks last."""

Figures = dict[str, np.ndarray]
"""Each figure under B weightings, f64 [B]."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One model's E episodes as columns."""

    means: dict[str, np.ndarray]
    """The columns of the figures that are plain means, each f64 [E]; NaN where a figure does not apply."""
    labelled: dict[str, np.ndarray] = field(default_factory=dict)
    """Some of the columns that make a ranking, each [E].

    positive (bool): which of two classes is right. correct (f64): 1 where the completion is, NaN where that does not
    apply. fit (f64): the right score. score (f64): the completion's own, NO_SCORE where it has none.
    """
    clusters: np.ndarray | None = None
    """i64 [E]: the number of the cluster that each episode belongs to; None where nothing ties them together."""

    @property
    def size(self) -> int:
        """E, the number of episodes."""
        return next(iter(self.means.values())).size


@dataclass(frozen=True, slots=True)
class Difference:
    """One model's figure less another's, with its 95% interval and two-sided p-value; NaN where undefined."""

    mean: float
    low: float
    high: float
    p: float


def figures(outcome: Outcome) -> dict[str, float]:
    """Return every figure of one model, NaN where it is undefined."""
    return {name: float(values[0]) for name, values in _figures(outcome, np.ones((1, outcome.size))).items()}


def compare(left: Outcome, right: Outcome, seed: int = 0) -> dict[str, Difference]:
    """Return each figure of `right` less that of `left`, on the same episodes in the same order.

    The interval is the paired percentile bootstrap's. The p-value is the paired permutation test's, which exchanges
    the two models' completions. Both take a cluster's episodes together, or each alone with fewer than MIN_CLUSTERS.
    """
    left, right = _restricted(left, right), _restricted(right, left)
    units = resampled_units(left)
    rng = np.random.default_rng(seed)
    observed = _minus(_figures(right, np.ones((1, units.size))), _figures(left, np.ones((1, units.size))))
    drawn = _collect(_minus(_figures(right, w), _figures(left, w)) for w in _bootstrap_weights(units, rng))
    both = _pooled(left, right)
    swapped = _collect(
        _minus(_figures(both, np.hstack([taken, 1 - taken])), _figures(both, np.hstack([1 - taken, taken])))
        for taken in _exchanges(units, rng)
    )
    by_cluster = resampled_by_cluster(left)
    return {
        name: _difference(float(observed[name][0]), drawn[name], swapped[name])
        if by_cluster or not name.startswith("ndcg")
        else Difference(float(observed[name][0]), np.nan, np.nan, np.nan)  # a ranking can't be half exchanged
        for name in observed
    }


def resampled_by_cluster(outcome: Outcome) -> bool:
    """Return True if there are enough clusters for comparisons to take them whole."""
    return outcome.clusters is not None and np.unique(outcome.clusters).size >= MIN_CLUSTERS


def resampled_units(outcome: Outcome) -> np.ndarray:
    """Return for each episode the number, from 0, of the episodes that it is resampled with, i64 [E]."""
    if outcome.clusters is None or not resampled_by_cluster(outcome):
        return np.arange(outcome.size)
    return np.unique(outcome.clusters, return_inverse=True)[1]


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean of values [E] under each weighting [B, E], as [B]; NaN values are left out."""
    known = ~np.isnan(values)
    return _ratio(weights @ np.where(known, values, 0.0), weights @ known.astype(float))


def balanced_accuracy(positive: np.ndarray, correct: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean of the two classes' shares of correct completions [B]; NaN where a class does not occur."""
    of_positive, of_negative = (
        weighted_mean(correct.astype(float), weights * label) for label in (positive, ~positive)
    )
    return (of_positive + of_negative) / 2


def roc_auc(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return how often a positive row scores above a negative one, ties half (Mann-Whitney) [B]."""
    beaten = (weights * ~positive) @ _below(scores).T  # [B, E]: the negative rows that score below each row
    return _ratio((beaten * weights * positive).sum(axis=1), weights @ (positive * 1.0) * (weights @ (~positive * 1.0)))


def spearman(left: np.ndarray, right: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the correlation of midranks [B]; 0 where one side is constant and gives no order."""
    centred = []
    for values in (left, right):
        ranks = weights @ _below(values).T  # [B, E]
        centred.append(ranks - _ratio((weights * ranks).sum(axis=1), weights.sum(axis=1))[:, None])
    a, b = centred
    spread = np.sqrt((weights * a * a).sum(axis=1) * (weights * b * b).sum(axis=1))
    return np.divide((weights * a * b).sum(axis=1), spread, out=np.zeros_like(spread), where=spread > 1e-9)


def ndcg(gains: np.ndarray, scores: np.ndarray, k: int = NDCG_CUTOFF) -> float:
    """Return the DCG of the k highest scores over the best possible one; NaN where every gain is 0.

    Tied scores count as the mean over all their orders.

    Source: Järvelin and Kekäläinen 2002 with linear gains; ties as McSherry and Najork 2008.
    """
    places = np.arange(gains.size)
    discounts = np.where(places < k, 1 / np.log2(places + 2), 0.0)
    best = float(np.sort(gains)[::-1] @ discounts)
    if best == 0:
        return np.nan
    _, tied, sizes = np.unique(-scores, return_inverse=True, return_counts=True)
    shared = np.bincount(tied, gains) / sizes  # the mean gain among equal scores, the highest first
    return float(np.repeat(shared, sizes) @ discounts) / best


def cluster_ndcg(gains: np.ndarray, scores: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Return for each episode its cluster's NDCG, [E]."""
    values = np.empty(gains.size)
    for cluster in np.unique(clusters):
        values[clusters == cluster] = ndcg(gains[clusters == cluster], scores[clusters == cluster])
    return values


def _figures(outcome: Outcome, weights: np.ndarray) -> Figures:
    """Compute every figure under each weighting [B, E], as [B]."""
    of = {name: weighted_mean(values, weights) for name, values in outcome.means.items()}
    labelled, clusters = outcome.labelled, outcome.clusters
    if labelled.keys() >= {"positive", "correct"}:
        of["balanced_accuracy"] = balanced_accuracy(labelled["positive"], labelled["correct"], weights)
    if labelled.keys() >= {"positive", "score"}:
        of["roc_auc"] = roc_auc(labelled["positive"], labelled["score"], weights)
    if labelled.keys() >= {"fit", "score"}:
        of["spearman"] = spearman(labelled["fit"], labelled["score"], weights)
    if labelled.keys() >= {"fit", "score"} and clusters is not None:
        each_once = weights / np.bincount(clusters)[clusters]
        by_cluster = cluster_ndcg(labelled["fit"], labelled["score"], clusters)
        of[f"ndcg_at_{NDCG_CUTOFF}"] = weighted_mean(by_cluster, each_once)
    return of


def _restricted(one: Outcome, other: Outcome) -> Outcome:
    """Return `one` with every mean left out, as NaN, on the episodes where it does not apply to the `other`."""
    means = {name: np.where(np.isnan(other.means[name]), np.nan, values) for name, values in one.means.items()}
    return replace(one, means=means)


def _pooled(left: Outcome, right: Outcome) -> Outcome:
    """Return the rows of both, left's first, as if of twice as many clusters."""
    clusters = None
    if left.clusters is not None and right.clusters is not None:
        clusters = np.concatenate([left.clusters, right.clusters + left.clusters.max() + 1])
    return Outcome(_joined(left.means, right.means), _joined(left.labelled, right.labelled), clusters)


def _joined(left: Mapping[str, np.ndarray], right: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([values, right[name]]) for name, values in left.items()}


def _bootstrap_weights(units: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield how often each episode is drawn when all units are drawn with replacement, [CHUNK, E] at a time."""
    count = units.max() + 1
    for _ in range(RESAMPLES // CHUNK):
        yield rng.multinomial(count, np.full(count, 1 / count), CHUNK)[:, units].astype(float)


def _exchanges(units: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield 1 for each episode whose unit stays with its model, 0 where it is exchanged, [CHUNK, E] at a time."""
    for _ in range(RESAMPLES // CHUNK):
        yield rng.integers(0, 2, (CHUNK, units.max() + 1))[:, units].astype(float)


def _difference(observed: float, drawn: np.ndarray, swapped: np.ndarray) -> Difference:
    drawn, swapped = drawn[~np.isnan(drawn)], swapped[~np.isnan(swapped)]
    if np.isnan(observed) or not drawn.size or not swapped.size:
        return Difference(observed, np.nan, np.nan, np.nan)
    low, high = np.percentile(drawn, [2.5, 97.5])
    as_far = np.count_nonzero(np.abs(swapped) >= abs(observed) - 1e-12)  # rounding must not hide a tie
    # The observed assignment is one of the exchanges, so no p-value is 0 (Phipson and Smyth 2010).
    return Difference(observed, float(low), float(high), float((as_far + 1) / (swapped.size + 1)))


def _below(values: np.ndarray) -> np.ndarray:
    """Return [E, E]: 1 where the column's value lies below the row's, 1/2 where they are equal."""
    return (values[None, :] < values[:, None]) + 0.5 * (values[None, :] == values[:, None])


def _ratio(above: np.ndarray, under: np.ndarray) -> np.ndarray:
    return np.divide(above, under, out=np.full(under.shape, np.nan), where=under != 0)


def _minus(left: Figures, right: Figures) -> Figures:
    return {name: values - right[name] for name, values in left.items()}


def _collect(chunks: Iterator[Figures]) -> Figures:
    parts = list(chunks)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
