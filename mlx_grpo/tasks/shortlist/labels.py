"""Labels of a pool: the rule's own, or each candidate's place in the pool by the rule's score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import mean
from typing import Literal

from mlx_grpo.tasks.shortlist.fit import fit
from mlx_grpo.tasks.shortlist.records import Candidate, Fit, Job
from reward.strict import SHORTLIST_FROM

Labels = Literal["rule", "rank"]


def labels_of(job: Job, pool: Sequence[Candidate], labels: Labels) -> list[Fit]:
    """Return each candidate's label.

    By rank the score is 0 for the pool's worst candidate and 1 for its best, and equal ones share their mean place.
    So the upper half is the shortlist, however few the rule would take.
    """
    fits = [fit(job, candidate) for candidate in pool]
    if labels == "rule" or len(fits) < 2:
        return fits
    ordered = sorted(own.score for own in fits)
    places = {score: mean(at for at, other in enumerate(ordered) if other == score) for score in set(ordered)}
    return [replace(own, score=_rounded(places[own.score] / (len(fits) - 1))) for own in fits]


def _rounded(place: float) -> float:
    """Round a place to two decimals, but none of the lower half up to a shortlist."""
    return round(place, 2) if place >= SHORTLIST_FROM else min(round(place, 2), SHORTLIST_FROM - 0.01)
