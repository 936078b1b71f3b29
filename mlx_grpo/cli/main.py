"""The command line: parse, make one call, print."""

from __future__ import annotations

import os

import click

from mlx_grpo import __version__
from mlx_grpo.backend import openblas
from mlx_grpo.cli.bench import bench_command
from mlx_grpo.cli.chat import chat
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

COMMANDS: tuple[tuple[click.Command, str], ...] = (
    (doctor_command, "Check that this machine can train, before the first run."),
    (plan_command, "Predict a run's memory and time before it starts."),
    (train, "Train a model as a config file says."),
    (export, "Write a trained model for Hugging Face, mlx-lm, PEFT or Ollama."),
    (evaluate, "Compare a run with its base model on held-out prompts."),
    (chat, "Try a run's model on what you type, before and after training."),
    (score, "Grade completions by a rubric, with the reason for each mark."),
    (report, "Write a run as one HTML page: curves, samples and results."),
    (rank, "Rank a pool of candidates for a job, with reasons."),
    (data, "Make a dataset from your own files, or a made-up one."),
    (bench_command, "Time the parts of a training step on this machine."),
)
"""The commands in the order in which a newcomer uses them, with their lines on the first screen of help."""


class Commands(click.Group):
    """A group that prints a user's mistake on stderr with exit code 2, in place of a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which they were added."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; turn a UserError or a Stopped into lines on stderr and an exit code."""
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
    """Train a small language model with GRPO on one Mac, and measure the gain."""
    # Read when transformers is imported, later. What it warns of is a base model's business; a user may ask for it.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if openblas.on_linux_cpu() and openblas.BLAS is None:
        tell(f"warning: {openblas.REMEDY}")


for command, line in COMMANDS:
    command.short_help = line
    main.add_command(command)
