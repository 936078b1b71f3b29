"""The evaluation's statistics by hand, and its whole path with a tiny model on both back ends."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_config
from rich.console import Console
from test_trainer import Silent

from mlx_grpo import tables
from mlx_grpo.compare import compare, print_comparison
from mlx_grpo.data import read_rows
from mlx_grpo.errors import UserError
from mlx_grpo.evaluate import paired_difference
from mlx_grpo.exporting import export_run
from mlx_grpo.trainer import train

DATA = Path(__file__).parents[1] / "mlx_grpo" / "tasks" / "data"


@pytest.fixture(scope="module")
def run(tiny_qwen3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run with a warm start, on three rows of the bundled data."""
    folder = tmp_path_factory.mktemp("run")
    for split in ("train", "heldout"):
        rows = read_rows(DATA / f"{split}.jsonl")[:3]
        for row in rows:
            row["prompt"] = [{"role": "user", "content": row["context"][:60]}]
        (folder / f"{split}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    config = tiny_config(
        tiny_qwen3,
        data={"train": str(folder)},
        warm_start={"steps": 2, "batch_size": 2},
        output_dir=str(folder / "runs"),
        eval={"episodes": 3, "max_new_tokens": 12, "batch_size": 2},
        max_completion_length=12,
    )
    return train(config, Silent())


def compared(run: Path, backend: str) -> tuple[dict, list[Path]]:
    return compare(
        str(run), backend=backend, device="cpu", episodes=None, max_new_tokens=None, progress=lambda *a: None
    )


def test_the_paired_interval_is_the_bootstrap_of_differences():
    baseline, gain = np.linspace(0, 1, 50), np.linspace(-0.1, 0.5, 50)
    interval = paired_difference(baseline, baseline + gain)
    assert interval.mean == pytest.approx(0.2)
    # Normal theory: 1.96 standard errors either side.
    error = gain.std() / np.sqrt(50)
    assert interval.low == pytest.approx(0.2 - 1.96 * error, abs=0.01)
    assert interval.high == pytest.approx(0.2 + 1.96 * error, abs=0.01)


def test_an_unchanged_model_has_an_interval_of_nothing():
    interval = paired_difference(np.array([0.1, 0.9]), np.array([0.1, 0.9]))
    assert (interval.mean, interval.low, interval.high) == (0, 0, 0)


def test_torch_and_mlx_complete_the_same_prompts_alike(run: Path):
    pytest.importorskip("torch", reason="needs torch")
    torch_results, written = compared(run, "torch")
    assert (run / "hf" / "model.safetensors").is_file()
    mlx_results, _ = compared(run, "mlx")
    for model in ("baseline", "warm start", "trained"):
        assert [e["completion"] for e in torch_results["models"][model]] == [
            e["completion"] for e in mlx_results["models"][model]
        ]
    assert {path.name for path in written} == {
        "eval.json",
        "training_curves.png",
        "baseline_vs_trained.png",
        "reward_components.png",
        "reward_distribution.png",
    }


def test_results_hold_every_episode_and_the_means_follow_from_them(run: Path):
    results, _ = compared(run, "mlx")
    saved = json.loads((run / "eval.json").read_text())
    assert saved["models"] == results["models"]
    episodes = saved["models"]["trained"]
    assert [e["prompt_id"] for e in episodes] == [row["id"] for row in read_rows(run.parents[1] / "heldout.jsonl")]
    assert saved["means"]["trained"]["reward"] == pytest.approx(np.mean([e["reward"] for e in episodes]))
    assert saved["majority_class_rate"] == pytest.approx(2 / 3)
    assert set(episodes[0]["components"]) == {
        "format_valid",
        "decision_match",
        "score_alignment",
        "reason_quality",
        "length_penalty",
        "no_hallucination",
    }


@pytest.mark.parametrize("width", [80, 120])
def test_the_tables_fit_the_terminal_and_name_every_model(run: Path, width: int):
    results, written = compared(run, "mlx")
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_comparison(console, results, written)
    text = console.export_text()
    tabled = [line for line in text.splitlines() if "┃" in line or "│" in line]
    assert all(len(line) <= width for line in tabled)
    assert all(name in text for name in ("baseline", "warm start", "trained", "reason_quality", "total"))


def test_the_export_holds_a_card_with_the_measured_tables(run: Path, tmp_path: Path):
    results, _ = compared(run, "mlx")
    folder, summary = export_run(str(run), tmp_path / "out", None)
    card = (folder / "README.md").read_text()
    assert (folder / "training_curves.png").is_file()
    assert str(run.parents[1]) not in card
    assert tables.markdown_table(*tables.headline(results)) in card
    assert "enable_thinking=False" in card
    assert "model.safetensors" in summary.files


def test_a_folder_that_is_no_run_is_told_apart(tmp_path: Path):
    with pytest.raises(UserError, match="not a run folder"):
        compared(tmp_path, "mlx")
