"""Rows of JSONL to prompts: read, checked, rendered and tokenized."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_grpo.config.schema import Config, DataConfig
from mlx_grpo.data.chat import as_data, markers, messages_problem, render
from mlx_grpo.data.hub_dataset import hub_heldout_rows, hub_train_rows, pin, rows_remedy
from mlx_grpo.data.hub_files import is_hub_id
from mlx_grpo.data.types import LengthLimit, Prompt
from mlx_grpo.errors import UserError, short_repr
from mlx_grpo.json_files import UNREADABLE, json_lines, open_text
from mlx_grpo.tasks.lookup import BUNDLED

LISTED_PROBLEMS = 20
HUB_KEYS = ("split", "heldout_split", "subset", "columns", "as_messages", "system")
"""The keys of `data` that belong to data sets on the Hub."""
QUOTING = ("context", "facts")
"""The columns that hold names and texts of the prompt."""


def dataset_files(data: DataConfig) -> tuple[Path, Path | None]:
    """Return the training and held-out files that a config names; a folder holds train.jsonl and heldout.jsonl.

    Each of them may be compressed, and then its name ends in .jsonl.gz. Of a data set on the Hub, a file of its rows is
    written first.
    """
    on_hub = is_hub_id(data.train)
    _check_hub_keys(data)
    train = hub_train_rows(data) if on_hub else _dataset_file(data.train, "train")
    if is_hub_id(data.heldout or "") or (on_hub and data.heldout is None):
        return train, hub_heldout_rows(data)
    if data.heldout is not None:
        return train, _dataset_file(data.heldout, "heldout")
    if data.train in BUNDLED or Path(data.train).is_dir():
        return train, _dataset_file(data.train, "heldout")
    return train, None


def _check_hub_keys(data: DataConfig) -> None:
    """Raise UserError where keys for data sets on the Hub are set, and none is named."""
    if is_hub_id(data.train) or is_hub_id(data.heldout or ""):
        return
    given, defaults = data.model_dump(), DataConfig().model_dump()
    wrong = [key for key in HUB_KEYS if given[key] != defaults[key]]
    if wrong:
        raise UserError(*(f"data.{key}: set, but no data set on the Hub is named; remove it" for key in wrong))


def with_full_paths(config: Config) -> Config:
    """Return the config with absolute paths for local folders and files, and the commits of data sets on the Hub.

    Training calls it before it creates a run, so that the run's config.yaml is valid in any working directory. Resuming
    calls it to compare a config with that file. Nothing else needs it: other commands read a run's config, whose paths
    are absolute already, or use a config's paths at once.
    """
    names = {"train": _full(config.data.train), "heldout": _full(config.data.heldout)}
    on_hub = [key for key, name in names.items() if name and is_hub_id(name)]
    data = config.data.model_copy(update={**names, **{key: pin(config.data, f"data.{key}") for key in on_hub}})
    warm = config.warm_start.model_copy(update={"run": _full(config.warm_start.run)})
    return config.model_copy(update={"model": _full(config.model), "data": data, "warm_start": warm})


def read_rows(path: Path, problem_of: Callable[[Any], str | None] | None = None) -> list[dict[str, Any]]:
    """Read and check the rows of a JSONL file; raise UserError listing bad rows by line number.

    `problem_of` returns what is wrong with a row, or None. By default a row needs a prompt, and an id that no other row
    has.
    """
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    lines: dict[str, int] = {}
    name = path.name.removesuffix(".gz").removesuffix(".jsonl")
    for number, value, fault in json_lines(read_text(path).split("\n")):
        problem = f"not JSON ({fault}); write one object per line" if fault else (problem_of or _row_problem)(value)
        if problem:
            problems.append(f"{path}, line {number}: {problem}")
            continue
        row = {"id": f"{name}-{number}", **value}
        first = lines.setdefault(str(row["id"]), number)
        if first == number or problem_of:
            rows.append(row)
        else:
            problems.append(
                f"{path}, line {number}: `id` {short_repr(row['id'])} is that of line {first} too; change one"
            )
    if not rows and not problems:
        problems.append(f"{path}: holds no rows; write one JSON object per line")
    if problems:
        more = len(problems) - LISTED_PROBLEMS
        others = [f"{path}: and {more} more bad rows"] if more > 0 else []
        raise UserError(*problems[:LISTED_PROBLEMS], *others, *rows_remedy(path))
    return rows


def load_prompts(
    path: Path, tokenizer: TokenizerWrapper, enable_thinking: bool = False, today: str | None = None
) -> list[Prompt]:
    """Render and tokenize every row: chat messages by the model's template, plain text as it is."""
    rows = read_rows(path)
    names = {name for row in rows for name in row}
    return [
        replace(make_prompt(row, tokenizer, enable_thinking, today), absent_columns=tuple(sorted(names - row.keys())))
        for row in rows
    ]


