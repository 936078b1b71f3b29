"""What a plain `pip install` brings."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support.paths import ROOT


@pytest.mark.long
def test_a_wheel_holds_the_example_configs_the_data_and_nothing_of_the_tests(tmp_path: Path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    assert {f"mlx_grpo/configs/{path.name}" for path in (ROOT / "configs").glob("*.yaml")} <= names
    assert {f"mlx_grpo/tasks/data/{path.name}" for path in (ROOT / "mlx_grpo/tasks/data").glob("*.jsonl.gz")} <= names
    reporting = {"report.html", "report.css", "report.js", "card.md.jinja", "space.md.jinja"}
    assert {f"mlx_grpo/reporting/{name}" for name in reporting} <= names
    assert {
        "mlx_grpo/tasks/shortlist/vocabulary.json",
        "mlx_grpo/export/space.css",
        "reward/strict.py",
        "convert/hf.py",
    } <= names
    assert not {name for name in names if name.startswith(("tests/", "models/", "runs/"))}
