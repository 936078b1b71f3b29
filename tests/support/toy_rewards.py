"""Reward functions in TRL's shape, for the tests."""

from __future__ import annotations

from decimal import Decimal

from mlx_grpo.user_functions import TrainerState


def texts_of(completions: list) -> list[str]:
    """The texts of completions, which are messages for chat rows."""
    return [completion if isinstance(completion, str) else completion[0]["content"] for completion in completions]


def share_of_letters(completions: list[str], **columns: list) -> list[float]:
    """How much of a completion is lower-case letters, 26 of the tiny tokenizer's 258 tokens."""
    return [sum("a" <= c <= "z" for c in text) / max(1, len(text)) for text in texts_of(completions)]


def constant(completions: list[str], **columns: list) -> list[float]:
    """Nothing to learn from."""
    return [0.7] * len(completions)


def only_long(completions: list[str], **columns: list) -> list[float | None]:
    """Applies to completions of five characters or more."""
    return [len(text) / 10 if len(text) >= 5 else None for text in texts_of(completions)]


def raises(completions: list[str], **columns: list) -> list[float]:
    """A user's bug."""
    raise KeyError("gold")


def too_few(completions: list[str], **columns: list) -> list[float]:
    """Another."""
    return [1.0]


def not_a_number(completions: list[str], **columns: list) -> list[float]:
    """And another."""
    return [float("nan")] * len(completions)


def signaling_nan(completions: list[str], **columns: list) -> list[Decimal]:
    """A Decimal that raises when it is compared."""
    return [Decimal("sNaN")] * len(completions)


def beyond_float32(completions: list[str], **columns: list) -> list[float]:
    """Finite as Python counts, infinite in an advantage."""
    return [1e39] * len(completions)


def square_beyond_float32(completions: list[str], **columns: list) -> list[float]:
    """Finite in float32, but a deviation sums its square."""
    return [-1e20] * len(completions)


def fails_in_step_two(completions: list[str], trainer_state: TrainerState, **columns: list) -> list[float]:
    """A reward that leaves float32's range in the second step of training."""
    return [float(len(text)) if trainer_state.global_step != 1 else 1e39 for text in completions]


def gold_column(completions: list[str], gold: list[float | None], **columns: list) -> list[float | None]:
    """Reads a column of the dataset."""
    return gold


def constant_on_even_rows(completions: list[str], parity: list[int], **columns: list) -> list[float]:
    """The same for every completion of a prompt with parity 0; for the others it depends on the text."""
    return [sum(map(ord, text)) % 97 * odd for text, odd in zip(texts_of(completions), parity, strict=True)]


def second_column(completions: list[str], second: list[float | None], **columns: list) -> list[float | None]:
    """Reads another; None where it does not apply."""
    return second


def nothing_at_all(completions: list[str], **columns: list) -> None:
    """A forgotten return."""


def endless_integer(completions: list[str], **columns: list) -> list[int]:
    """Past the largest float, and past what Python prints."""
    return [10**5000] * len(completions)


def length_figures(completions: list[str], **columns: list) -> list[dict[str, float | None]]:
    """A judge: is it short, and how long is it where it is not."""
    return [{"correct": len(text) < 5, "excess": len(text) - 4.0 if len(text) > 4 else None} for text in completions]


def labelled_figures(completions: list[str], gold: list[float], **columns: list) -> list[dict[str, float | None]]:
    """A judge with labels: the completion's own number is its share of letters."""
    shares = share_of_letters(completions)
    return [
        {"score": share, "fit": fit, "positive": fit >= 0.5, "correct": (share >= 0.5) == (fit >= 0.5)}
        for share, fit in zip(shares, gold, strict=True)
    ]


def figures_that_differ(completions: list[str], **columns: list) -> list[dict[str, float]]:
    """A bug in a judge."""
    return [{"correct": 1.0}, *[{"right": 1.0}] * (len(completions) - 1)]


def figure_named_reward(completions: list[str], **columns: list) -> list[dict[str, float]]:
    """Another."""
    return [{"reward": 1.0}] * len(completions)


def figure_off_the_scale(completions: list[str], **columns: list) -> list[dict[str, float]]:
    """And another."""
    return [{"score": 7.0}] * len(completions)


def figure_without_its_label(completions: list[str], **columns: list) -> list[dict[str, float | None]]:
    """And another."""
    return [{"fit": None}] * len(completions)
