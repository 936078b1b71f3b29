"""Countdown: reach a number from given ones by + - * and /, each used at most once; rows are generated."""

from __future__ import annotations

import ast
import operator
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from mlx_grpo.errors import UserError
from mlx_grpo.tasks.base import Figures, Grader, RewardSettings, Row, Shown, ShownRow, Task

SETS, TARGETS = {"heldout": 60, "train": 250}, 4
"""How many sets of numbers are drawn for each split, none for both, and the most rows of a set."""
WEIGHTS = {"format": 0.1, "correct": 0.9}
ASK = "With + - * / make {target} from {numbers}, each used at most once. End like this: <answer>(1 + 2) * 3</answer>"
ANSWER = re.compile(r"<answer>([\d\s()+*/-]{1,100})</answer>")
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


class Countdown(Task):
    """Grades the expression in a completion's last `<answer>` tags; a row has `numbers`, `target` and `set`."""

    rubrics: Mapping[str, str] = {"countdown": "countdown 1"}
    cluster = "set"

    def grader(self, reward: RewardSettings) -> Grader:
        """Return the reward: a little for an expression by the rules, most for the right value."""
        weights = self.weights(reward)

        def grade(completions: Sequence[str], /, **columns: Any) -> list[dict[str, float]]:
            figures = self.judge(completions, **columns)
            marks = [{"format": float(f["valid"] or 0), "correct": float(f["correct"] or 0)} for f in figures]
            return [{**own, "total": sum(weights[name] * mark for name, mark in own.items())} for own in marks]

        return grade

    def weights(self, reward: RewardSettings) -> Mapping[str, float]:
        """Return the weights, rescaled to sum to 1."""
        weights = {**WEIGHTS, **reward.weights}
        if weights.keys() != WEIGHTS.keys() or reward.limits or not sum(weights.values()):
            raise UserError(f"reward: countdown has the weights {', '.join(WEIGHTS)}, not all 0, and no limits")
        return {name: weight / sum(weights.values()) for name, weight in weights.items()}

    def problem(self, reward: RewardSettings, columns: Row) -> str | None:
        """Return the reason why a row can't be graded; None where it can."""
        numbers = columns.get("numbers")
        if isinstance(numbers, list) and all(type(number) is int for number in [*numbers, columns.get("target")]):
            return None
        return "lacks whole `numbers` in a list, or a whole `target`; make rows with `mlx-grpo data countdown`"

    def judge(self, completions: Sequence[str], /, **columns: Any) -> list[Figures]:
        """Return for each completion if it reaches the target, and if it holds an expression by the rules."""
        values = map(reached, completions, columns["numbers"])
        pairs = zip(values, columns["target"], strict=True)
        return [{"correct": value == right, "valid": value is not None} for value, right in pairs]

    def show_row(self, row: Row, context: str) -> ShownRow:
        """Return the target."""
        return ShownRow(str(row["target"]) if row else None, [])

    def show(self, completion: str, row: Row, reward: RewardSettings) -> Shown:
        """Return the value that a completion reaches."""
        value = reached(completion, row.get("numbers", []))
        return Shown(None if value is None else str(value), None, None)


def reached(completion: str, numbers: Sequence[int]) -> Fraction | None:
    """Return the value of a completion's last answer; None without one, or where it breaks the rules."""

    def compute(node: ast.expr) -> Fraction:
        match node:
            case ast.Constant(value=int(number)):
                return Fraction(number)
            case ast.BinOp(left, sign, right) if type(sign) in OPERATORS:
                return OPERATORS[type(sign)](compute(left), compute(right))
        raise ValueError("another operation")

    try:
        expression = ANSWER.findall(completion)[-1].strip()
        value = compute(ast.parse(expression, mode="eval").body)
    except (IndexError, SyntaxError, ValueError, ZeroDivisionError):
        return None
    return value if Counter(map(int, re.findall(r"\d+", expression))) <= Counter(numbers) else None


def make_rows(seed: int = 0) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield each split's name and rows; a row's `completion` uses all the numbers."""
    rng, seen = random.Random(f"countdown {seed}"), set[str]()
    for split, sets in SETS.items():
        rows: list[dict[str, Any]] = []
        for _ in range(sets):
            numbers = sorted(rng.sample(range(2, 26), rng.choice((3, 4))))
            name = "-".join(map(str, numbers))
            for target, text in [] if name in seen else _targets(numbers, rng):
                ask = ASK.format(target=target, numbers=", ".join(map(str, numbers)))
                row = {"id": f"{name}/{target}", "prompt": [{"role": "user", "content": ask}], "set": name}
                rows.append({**row, "numbers": numbers, "target": target, "completion": f"<answer>{text}</answer>"})
            seen.add(name)
        yield split, rows


def _targets(numbers: list[int], rng: random.Random) -> list[tuple[int, str]]:
    """Return a few numbers from 10 to 99 that all the given ones make, each with its expression."""
    found: dict[int, str] = {}
    for _ in range(50):
        text, *others = map(str, rng.sample(numbers, len(numbers)))
        for number in others:
            text = f"({text} {rng.choice('+-*/')} {number})"
        value = reached(f"<answer>{text}</answer>", numbers)
        if value is not None and value.denominator == 1 and 10 <= value < 100 and value not in numbers:
            found.setdefault(int(value), text[1:-1])
    return list(found.items())[:TARGETS]
