"""The constants of both rubrics, each with its unit, and checks of their values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedLimits:
    """The published rubric's constants: lengths in characters, and the number of reasons for the full mark."""

    min_reason_chars: int = 3
    max_reason_chars: int = 240
    full_reasons: int = 5
    short_chars: int = 30  # a completion under this loses length_penalty in proportion
    full_chars: int = 1200  # up to here it keeps all of it
    zero_chars: int = 2400  # from here on it has none

    def problems(self) -> list[str]:
        """Return what is wrong with these values, each named with its remedy."""
        rising = ("min_reason_chars", "max_reason_chars"), ("short_chars", "full_chars"), ("full_chars", "zero_chars")
        return _not_positive(self, vars(self)) + _not_rising(self, *rising)


@dataclass(frozen=True)
class StrictLimits:
    """The strict rubric's constants: lengths in characters, shares in [0, 1]."""

    min_reasons: int = 2
    max_reasons: int = 5
    max_reason_chars: int = 600  # a longer reason is not read
    full_chars: int = 600  # length_penalty is 1 up to here
    zero_chars: int = 1200  # and 0 from here on
    invalid_share: float = 0.25  # what an invalid completion keeps of the other components, times format_valid
    score_tolerance: float = 0.4  # the error of the score at which score_alignment reaches 0

    def problems(self) -> list[str]:
        """Return what is wrong with these values, each named with its remedy."""
        found = _not_positive(self, [name for name in vars(self) if name != "invalid_share"])
        for name in ("invalid_share", "score_tolerance"):
            if not 0 <= getattr(self, name) <= 1:
                found.append(f"limits.{name} = {getattr(self, name)!r}: a share; give a number from 0 to 1")
        if self.min_reasons > self.max_reasons:
            found.append(
                f"limits.min_reasons = {self.min_reasons}: more than max_reasons = {self.max_reasons}; lower it"
            )
        return found + _not_rising(self, ("full_chars", "zero_chars"))


def _not_positive(limits: PublishedLimits | StrictLimits, names: list[str] | dict[str, object]) -> list[str]:
    return [
        f"limits.{name} = {getattr(limits, name)!r}: must be above 0; give a positive number"
        for name in names
        if not getattr(limits, name) > 0
    ]


def _not_rising(limits: PublishedLimits | StrictLimits, *pairs: tuple[str, str]) -> list[str]:
    return [
        f"limits.{low} = {getattr(limits, low)!r}: must be below {high} = {getattr(limits, high)!r}; change one"
        for low, high in pairs
        if not getattr(limits, low) < getattr(limits, high)
    ]
