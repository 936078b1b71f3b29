"""The error of a command that must fail, and small files with and without mistakes.

A message names the file, line or key, the value, and what to do; nothing is a traceback.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from mlx_grpo.cli.main import main

Words = tuple[str, ...]
ROW = {"prompt": [{"role": "user", "content": "hi"}]}


def error_of(*arguments: str) -> str:
    """Run a command that must fail with exit code 2; return its output."""
    result = CliRunner().invoke(main, list(arguments))
    assert not isinstance(result.exception, Exception), result.exception
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert len(result.output) < 4000, "a message is for reading"
    return result.output


def holds(text: str, words: Words) -> None:
    """Assert that the text contains every word."""
    assert [word for word in words if word not in text] == [], text


def write(path: Path, content: str | bytes | object) -> None:
    """Write bytes and text as they are, anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def lines(*rows: object) -> str:
    """Join rows to JSONL; texts are used as they are."""
    return "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n"


def good_config(model: Path, **changes: Any) -> str:
    """Return a config of one short step."""
    values = {
        "model": str(model),
        "dtype": "float32",
        "data": {"train": "rows.jsonl"},
        "reward": {"rubric": None, "functions": ["support.toy_rewards:share_of_letters"]},
        "lora": {"rank": 2},
        "prompts_per_step": 1,
        "num_generations": 2,
        "max_completion_length": 4,
        "max_steps": 1,
    }
    return json.dumps({**values, **changes})
