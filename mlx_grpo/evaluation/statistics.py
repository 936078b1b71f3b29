"""Figures over episodes, and two models compared on the same ones: arrays in, numbers out.

A resample is a weight for every episode, so that each figure is a function of weighted rows: the bootstrap weighs an
episode by how often its job was drawn, and the permutation test gives each job's rows to one model or to the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace

import numpy as np

RESAMPLES = 10_000
CHUNK = 1_000
"""Resamples held in memory at once."""
MIN_JOBS = 6
"""With fewer, no two-sided permutation test over jobs can fall below 0.05 (2 / 2^6 = 0.03)."""
RANKED = 10
LOWEST = -1.0
"""The score of a completion that gives none: below every score, so that it ranks last."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What a model's completions say of E candidates, and what is so."""

    positive: np.ndarray
    """bool [E]: the label is shortlist."""
    correct: np.ndarray
    """bool [E]: the completion's decision is the label; False where it has none."""
    fit: np.ndarray
    """f64 [E]"""
    scores: np.ndarray
    """f64 [E]: the completion's score; LOWEST where it has none."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One model's E episodes: the figures that are plain means, and what it judged where the rows have labels."""

    means: dict[str, np.ndarray]
    """Each [E]; NaN where a figure does not apply."""
    judged: Judged | None = None
    jobs: np.ndarray | None = None
    """[E]: which job each episode is about; None where the rows don't say."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How far one model's figure lies above another's: 95% interval and two-sided p-value, NaN where undefined."""

    mean: float
    low: float
    high: float
    p: float


def figures(outcome: Outcome) -> dict[str, float]:
    """Every figure of one model, NaN where it is undefined."""
    return {name: float(values[0]) for name, values in _figures(outcome, np.ones((1, _size(outcome)))).items()}


def compare(left: Outcome, right: Outcome, seed: int = 0) -> dict[str, Difference]:
    """Each figure of `right` less that of `left`, on the same episodes in the same order.

    The interval is the paired percentile bootstrap, the p-value the paired permutation test (exchanging the two
    models' completions); both take a job's episodes together, or each alone with fewer than MIN_JOBS jobs.
    """
    left, right = _where_both_apply(left, right)
    clusters = clusters_of(left)
    rng = np.random.default_rng(seed)
    observed = _minus(_figures(right, np.ones((1, clusters.size))), _figures(left, np.ones((1, clusters.size))))
    drawn = _collect(_minus(_figures(right, w), _figures(left, w)) for w in _bootstrap_weights(clusters, rng))
    both = _pooled(left, right)
    swapped = _collect(
        _minus(_figures(both, np.hstack([taken, 1 - taken])), _figures(both, np.hstack([1 - taken, taken])))
        for taken in _exchanges(clusters, rng)
    )
    by_job = resampled_by_job(left)
    return {
        name: _difference(float(observed[name][0]), drawn[name], swapped[name])
        if by_job or not name.startswith("ndcg")
        else Difference(float(observed[name][0]), np.nan, np.nan, np.nan)  # a job's ranking can't be half exchanged
        for name in observed
    }


def resampled_by_job(outcome: Outcome) -> bool:
    """Whether comparisons take whole jobs: the rows name enough of them."""
    return outcome.jobs is not None and np.unique(outcome.jobs).size >= MIN_JOBS


def clusters_of(outcome: Outcome) -> np.ndarray:
    """What is resampled together, as a number from 0 for each episode [E]."""
    if not resampled_by_job(outcome):
        return np.arange(_size(outcome))
    return np.unique(outcome.jobs, return_inverse=True)[1]


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean of values [E] under each weighting [B, E], as [B]; NaN values are left out."""
    there = ~np.isnan(values)
    return _ratio(weights @ np.where(there, values, 0.0), weights @ there.astype(float))


def balanced_accuracy(positive: np.ndarray, correct: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean of the two labels' shares of correct decisions [B]; NaN where a label does not occur."""
    shares = [weighted_mean(correct.astype(float), weights * label) for label in (positive, ~positive)]
    return sum(shares) / 2


