"""Rules that grade a shortlist completion `{"decision", "score", "reasons"}`; standard library only.

`PUBLISHED` is the rubric behind the published figures, kept to compare with; `STRICT` is the one to train on.
"""

from __future__ import annotations

from typing import Any

from reward.breakdown import COMPONENTS, Breakdown, Finding
from reward.limits import PublishedLimits, StrictLimits
from reward.published import grade_published
from reward.rubric import Rubric, Weights
from reward.strict import VERSION, grade_strict

PUBLISHED = Rubric(
    "published",
    "published",
    ("decision", "score", "context"),
    grade_published,
    Weights(0.20, 0.30, 0.15, 0.15, 0.05, 0.15),
    PublishedLimits(),
)
# Less weight for the format, which any policy learns soon, and more for the reasons, which need the profile.
STRICT = Rubric(
    "strict",
    VERSION,
    ("decision", "score", "facts"),
    grade_strict,
    Weights(0.10, 0.30, 0.15, 0.25, 0.05, 0.15),
    StrictLimits(),
)
RUBRICS: dict[str, Rubric[Any]] = {"published": PUBLISHED, "strict": STRICT}

__all__ = ["COMPONENTS", "PUBLISHED", "RUBRICS", "STRICT", "VERSION", "Breakdown", "Finding", "Rubric", "Weights"]
