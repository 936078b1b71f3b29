"""The memory check before a run: its prediction, its measurement, its remedy, and that it changes nothing."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from support.tiny_models import tiny_config
from support.tiny_runs import NoteReporter, make_state, rows_file
from support.toy_run import contents

from mlx_grpo.config.schema import Config
from mlx_grpo.data.dataset import load_prompts
from mlx_grpo.errors import UserError
from mlx_grpo.models.tree import common_start
from mlx_grpo.planning.memory import Lengths, Workload, estimate
from mlx_grpo.planning.remedy import cheapest_change
from mlx_grpo.training import measure
from mlx_grpo.training.measure import check_memory, longest_batch, longest_prompts, measured, workload
from mlx_grpo.training.state import TrainState
from mlx_grpo.training.trainer import train


def config_of(model: Path, folder: Path, **changes: object) -> Config:
    settings = {
        "data": {"train": rows_file(folder, completion="an answer")},
        "reward": {"rubric": None, "functions": ["support.toy_rewards:share_of_letters"]},
        "output_dir": str(folder / "runs"),
        "max_completion_length": 8,
        "lora": {"rank": 4, "dropout": 0.1},
        "beta": 0.1,
        "num_iterations": 2,
        "warm_start": {"steps": 2, "batch_size": 2},
        **changes,
    }
    return tiny_config(model, **settings)


def loaded(config: Config) -> tuple[TrainState, Workload]:
    state = make_state(config)
    return state, workload(state, load_prompts(Path(config.data.train), state.policy.tokenizer))


def set_limit(monkeypatch: pytest.MonkeyPatch, available: float) -> None:
    monkeypatch.setattr(measure, "available_memory", lambda: available)


def peak_of(work: Workload) -> int:
    return estimate(work.sizes, work.config, work.lengths, work.fused).peak


def check(state: TrainState, work: Workload, **options: bool) -> list[str]:
    """Check a run's memory; return its notes."""
    notes = NoteReporter()
    check_memory(state, load_prompts(Path(work.config.data.train), state.policy.tokenizer), notes.note, **options)
    return notes.lines


