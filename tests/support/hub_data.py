"""Data sets on the loopback Hub, and this process as its client."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from huggingface_hub import constants
from support.hub_server import Dataset, Hub, serving

from mlx_grpo.config.schema import DataConfig
from mlx_grpo.data import hub_dataset, hub_files

SUMS = [{"question": f"What is {n} + 1?", "answer": n + 1} for n in range(5)]
TESTS = [{"question": f"What is {n} + 2?", "answer": n + 2} for n in range(3)]
ASKED: dict[str, Any] = {"train": "org/sums", "columns": {"prompt": "question"}}


def parquet(rows: Sequence[dict[str, Any]]) -> bytes:
    """Return rows as a parquet file."""
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), file)
    return file.getvalue()


def jsonl(rows: Sequence[dict[str, Any]]) -> bytes:
    """Return rows as JSONL."""
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def sums() -> Dataset:
    """Return a data set of two splits, its training rows in two files."""
    return Dataset(
        {
            "main": {
                "README.md": b"# sums",
                "data/train-00000-of-00002.parquet": parquet(SUMS[:3]),
                "data/train-00001-of-00002.parquet": parquet(SUMS[3:]),
                "data/test-00000-of-00001.parquet": parquet(TESTS),
            }
        }
    )


def forget() -> None:
    """Forget what this process asked the Hub, as a new command would."""
    hub_files.find_split.cache_clear()
    hub_dataset._rows_file.cache_clear()


@contextmanager
def as_client(home: Path) -> Iterator[Hub]:
    """Serve a Hub with org/sums, and ask it with a home and a cache of one's own, without a token."""
    with serving() as hub, pytest.MonkeyPatch.context() as patch:
        hub.datasets["org/sums"] = sums()
        point_to(hub.url, home, patch)
        forget()
        yield hub
    forget()


def point_to(endpoint: str, home: Path, patch: pytest.MonkeyPatch) -> None:
    """Have huggingface_hub ask another endpoint, with a home of one's own."""
    patch.setattr(constants, "ENDPOINT", endpoint)
    files = f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
    patch.setattr(constants, "HF_HOME", str(home))
    patch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    patch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    patch.delenv("HF_TOKEN", raising=False)
    patch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)


def data_config(**changes: Any) -> DataConfig:
    """Return the section `data` that reads org/sums."""
    return DataConfig(**{**ASKED, **changes})
