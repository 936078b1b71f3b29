"""A user's own functions: imported by name, and called with TRL 1.16.0's arguments or with texts.

A reward function is called as `GRPOTrainer._calculate_rewards` calls it, in three points otherwise: special tokens
that a completion contains stay in its text, columns named like an argument are dropped before the run with a warning,
and the loggers `log_extra` and `log_metric` are not handed over.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_grpo.data.types import Prompt
from mlx_grpo.errors import UserError, short_repr

Function = Callable[..., Any]

RESERVED = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric", "self")
"""Column names that a user's function does not receive, since its arguments have them; a method's first is `self`."""

CHAT_SHAPE = '; for a row with chat messages a completion is [{"role": "assistant", "content": text}]'


@dataclass(frozen=True, slots=True)
class TrainerState:
    """The progress of training, by the names that a reward function reads of TRL's `trainer_state`."""

    global_step: int = 0
    """GRPO steps taken so far; in an evaluation all of them, so that its rewards compare with one another."""
    max_steps: int = 0


UNTRAINED = TrainerState()


@dataclass(frozen=True, slots=True)
class Arguments:
    """The keyword arguments of one call for N completions."""

    of_rows: Mapping[str, Sequence[Any]]
    """Each with a value for each completion."""
    of_all: Mapping[str, Any]

    def keywords(self) -> dict[str, Any]:
        """Return all of them."""
        return {name: list(values) for name, values in self.of_rows.items()} | dict(self.of_all)

    def row(self, index: int) -> Arguments:
        """Return those of a call for one completion alone."""
        return Arguments({name: [values[index]] for name, values in self.of_rows.items()}, self.of_all)


def reward_arguments(
    prompts: Sequence[Prompt],
    completions: Sequence[str],
    completion_ids: Sequence[Sequence[int]],
    state: TrainerState,
) -> Arguments:
    """Return the arguments of a reward function: messages for chat rows, text for others, and the columns."""
    columns = row_columns(prompts, without=(*RESERVED, "completion"))
    own: dict[str, list[Any]] = {
        "prompts": [prompt.text if prompt.messages is None else list(map(dict, prompt.messages)) for prompt in prompts],
        "completions": [
            text if prompt.messages is None else [{"role": "assistant", "content": text}]
            for prompt, text in zip(prompts, completions, strict=True)
        ],
        "completion_ids": [list(ids) for ids in completion_ids],
    }
    return Arguments(columns | own, {"trainer_state": state})


def text_arguments(prompts: Sequence[Prompt], completions: Sequence[str]) -> Arguments:
    """Return the arguments of a judge: texts alone, and the columns."""
    columns = row_columns(prompts, without=(*RESERVED, "id"))
    return Arguments({**columns, "prompts": [prompt.text for prompt in prompts], "completions": completions}, {})


def row_columns(prompts: Sequence[Prompt], without: Sequence[str] = ()) -> dict[str, list[Any]]:
    """Return the columns of the prompts' files; None for a row that lacks one."""
    names = {name for prompt in prompts for name in (*prompt.columns, *prompt.absent_columns)}
    return {name: [prompt.columns.get(name) for prompt in prompts] for name in sorted(names.difference(without))}


def reserved_columns(prompts: Sequence[Prompt]) -> list[str]:
    """Return the columns that a user's function does not receive, since its arguments have their names."""
    return sorted({name for prompt in prompts for name in prompt.columns}.intersection(RESERVED))


def import_function(key: str, name: str) -> Function:
    """Import a function of the user's own, which `key` of the configuration names."""
    module, _, attribute = name.partition(":")
    if "" not in sys.path:  # a console script does not import from the working folder, where users keep their rewards
        sys.path.insert(0, "")
    imported, error = _attempt(lambda: importlib.import_module(module))
    if error is not None:
        raise UserError(
            f"{key}: {name}: {type(error).__name__}: {error}; the module must be importable from here"
        ) from error
    if attribute not in vars(imported):
        raise UserError(f"{key}: {name}: {module} has no {attribute}; correct the name")
    if not callable(vars(imported)[attribute]):
        raise UserError(f"{key}: {name}: is no function but {short_repr(vars(imported)[attribute])}; name one")
    return vars(imported)[attribute]


def call_functions(
    functions: Mapping[str, Function],
    prompts: Sequence[Prompt],
    completions: Sequence[str],
    arguments: Arguments,
    wanted: str,
) -> dict[str, list[Any]]:
    """Return the values [N] of each function, by its key; raise UserError where one fails.

    A key names its function in messages; `wanted` is what it should list.
    """
    outcomes = _call_all(list(functions.values()), arguments)
    values = {}
    for (key, function), (value, error) in zip(functions.items(), outcomes, strict=True):
        if error is not None:
            where = _culprit(function, prompts, completions, arguments)
            messages = any(isinstance(completion, list) for completion in arguments.of_rows["completions"])
            raise UserError(
                f"{key} raised {type(error).__name__}: {error} {where}; mend it, or return None for what it can't judge"
                + (CHAT_SHAPE if messages else "")
            ) from error
        values[key] = _listed(key, value, prompts, wanted)
    return values


def _listed(key: str, value: Any, prompts: Sequence[Prompt], wanted: str) -> list[Any]:
    try:
        values = list(value)
    except TypeError:
        raise UserError(f"{key} returned {short_repr(value)}; return a list of {wanted}") from None
    if len(values) != len(prompts):
        raise UserError(
            f"{key} returned {len(values)} values for {len(prompts)} completions "
            f"(rows {prompts[0].id} to {prompts[-1].id}); return one for each, None where it does not apply"
        )
    return values


def _culprit(function: Function, prompts: Sequence[Prompt], completions: Sequence[str], arguments: Arguments) -> str:
    """Name the completion that a function fails on when it is called with one at a time."""
    for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        [(_, error)] = _call_all([function], arguments.row(i))
        if error is not None:
            return f"for row {prompt.id} (completion: {completion[:80]!r})"
    return f"for {len(completions)} completions together, though for none of them alone"


def _call_all(functions: Sequence[Function], arguments: Arguments) -> list[tuple[Any, Exception | None]]:
    """Return each function's value, or None and its exception; first the plain ones, then all async ones together."""
    keywords = arguments.keywords()
    plain = {i: _attempt(functools.partial(f, **keywords)) for i, f in enumerate(functions) if not _is_async(f)}
    futures = {
        i: asyncio.run_coroutine_threadsafe(_awaited(f, keywords), _event_loop())
        for i, f in enumerate(functions)
        if i not in plain
    }
    waited = {i: _attempt(future.result) for i, future in futures.items()}
    return [(plain | waited)[i] for i in range(len(functions))]


def _is_async(function: Function) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


async def _awaited(function: Function, keywords: Mapping[str, Any]) -> Any:
    return await function(**keywords)


@functools.cache
def _event_loop() -> asyncio.AbstractEventLoop:
    """Start the loop of async functions, in a thread of its own; it lasts, since clients are bound to their loop."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="async reward functions", daemon=True).start()
    return loop


def _attempt(call: Callable[[], Any]) -> tuple[Any, Exception | None]:
    """Call a user's own code; return its value, or None and its exception."""
    try:
        return call(), None
    except Exception as error:  # it may raise anything, and the run must say whose fault it was
        return None, error