@pytest.mark.parametrize(
    ("share", "measured_share", "words"),
    [
        (0.7, None, ["fits"]),
        (0.9, 0.95, ["fits", "to measure it", "fits"]),
        (0.9, 1.05, ["fits", "to measure it", "does not fit"]),
        (1.4, 0.95, ["may not fit", "to measure it", "fits"]),
        (1.4, 1.05, ["may not fit", "to measure it", "does not fit"]),
        (1.6, None, ["does not fit"]),
    ],
)
def test_check_measures_near_the_limit_and_refuses_what_does_not_fit(
    share: float,
    measured_share: float | None,
    words: list[str],
    tiny_qwen3: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    state, work = loaded(config_of(tiny_qwen3, tmp_path))
    limit = peak_of(work) / share
    set_limit(monkeypatch, limit)

    def measured_peak(state: TrainState, work: Workload, predicted: measure.Estimate) -> measure.Estimate:
        assert measured_share is not None
        few = dict.fromkeys(predicted.phases, 1)
        return predicted.with_measured({**few, "gradient": round(measured_share * limit)})

    monkeypatch.setattr(measure, "measured", measured_peak)
    if words[-1] == "fits":
        lines = check(state, work)
    else:
        with pytest.raises(UserError, match=r"does not fit; (set \w+=.*|take a smaller model), or train .* --force"):
            check(state, work)
        *lines, last = check(state, work, force=True)
        assert last.startswith("memory: training regardless with --force; to fit, ")
    assert len(lines) == len(words)
    assert all(line.startswith("memory: ") and line.endswith(word) for line, word in zip(lines, words, strict=True))
    if measured_share is not None:
        assert "measured at the peak (gradient)" in lines[2]


def test_measured_run_has_the_same_bits_as_one_that_was_not(
    tiny_qwen3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = config_of(tiny_qwen3, tmp_path, max_steps=2, branch_at="a", dynamic_sampling=1)
    _, work = loaded(config)
    runs = []
    for limit in (peak_of(work) * 2, peak_of(work) / 1.4):
        set_limit(monkeypatch, limit)
        reporter = NoteReporter()
        runs.append(contents(train(config, reporter, force=True).folder))
        assert any(" measured at the peak" in line for line in reporter.lines) == (limit < peak_of(work))
    assert runs[0] == runs[1]


@pytest.mark.parametrize(
    "changes", [{}, {"fine_tune_type": "full", "lora": {}, "gradient_checkpointing": True}], ids=str
)
def test_measuring_restores_parameters_random_states_and_memory(changes: dict, tiny_qwen3: Path, tmp_path: Path):
    state, work = loaded(config_of(tiny_qwen3, tmp_path, micro_batch_size=1, **changes))
    predicted = estimate(work.sizes, work.config, work.lengths, work.fused)

    def draws() -> list[float]:
        return [random.random(), float(np.random.rand()), mx.random.uniform().item()]

    measured(state, work, predicted)  # the first one leaves compiled kernels
    parameters = tree_flatten(state.policy.model.parameters())
    active = mx.get_active_memory()
    for seed in (random.seed, np.random.seed, mx.random.seed):
        seed(5)
    expected = draws()
    for seed in (random.seed, np.random.seed, mx.random.seed):
        seed(5)
    measured(state, work, predicted)
    assert draws() == expected
    assert mx.get_active_memory() == pytest.approx(active, abs=1000)
    after = tree_flatten(state.policy.model.parameters())
    assert all(old is new for (_, old), (_, new) in zip(parameters, after, strict=True))
    assert not state.policy.model.training
    assert "step" not in state.optimizer.state or state.optimizer.state["step"].item() == 0


def test_moments_reference_and_other_gradients_are_added_by_count(
    tiny_qwen3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(measure, "peak_while", lambda run: 1000)
    expected = {  # in copies of the trained weights: GRPO's gradient, and the warm start's
        (("prompts_per_step", 1), ("beta", 0.0), ("micro_batch_size", None)): (2, 2),
        (("prompts_per_step", 1), ("beta", 0.1), ("micro_batch_size", 1)): (3, 3),
        (("prompts_per_step", 2), ("beta", 0.1), ("micro_batch_size", None)): (4, 2),
        (("prompts_per_step", 2), ("beta", 0.1), ("micro_batch_size", 8)): (4, 2),
    }
    for changes, copies in expected.items():
        state, work = loaded(config_of(tiny_qwen3, tmp_path, num_generations=4, **dict(changes)))
        needs = measured(state, work, estimate(work.sizes, work.config, work.lengths, work.fused))
        weights = 4 * work.sizes.trainable
        assert needs.measured == ("gradient", "warm start")
        assert tuple(needs.phases[phase] for phase in needs.measured) == tuple(1000 + n * weights for n in copies)


def test_measured_prompts_share_what_the_runs_prompts_share():
    for shared in (0, 40):
        ids = [prompt.token_ids for prompt in longest_prompts(Lengths(100, 3, shared), 3)]
        assert [len(row) for row in ids] == [100, 100, 100]
        assert common_start(ids) == shared


def test_measured_batch_is_a_group_or_the_rows_of_several_where_each_row_runs_its_own_prompt(
    tiny_qwen3: Path, tmp_path: Path
):
    for rows, shares, prompts in ((None, True, 1), (1, True, 1), (100, True, 1), (8, False, 2), (100, False, 3)):
        config = config_of(tiny_qwen3, tmp_path, num_generations=4, micro_batch_size=rows, prompts_per_step=3)
        _, work = loaded(config)
        work = replace(work, sizes=replace(work.sizes, shares_prompt=shares))
        batch = longest_batch(work)
        assert [ids.size for ids in batch.prompt_ids] == [work.lengths.prompt] * prompts
        assert batch.mask.sum().item() == prompts * 4 * config.max_completion_length


def test_named_change_fits_by_the_measured_peak(tiny_qwen3: Path, tmp_path: Path):
    config = config_of(tiny_qwen3, tmp_path, num_generations=16, max_completion_length=64, warm_start={}, beta=0.0)
    state, work = loaded(config)
    limit = estimate(work.sizes, config, work.lengths, work.fused).phases["gradient"] - 1
    ratios = ({"gradient": ratio} for ratio in (1.0, 2.0, 1000.0))
    named = [cheapest_change(state.policy.base, work, limit, ratio) for ratio in ratios]
    assert named == ["micro_batch_size=8", "micro_batch_size=4", None]
