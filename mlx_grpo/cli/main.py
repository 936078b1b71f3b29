"""The command line: parse, make one call, print."""

from __future__ import annotations

import click

from mlx_grpo import __version__
from mlx_grpo.backend import openblas
from mlx_grpo.cli.bench import bench_command
from mlx_grpo.cli.data import data
from mlx_grpo.cli.doctor import doctor_command
from mlx_grpo.cli.eval import evaluate
from mlx_grpo.cli.export import export
from mlx_grpo.cli.plan import plan_command
from mlx_grpo.cli.rank import rank
from mlx_grpo.cli.report import report
from mlx_grpo.cli.score import score
from mlx_grpo.cli.terminal import tell
from mlx_grpo.cli.train import train
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
    if openblas.on_linux_cpu() and openblas.BLAS is None:
        tell(f"warning: {openblas.REMEDY}")


for command in (train, plan_command, bench_command, doctor_command, export, evaluate, score, report, rank, data):
    main.add_command(command)
