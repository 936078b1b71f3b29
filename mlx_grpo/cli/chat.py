"""`mlx-grpo chat`: try a run's model, before and after training, on what is typed."""

from __future__ import annotations

import io
import json as json_module
import sys
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING

import click
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mlx_grpo.cli.rank import show_job
from mlx_grpo.cli.terminal import console, errors, printable, tell
from mlx_grpo.errors import UserError

if TYPE_CHECKING:  # it brings MLX with it, which `mlx-grpo --help` does without
    from mlx_grpo.data.types import Prompt
    from mlx_grpo.evaluation.chat import Chat, Reply

SIDE_BY_SIDE = 60
"""Columns of a terminal from which two completions stand beside each other."""
COLOURS = {"confirmed": "green", "refuted": "red", "unread": "yellow"}


@click.command()
@click.argument("run", required=False)
@click.option("--prompt", "prompts", multiple=True, help="Answer this and end; may be given several times.")
@click.option("--jd", type=click.Path(path_type=Path), help="A job's text, HTML or job.yaml, for --candidate.")
@click.option("--candidate", type=click.Path(path_type=Path), help="A file of candidates; the first is asked about.")
@click.option("--id", "name", help="Of the file's candidates, the one with this candidate_id.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), help="The config's eval.max_new_tokens by default.")
@click.option("--temperature", type=click.FloatRange(min=0), default=0.0, show_default=True, help="0 is greedy.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the draws, with --temperature.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a prompt.")
def chat(
    run: str | None,
    prompts: tuple[str, ...],
    jd: Path | None,
    candidate: Path | None,
    name: str | None,
    max_new_tokens: int | None,
    temperature: float,
    seed: int,
    as_json: bool,
) -> None:
    """Try a run's model: the base and the trained one answer the same prompt side by side.

    RUN is its folder; the latest by default. A typed line is one prompt, asked after the run's own instruction; earlier
    lines are not remembered. An empty line takes the next held-out prompt, Ctrl-D ends. Lines may come from a pipe.

    Where a row has facts, each reason is marked as confirmed, refuted or unread.

    \b
    mlx-grpo chat
    mlx-grpo chat runs/latest --prompt "What is 17 + 25?" --json
    mlx-grpo chat --jd job.txt --candidate pool.jsonl --id CAND_0000002
    """
    from mlx_grpo.evaluation.chat import Chat
    from mlx_grpo.runs import Run

    _check_options(prompts, jd, candidate, name)
    found = Run.find(run)
    with errors.status("loading", spinner="line"):
        talk = Chat(found, max_new_tokens, temperature, seed)
    if jd is not None and candidate is not None:
        prompt, row = talk.candidate_prompt(jd, candidate, name)
        show_job(row.job, as_json=True)
        _answer(talk, prompt, True, as_json)
    for text in prompts:
        _answer(talk, talk.typed_prompt(text), False, as_json)
    if not prompts and jd is None:
        _converse(talk, as_json)


def _check_options(prompts: tuple[str, ...], jd: Path | None, candidate: Path | None, name: str | None) -> None:
    if (jd is None) != (candidate is None):
        raise UserError("--jd and --candidate belong together; give both, or neither")
    if name is not None and candidate is None:
        raise UserError("--id: names one of --candidate's file; give --jd and --candidate too")
    if any(not text.strip() for text in prompts):
        raise UserError("--prompt: is empty; write some text, or leave it out and press Enter for a held-out prompt")


def _converse(talk: Chat, as_json: bool) -> None:
    """Answer line after line until the input ends."""
    typing = sys.stdin.isatty()
    if typing:
        tell(f"{talk.run.folder.name}: a line is a prompt, an empty one takes the next held-out prompt, Ctrl-D ends")
    asked = 0
    for line in _lines(typing):
        try:
            if line.strip():
                _answer(talk, talk.typed_prompt(line), False, as_json)
            else:
                prompt = talk.heldout[asked % len(talk.heldout)]
                asked += 1
                _answer(talk, prompt, True, as_json)
        except KeyboardInterrupt:
            if not typing:
                raise
            tell("stopped; Ctrl-D ends")
        except UserError as error:
            if not typing:
                raise
            tell(*(f"error: {problem}" for problem in error.problems))


def _lines(typing: bool) -> Iterator[str]:
    """Yield what is typed, or the lines of a pipe, without their ends."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # bytes that are no UTF-8 are refused with their prompt
    if not typing:
        yield from (line.rstrip("\n") for line in sys.stdin)
        return
    import readline  # noqa: F401  (editing and history for input)

    while True:
        try:
            yield input("> ")
        except EOFError:
            tell("")
            return


def _answer(talk: Chat, prompt: Prompt, labelled: bool, as_json: bool) -> None:
    """Have both models complete a prompt, and print what they write."""
    if as_json:
        replies = _replies(talk, prompt, labelled)
        label = talk.label(prompt) if labelled else None
        record = {"prompt_id": prompt.id, "prompt": prompt.user_message, "label": label}
        click.echo(json_module.dumps(record | {name: asdict(reply) for name, reply in replies.items()}))
        return
    if labelled:
        _show_row(talk, prompt)
    if console.is_terminal and console.width >= SIDE_BY_SIDE:
        _answer_beside(talk, prompt, labelled)
    else:
        _answer_below(talk, prompt, labelled)


def _replies(talk: Chat, prompt: Prompt, labelled: bool) -> dict[str, Reply]:
    from mlx_grpo.evaluation.chat import MODELS

    return {name: talk.reply(talk.complete(name, prompt), labelled) for name in MODELS}


def _show_row(talk: Chat, prompt: Prompt) -> None:
    """Print the prompt of a row, and its label."""
    label = talk.label(prompt)
    console.print(Text(printable(prompt.id), style="bold"), soft_wrap=True)
    text = printable(prompt.user_message)
    if console.is_terminal:
        console.print(Padding(Text(text, style="dim"), (0, 0, 0, 2)))
    else:
        console.print(indent(text, "  "), highlight=False, markup=False, soft_wrap=True)
    if label is not None:
        console.print(f"right: {printable(label)}", highlight=False, markup=False)
    console.print()


def _answer_beside(talk: Chat, prompt: Prompt, labelled: bool) -> None:
    """Print both completions beside each other as they grow."""
    from mlx_grpo.evaluation.chat import MODELS

    cells = {name: Text() for name in MODELS}
    with Live(_table(cells), console=console, refresh_per_second=8) as live:
        for name in MODELS:
            rollout = talk.complete(name, prompt, partial(_grow, cells[name]))
            remarks = _remarks(talk.reply(rollout, labelled))
            cells[name] = Text("\n").join([cells[name], Text(), *remarks] if remarks else [cells[name]])
            live.update(_table(cells))
    console.print()


def _grow(cell: Text, text: str) -> None:
    cell.append(printable(text))


def _table(cells: dict[str, Text]) -> Table:
    table = Table.grid(padding=(0, 2), expand=True, collapse_padding=True)
    for _ in cells:
        table.add_column(ratio=1, overflow="fold")
    table.add_row(*(Text(name, style="bold") for name in cells))
    table.add_row(*cells.values())
    return table


def _answer_below(talk: Chat, prompt: Prompt, labelled: bool) -> None:
    """Print one completion below the other as they grow."""
    from mlx_grpo.evaluation.chat import MODELS

    for name in MODELS:
        console.print(Text(name, style="bold"))
        rollout = talk.complete(name, prompt, lambda text: click.echo(printable(text), nl=False))
        click.echo()
        for line in _remarks(talk.reply(rollout, labelled)):
            console.print(line, soft_wrap=True)
        click.echo()


def _remarks(reply: Reply) -> list[Text]:
    """Return the lines below a completion: reward, verdict, and each reason with its mark."""
    lines = [Text(f"({reply.note})", style="dim")] if reply.note else []
    if reply.reward is not None:
        verdict = f", {printable(reply.verdict)}" if reply.verdict else ""
        lines.append(Text(f"reward {reply.reward:.2f}{verdict}", style="bold"))
    for clauses in reply.reasons:
        marked = [
            Text.assemble(f"{printable(clause.text.strip())} (", (clause.status, COLOURS[clause.status]), ")")
            for clause in clauses
        ]
        lines.append(Text("; ").join(marked))
    lines += [Text(f"refuted: {printable(fault)}", style="dim") for fault in reply.faults]
    return lines
