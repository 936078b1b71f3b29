"""`mlx-grpo bench --processes 1,2`: the same prompts with several counts of processes, and which count to take."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console

from mlx_grpo.cli.terminal import console_table, errors

WORTHWHILE = 1.05
"""A larger count is taken if it is this many times as fast: each process holds the model once more."""


class Counts(click.ParamType):
    """Counts of processes, such as 2, or 1,2 to compare them."""

    name = "counts"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Return the counts in the order given; fail unless each is a whole number of at least 1, named once."""
        if isinstance(value, tuple):
            return value
        texts = value.split(",")
        if not all(text.isdecimal() and int(text) > 0 for text in texts) or len(set(map(int, texts))) < len(texts):
            self.fail(f"{value!r}: give a number of processes, such as 2, or several to compare, such as 1,2", param)
        return tuple(map(int, texts))


def bench_counts(arguments: Sequence[str], counts: Sequence[int], prompts: int) -> list[dict[str, Any]]:
    """Run `mlx-grpo ARGUMENTS` once for each count, on equally many prompts, and return what each run printed.

    A step has `prompts` times the least common multiple of the counts. Exits with the code of a run that fails.
    """
    total = prompts * math.lcm(*counts)
    results = []
    for count in counts:
        each = ["--processes", str(count), "--prompts", str(total // count), "--no-plain", "--json"]
        with errors.status(f"{count} of {', '.join(map(str, counts))} processes", spinner="line"):
            done = subprocess.run([sys.executable, "-m", "mlx_grpo.cli", *arguments, *each], stdout=subprocess.PIPE)
        if done.returncode:
            raise SystemExit(done.returncode)
        results.append(json.loads(done.stdout))
    return results


def print_counts(console: Console, results: Sequence[dict[str, Any]], as_json: bool) -> None:
    """Print one table for each shape, with a line that says which count to take."""
    if as_json:
        click.echo(json.dumps(results))
        return
    from mlx_grpo.planning.flops import Shape

    counts = [result["processes"] for result in results]
    for shapes in zip(*(result["shapes"] for result in results), strict=True):
        rows = [_cells(count, r) for count, r in zip(counts, shapes, strict=True)]
        first = Shape.of(shapes[0])
        title = f"{counts[0] * first.prompts} prompts, {first}"
        console.print(console_table(["processes", "decode s", "train s", "step s", "tok/s", "GB"], rows, title=title))
        steps = {count: r["step"] for count, r in zip(counts, shapes, strict=True)}
        console.print(f"take --processes {best_count(steps)}", highlight=False)


def best_count(steps: dict[int, float]) -> int:
    """Return the smallest count whose step is nearly as short as the shortest; `steps` holds seconds by count."""
    return min(count for count, seconds in steps.items() if seconds <= WORTHWHILE * min(steps.values()))


def _cells(count: int, r: dict[str, Any]) -> list[str]:
    times = [f"{r[part]:.2f}" for part in ("decode", "train", "step")]
    return [str(count), *times, f"{r['tokens_per_s']:.0f}", f"{count * r['peak_gb']:.2f}"]