def make_prompt(
    row: dict[str, Any], tokenizer: TokenizerWrapper, enable_thinking: bool = False, today: str | None = None
) -> Prompt:
    """Make a Prompt of one row; columns other than `id` and `prompt` go to the reward.

    Special tokens inside chat messages are broken (see `chat`). So are those in the columns that quote a prompt, which
    lets a rubric grade against the text that the model reads. A `prompt` of plain text is taken as rendered already:
    its special tokens count, and whoever rendered it must keep foreign ones out. `today` is the date of a template that
    writes one (see `chat.render`).
    """
    columns = {key: value for key, value in row.items() if key != "prompt"}
    columns |= {"completion": completion_text(row)} if "completion" in row else {}
    messages = None if isinstance(row["prompt"], str) else tuple(row["prompt"])
    if isinstance(row["prompt"], str):
        text = user_message = row["prompt"]
        # As mlx-lm does: a text that was rendered already brings its beginning of sequence along.
        begun = bool(tokenizer.bos_token) and text.startswith(tokenizer.bos_token)
        token_ids = tokenizer.encode(text, add_special_tokens=not begun)
    else:
        try:
            text = render(row["prompt"], tokenizer, enable_thinking, today)
        except UserError as error:
            raise UserError(f"row {row['id']}: {error}") from None
        token_ids = tokenizer.encode(text, add_special_tokens=False)
        user_message = as_data(row["prompt"][-1]["content"], tokenizer)
        columns |= {name: as_data(columns[name], tokenizer) for name in QUOTING if name in columns}
    return Prompt(str(row["id"]), text, tuple(token_ids), columns, user_message, messages)


def completion_text(row: dict[str, Any]) -> Any:
    """Return the text of a row's `completion`, which may be one assistant message in a list; others stay as they are.

    TRL writes it as messages where the prompt is.
    """
    match row.get("completion"):
        case [{"role": "assistant", "content": str(text)}]:
            return text
    return row.get("completion")


def untemplated(prompts: Sequence[Prompt], tokenizer: TokenizerWrapper) -> str | None:
    """Describe prompts of plain text that a model tuned for chat reads without its template; None without such.

    A text with a mark of the template counts as rendered.
    """
    if not tokenizer.has_chat_template:
        return None
    texts = [prompt.text for prompt in prompts if prompt.text == prompt.user_message]
    bare = sum(markers(tokenizer).search(text) is None for text in texts)
    if not bare:
        return None
    return (
        f"{bare} of {len(prompts)} prompts are plain text, which this model reads without its chat template; for a "
        'chat write `prompt` as messages: [{"role": "user", "content": ...}], or for a data set on the '
        "Hub set data.as_messages"
    )


def context_of(row: dict[str, Any]) -> Any:
    """Return the text that a completion is about: a row's column `context`, or the last message of its prompt."""
    if "context" in row:
        return row["context"]
    prompt = row.get("prompt", "")
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]


def check_lengths(prompts: Sequence[Prompt], most: int, limit: LengthLimit, key: str = "max_completion_length") -> None:
    """Raise UserError where a prompt with a completion of `most` tokens, which `key` allows, exceeds the limit."""
    for prompt in prompts:
        if limit.tokens is not None and len(prompt.token_ids) + most > limit.tokens:
            raise UserError(
                f"row {prompt.id}: {len(prompt.token_ids)} prompt tokens and {key} {most} exceed {limit}; shorten the "
                "prompt or the completion"
            )


def _full(name: str | None) -> str | None:
    return str(Path(name).resolve()) if name and name not in BUNDLED and Path(name).exists() else name


def _dataset_file(name: str, split: str) -> Path:
    if name in BUNDLED:
        train, heldout = BUNDLED[name]
        return train if split == "train" else heldout
    if "://" in name:
        raise UserError(f"data.{split}: {name} is an address; name a data set on the Hub as org/name, or give a file")
    path = Path(name)
    if not path.is_dir():
        return path
    plain, compressed = path / f"{split}.jsonl", path / f"{split}.jsonl.gz"
    if plain.exists() and compressed.exists():
        raise UserError(f"{plain}: {compressed.name} is beside it; remove the older one")
    return compressed if compressed.exists() else plain


def read_text(path: Path) -> str:
    """Return the text of a file of rows, plain or compressed; raise UserError where it can't be read."""
    try:
        with open_text(path) as file:
            return file.read()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; correct the path, or build one with `mlx-grpo data build`") from None
    except UNREADABLE as error:
        raise UserError(f"{path}: not readable ({error}); give a JSONL file in UTF-8, plain or as .gz") from None


def _row_problem(row: Any) -> str | None:
    if not isinstance(row, dict):
        return f'holds {type(row).__name__}, not an object; write {{"prompt": ...}}'
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        return f"holds half a character ({error.reason}); write surrogates in pairs"
    name = row.get("id", "row")
    if isinstance(name, bool) or not isinstance(name, str | int) or not str(name).isprintable() or name == "":
        return f"`id` is {short_repr(name)}; give a whole number or a printable text"
    if "prompt" not in row:
        return "has no `prompt`; add it (text or chat messages)"
    prompt = row["prompt"]
    if isinstance(prompt, str):
        return None if prompt.strip() else "`prompt` is empty; write some text"
    if not isinstance(prompt, list) or not prompt:
        return f"`prompt` is {type(prompt).__name__}; give text or a non-empty list of messages"
    return messages_problem(prompt)


def validation_rows(config: Config, prompts: Sequence[Prompt]) -> list[Prompt]:
    """Return the validation split: the last `eval.validation` of the held-out prompts that `eval.episodes` leaves."""
    return list(prompts[config.eval.episodes :][-config.eval.validation :])
