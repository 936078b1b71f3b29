"""`mlx-grpo report`: write a run as one HTML page."""

from __future__ import annotations

import json as json_module
from dataclasses import asdict
from pathlib import Path

import click

from mlx_grpo.cli.terminal import show, tell


@click.command()
@click.argument("run", required=False)
@click.option("--out", type=click.Path(path_type=Path), help="The page's file; RUN/report.html by default.")
@click.option("--json", "as_json", is_flag=True, help="Print the page's path and size as JSON.")
def report(run: str | None, out: Path | None, as_json: bool) -> None:
    """Write a run as one HTML page: curves, samples, and every held-out completion with its claims.

    RUN is its folder; the latest by default.

    \b
    mlx-grpo report
    mlx-grpo report runs/latest --out report.html
    """
    from mlx_grpo.reporting.report import write_report

    written = write_report(run, out)
    if as_json:
        click.echo(json_module.dumps(asdict(written), default=str))
        return
    tell(*(f"left out: {problem}" for problem in written.missing))
    size = f"{written.size / 2**20:.1f} MB, {written.episodes} held-out episodes"
    show([f"{written.path}  ({size})"])
