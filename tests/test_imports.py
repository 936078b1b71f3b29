"""Arrows point one way."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def imports_of(path: Path) -> set[str]:
    """The modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_the_reward_imports_the_standard_library_and_itself_alone():
    for path in (ROOT / "reward").glob("*.py"):
        roots = {name.partition(".")[0] for name in imports_of(path)}
        assert roots <= sys.stdlib_module_names | {"reward"}, path


def test_the_mathematics_imports_mlx_alone():
    roots = {name.partition(".")[0] for name in imports_of(ROOT / "mlx_grpo" / "grpo.py")}
    assert roots <= {"__future__", "typing", "mlx"}


def test_the_converters_import_nothing_of_the_training_loop():
    allowed = {"mlx_grpo", "mlx_grpo.errors", "mlx_grpo.errors.UserError"}
    for path in (ROOT / "convert").glob("*.py"):
        assert {name for name in imports_of(path) if name.startswith("mlx_grpo")} <= allowed, path


def test_nothing_below_the_trainer_imports_it():
    above = {"mlx_grpo.training.trainer", "mlx_grpo.cli", "mlx_grpo.evaluation.eval"}
    for path in (ROOT / "mlx_grpo").rglob("*.py"):
        if path.stem not in ("trainer", "cli", "compare") and path.parent.name != "commands":
            assert not imports_of(path) & above, path


def test_tasks_know_nothing_of_models():
    for path in (ROOT / "mlx_grpo" / "tasks").rglob("*.py"):
        assert not {name for name in imports_of(path) if name.partition(".")[0] == "mlx"}, path
