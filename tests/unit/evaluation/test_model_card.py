"""The model card of an export, before and after an evaluation."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from support.tiny_runs import evaluate

from mlx_grpo.export.export import export_run
from mlx_grpo.reporting import tables


def test_export_after_the_evaluation_has_a_card_with_its_tables(run: Path, tmp_path: Path):
    evaluation = evaluate(run, "mlx")
    folder, summary = export_run(str(run), ["hf"], tmp_path / "out")
    card = (folder / "README.md").read_text()
    assert (folder / "training_curves.png").is_file()
    assert str(run.parents[1]) not in card
    assert tables.markdown_table(*tables.headline(evaluation.results)) in card
    assert "enable_thinking=False" in card
    assert "model.safetensors" in summary.files


def test_export_before_the_evaluation_has_a_card_with_its_tables_after_it(run: Path, tmp_path: Path):
    copied = Path(shutil.copytree(run, tmp_path / "copied", ignore=shutil.ignore_patterns("hf*", "eval.json", "plots")))
    assert evaluate(copied, "mlx").card is None  # there is no export yet
    (copied / "eval.json").unlink()
    shutil.rmtree(copied / "plots")
    export_run(str(copied), ["hf"], verify=False)
    card = copied / "hf" / "README.md"
    assert "Not evaluated yet." in card.read_text()
    evaluation = evaluate(copied, "mlx")
    assert evaluation.card == card
    assert tables.markdown_table(*tables.headline(evaluation.results)) in card.read_text()
    assert (copied / "hf" / "before_after.png").is_file()


def test_export_of_an_older_adapter_keeps_its_card(run: Path, tmp_path: Path):
    copied = Path(shutil.copytree(run, tmp_path / "copied", ignore=shutil.ignore_patterns("hf*")))
    export_run(str(copied), ["hf"], verify=False)
    before = (copied / "hf" / "README.md").read_text()
    later = (copied / "hf" / "export.json").stat().st_mtime + 1
    os.utime(copied / "adapter" / "adapters.safetensors", (later, later))
    assert evaluate(copied, "mlx", episodes=2).card is None
    assert (copied / "hf" / "README.md").read_text() == before


def test_model_exported_for_the_evaluation_has_no_card(run: Path, tmp_path: Path):
    pytest.importorskip("torch", reason="needs torch")
    copied = Path(shutil.copytree(run, tmp_path / "copied", ignore=shutil.ignore_patterns("hf*")))
    evaluate(copied, "torch", out=tmp_path / "out")
    assert (copied / "hf" / "model.safetensors").is_file()
    assert not list(copied.glob("hf*/README.md"))
