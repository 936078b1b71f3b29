"""The command line: parse, make one call, print."""

from __future__ import annotations

import sys

import click

from mlx_grpo import BLAS, __version__
from mlx_grpo.backend.openblas import REMEDY, on_linux_cpu
from mlx_grpo.commands.candidates import data, rank
from mlx_grpo.commands.results import evaluate, export, report, score
from mlx_grpo.commands.terminal import tell
from mlx_grpo.commands.training import bench_command, doctor_command, plan_command, train
from mlx_grpo.errors import Stopped, UserError


class Commands(click.Group):
    """Turns a user's mistake into its lines on stderr and exit code 2, in place of a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except UserError as error:
            tell(*(f"error: {problem}" for problem in error.problems))
            ctx.exit(2)
        except Stopped as stopped:
            tell(str(stopped))
            ctx.exit(stopped.exit_code)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def main() -> None:
    """Train a small language model with GRPO on one Mac, and prove what it learned.

    \b
    mlx-grpo train configs/qwen3.yaml     train
    mlx-grpo export --hf                  write a Hugging Face folder
    mlx-grpo eval                         compare it with its baseline
    mlx-grpo score FILE                   grade completions and say why
    """
    if on_linux_cpu() and BLAS is None:
        tell(f"warning: {REMEDY}")


for command in (train, plan_command, bench_command, doctor_command, export, evaluate, score, report, rank, data):
    main.add_command(command)


if __name__ == "__main__":
    sys.exit(main())