def roc_auc(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """How often a shortlisted candidate scores above a rejected one, ties half (Mann-Whitney) [B]."""
    beaten = (weights * ~positive) @ _below(scores).T  # [B, E]: the rejected that score below each row
    return _ratio((beaten * weights * positive).sum(axis=1), weights @ (positive * 1.0) * (weights @ (~positive * 1.0)))


def spearman(left: np.ndarray, right: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The correlation of midranks [B]; 0 where one side is constant, an order that tells nothing."""
    centred = []
    for values in (left, right):
        ranks = weights @ _below(values).T  # [B, E]
        centred.append(ranks - _ratio((weights * ranks).sum(axis=1), weights.sum(axis=1))[:, None])
    a, b = centred
    spread = np.sqrt((weights * a * a).sum(axis=1) * (weights * b * b).sum(axis=1))
    return np.divide((weights * a * b).sum(axis=1), spread, out=np.zeros_like(spread), where=spread > 1e-9)


def ndcg(gains: np.ndarray, scores: np.ndarray, k: int = RANKED) -> float:
    """DCG of the k highest scores over the best possible, tied scores in all their orders; NaN where no gain is.

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


def job_ndcg(gains: np.ndarray, scores: np.ndarray, jobs: np.ndarray) -> np.ndarray:
    """For each episode its job's NDCG, [E]."""
    values = np.empty(gains.size)
    for job in np.unique(jobs):
        values[jobs == job] = ndcg(gains[jobs == job], scores[jobs == job])
    return values


def _figures(outcome: Outcome, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Every figure under each weighting [B, E], as [B]."""
    found = {name: weighted_mean(values, weights) for name, values in outcome.means.items()}
    judged, jobs = outcome.judged, outcome.jobs
    if judged is None:
        return found
    found["balanced_accuracy"] = balanced_accuracy(judged.positive, judged.correct, weights)
    found["roc_auc"] = roc_auc(judged.positive, judged.scores, weights)
    found["spearman"] = spearman(judged.fit, judged.scores, weights)
    if jobs is not None:
        each_job_once = weights / np.bincount(jobs)[jobs]
        found[f"ndcg_at_{RANKED}"] = weighted_mean(job_ndcg(judged.fit, judged.scores, jobs), each_job_once)
    return found


def _size(outcome: Outcome) -> int:
    return next(iter(outcome.means.values())).size


def _where_both_apply(left: Outcome, right: Outcome) -> tuple[Outcome, Outcome]:
    """The two with every mean left out where it does not apply to one of them."""
    apply = {name: ~np.isnan(values) & ~np.isnan(right.means[name]) for name, values in left.means.items()}
    return tuple(
        replace(one, means={name: np.where(apply[name], one.means[name], np.nan) for name in apply})
        for one in (left, right)
    )


def _pooled(left: Outcome, right: Outcome) -> Outcome:
    """The rows of both, left's first, as if of twice as many jobs."""
    judged = left.judged and Judged(*map(np.concatenate, zip(astuple(left.judged), astuple(right.judged), strict=True)))
    jobs = None if left.jobs is None else np.concatenate([left.jobs, right.jobs + left.jobs.max() + 1])
    return Outcome({name: np.concatenate([left.means[name], right.means[name]]) for name in left.means}, judged, jobs)


def _bootstrap_weights(clusters: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """How often each episode is drawn when as many clusters are drawn with replacement, [CHUNK, E] at a time."""
    count = clusters.max() + 1
    for _ in range(RESAMPLES // CHUNK):
        yield rng.multinomial(count, np.full(count, 1 / count), CHUNK)[:, clusters].astype(float)


def _exchanges(clusters: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """For each episode whether its cluster stays with its model (1) or is exchanged (0), [CHUNK, E] at a time."""
    for _ in range(RESAMPLES // CHUNK):
        yield rng.integers(0, 2, (CHUNK, clusters.max() + 1))[:, clusters].astype(float)


def _difference(observed: float, drawn: np.ndarray, swapped: np.ndarray) -> Difference:
    drawn, swapped = drawn[~np.isnan(drawn)], swapped[~np.isnan(swapped)]
    if np.isnan(observed) or not drawn.size or not swapped.size:
        return Difference(observed, np.nan, np.nan, np.nan)
    low, high = np.percentile(drawn, [2.5, 97.5])
    as_far = np.count_nonzero(np.abs(swapped) >= abs(observed) - 1e-12)  # rounding must not hide a tie
    # What was observed is one of the exchanges, so no p-value is 0 (Phipson and Smyth 2010).
    return Difference(observed, float(low), float(high), float((as_far + 1) / (swapped.size + 1)))


def _below(values: np.ndarray) -> np.ndarray:
    """[E, E]: 1 where the column's value lies below the row's, 1/2 where they are equal."""
    return (values[None, :] < values[:, None]) + 0.5 * (values[None, :] == values[:, None])


def _ratio(above: np.ndarray, under: np.ndarray) -> np.ndarray:
    return np.divide(above, under, out=np.full(under.shape, np.nan), where=under != 0)


def _minus(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: values - right[name] for name, values in left.items()}


def _collect(chunks: Iterator[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    parts = list(chunks)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
