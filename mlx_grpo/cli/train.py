"""`mlx-grpo train`: train as configured."""

from __future__ import annotations

import json as json_module
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from mlx_grpo.cli.terminal import console, errors, show, tell
from mlx_grpo.errors import UserError

if TYPE_CHECKING:
    from mlx_grpo.runs import Run


@click.command()
@click.argument("config")
@click.argument("overrides", nargs=-1)
@click.option("--resume", is_flag=True, help="Resume the latest run of CONFIG, or the run folder given.")
@click.option(
    "--until",
    type=click.IntRange(min=1),
    help="End after this many GRPO steps, best a multiple of eval_steps; --resume takes the rest.",
)
@click.option(
    "--processes", type=click.IntRange(min=1), default=1, help="For CPUs: share each step among this many processes."
)
@click.option(
    "--supervise",
    is_flag=True,
    help="Resume the run by itself after the system aborted it; halves micro_batch_size where that may help.",
)
@click.option("--force", is_flag=True, help="Train even where the memory does not fit.")
@click.option("--json", "as_json", is_flag=True, help="Print the run's folder and last metrics as JSON.")
def train(
    config: str,
    overrides: tuple[str, ...],
    resume: bool,
    until: int | None,
    processes: int,
    supervise: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Train with CONFIG; KEY=VALUE overrides its keys.

    CONFIG is a file, or the name of an example: qwen3, qwen3-full, published, smollm2, countdown.

    \b
    mlx-grpo train configs/qwen3.yaml
    mlx-grpo train configs/smollm2.yaml max_steps=5 lora.rank=8
    mlx-grpo train configs/qwen3.yaml --until 40
    mlx-grpo train configs/qwen3.yaml --resume
    mlx-grpo train configs/qwen3.yaml --supervise
    """
    if supervise:
        _supervise(config, overrides, processes, resume, _spelled(False, until, force, as_json))
    from mlx_grpo.config.files import load_config
    from mlx_grpo.distributed import launch
    from mlx_grpo.runs import find_resumable
    from mlx_grpo.training.progress import ConsoleReporter
    from mlx_grpo.training.trainer import train as run_training

    settings, resumed = find_resumable(config, overrides) if resume else (load_config(config, overrides), None)
    arguments = ["train", config, *overrides, *_spelled(resume, until, force)]
    with (
        launch.processes(processes, arguments, "--resume goes on from the last checkpoint") as ranks,
        ConsoleReporter(errors if as_json else console, settings.logging_steps) as reporter,
    ):
        run = run_training(settings, reporter, resumed, force=force, ranks=ranks, until=until)
    if ranks.leads:
        _print_run(run, as_json)


def _print_run(run: Run, as_json: bool) -> None:
    """Print where the adapter is and what to do next, or the folder and the last metrics as JSON."""
    if as_json:
        click.echo(json_module.dumps({"run": str(run.folder), "metrics": run.metrics()[-1]}))
    else:
        where = "" if run.folder.parent == Path("runs") else f" {run.folder}"
        show((f"adapter: {run.folder / 'adapter'}", f"next: mlx-grpo export --hf{where}, then mlx-grpo eval{where}"))


def _supervise(config: str, overrides: tuple[str, ...], processes: int, resume: bool, options: list[str]) -> NoReturn:
    """Train in a child process that is resumed after an abort, and exit as it did."""
    from mlx_grpo.config.files import load_config
    from mlx_grpo.distributed.ranks import join_ranks
    from mlx_grpo.runs import find_resumable
    from mlx_grpo.training.supervise import Attempt, resuming_attempt, supervise

    if processes > 1 or join_ranks().size > 1:
        raise UserError("--supervise: watches over one process, and this run has several; leave one of the two out")
    if resume:
        settings, run = find_resumable(config, overrides)
        first = resuming_attempt(run, settings, tuple(options))
    else:
        settings, first = load_config(config, overrides), Attempt(config, overrides, tuple(options), None)
    sys.exit(supervise(first, settings, tell))


def _spelled(resume: bool, until: int | None, force: bool, as_json: bool = False) -> list[str]:
    """Return the options that another process needs too, as a command line spells them."""
    options = []
    if resume:
        options.append("--resume")
    if until is not None:
        options.append(f"--until={until}")
    if force:
        options.append("--force")
    if as_json:
        options.append("--json")
    return options
