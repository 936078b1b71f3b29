"""The loop learns what is rewarded, and micro-batches add up."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from support.tiny_models import TEMPLATE, THINKING_TEMPLATE, tiny_config, tiny_policy, with_template
from support.tiny_runs import NoteReporter, make_state, reward_by, rewards_over, rows_file, take_step

from mlx_grpo import grpo, runs
from mlx_grpo.data.batch import make_batch
from mlx_grpo.data.dataset import make_prompt
from mlx_grpo.data.types import Batch
from mlx_grpo.distributed.ranks import Ranks
from mlx_grpo.errors import UserError
from mlx_grpo.evaluation.episodes import heldout_prompts
from mlx_grpo.generation.rollout import generate
from mlx_grpo.generation.sampling import Sampling
from mlx_grpo.models.logps import score_tokens
from mlx_grpo.models.policy import load_policy
from mlx_grpo.ranking.model import find_ranking_model
from mlx_grpo.rewards import load_reward
from mlx_grpo.training import trainer
from mlx_grpo.training.checkpoint import load_checkpoint
from mlx_grpo.training.progress import SilentReporter
from mlx_grpo.training.state import TrainState, grpo_optimizer
from mlx_grpo.training.trainer import grpo_steps, train
from mlx_grpo.training.update import FixedLogps, entropy_mask, loss_gradients, update_policy


def test_policy_learns_to_write_rewarded_letters(tiny_qwen3: Path):
    shares = rewards_over(tiny_qwen3, 25, "share_of_letters")
    assert np.mean(shares[:2]) < 0.15
    assert np.mean(shares[-3:]) > 0.9


def test_negated_advantages_unlearn_the_letters(tiny_qwen3: Path, monkeypatch: pytest.MonkeyPatch):
    original = grpo.group_advantages
    steps = []

    def negated_after_nine(rewards: mx.array, scale: str) -> mx.array:
        steps.append(1)
        return original(rewards, scale) if len(steps) <= 9 else -original(rewards, scale)

    monkeypatch.setattr(trainer, "group_advantages", negated_after_nine)
    shares = rewards_over(tiny_qwen3, 25, "share_of_letters")
    assert max(shares[7:11]) > 0.3
    assert np.mean(shares[-3:]) < 0.05


def test_large_beta_keeps_the_policy_near_its_reference(tiny_qwen3: Path):
    assert np.mean(rewards_over(tiny_qwen3, 25, "share_of_letters", beta=10.0)[-5:]) < 0.15


def test_equal_rewards_leave_the_policy_unchanged(tiny_qwen3: Path):
    config = tiny_config(tiny_qwen3, reward=reward_by("constant"))
    state = make_state(config)
    before = dict(tree_flatten(state.policy.model.trainable_parameters()))
    prompts = [make_prompt({"id": "0", "prompt": "hi"}, state.policy.tokenizer)]
    metrics, _, _ = take_step(state, prompts, 0)
    after = dict(tree_flatten(state.policy.model.trainable_parameters()))
    assert all(mx.array_equal(before[name], after[name]) for name in before)
    assert metrics["frac_reward_zero_std"] == 1.0
    assert metrics["grad_norm"] == 0.0


def test_zero_variance_groups_are_redrawn_and_the_rest_dropped(tiny_qwen3: Path):
    settings = {"reward": reward_by("constant_on_even_rows"), "prompts_per_step": 4}
    tokenizer = load_policy(tiny_config(tiny_qwen3)).tokenizer
    rows = [{"id": str(i), "prompt": f"say {i}", "parity": i % 2} for i in range(12)]
    prompts = [make_prompt(row, tokenizer) for row in rows]
    plain, _, _ = take_step(make_state(tiny_config(tiny_qwen3, **settings)), prompts, 0)
    state = make_state(tiny_config(tiny_qwen3, dynamic_sampling=2, **settings))
    metrics, rollouts, scores = take_step(state, prompts, 0)
    assert plain["frac_reward_zero_std"] > 0
    assert plain["groups/redrawn"] == plain["groups/dropped"] == 0
    assert metrics["groups/redrawn"] > 0
    assert metrics["frac_reward_zero_std"] < plain["frac_reward_zero_std"]
    assert metrics["groups/dropped"] == round(metrics["frac_reward_zero_std"] * 4)
    assert (
        load_reward(state.config.reward)(
            [r.prompt for r in rollouts], [r.completion for r in rollouts]
        ).rewards.tolist()
        == scores.rewards.tolist()
    )


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "dr_grpo"])
@pytest.mark.parametrize("beta", [0.0, 0.2])
def test_any_micro_batch_size_gives_the_same_gradient(tiny_qwen3: Path, loss_type: str, beta: float):
    config = tiny_config(tiny_qwen3, loss_type=loss_type, beta=beta, reward=reward_by("share_of_letters"))
    policy = tiny_policy(tiny_qwen3)
    prompts = [make_prompt({"id": t, "prompt": t}, policy.tokenizer) for t in ("one", "and another")]
    rollouts = generate(policy, prompts, 4, Sampling(9), seed=2)
    batch = make_batch(rollouts, mx.array([[1.0, -1.0, 0.5, -0.5], [0.0, 2.0, -1.0, -1.0]]))
    reference = mx.random.normal(batch.mask.shape) * 0.1 - 3.0 if beta else None
    state = TrainState(policy, config, load_reward(config.reward), grpo_optimizer(config), None)
    found = []
    for rows in (8, 4, 2, 1):
        config = config.model_copy(update={"micro_batch_size": rows})
        logps = FixedLogps(None, reference)
        gradients, metrics = loss_gradients(replace(state, config=config), batch, logps)
        found.append((dict(tree_flatten(gradients)), metrics))
    for gradients, metrics in found[1:]:
        assert metrics["loss"] == pytest.approx(found[0][1]["loss"], rel=1e-5, abs=1e-6)
        for name, wanted in found[0][0].items():
            wanted = np.array(wanted)
            np.testing.assert_allclose(np.array(gradients[name]), wanted, atol=1e-5 * np.abs(wanted).max())


def test_sampler_and_trainer_agree_on_log_probabilities(tiny_qwen3: Path):
    state = make_state(tiny_config(tiny_qwen3, reward=reward_by("share_of_letters"), temperature=0.8, top_p=0.9))
    prompts = [make_prompt({"id": "0", "prompt": "hi"}, state.policy.tokenizer)]
    metrics, _, _ = take_step(state, prompts, 0)
    assert metrics["sampling/sampling_logp_difference/max"] < 1e-4


def test_entropy_mask_is_of_sampled_entropies_first_and_recomputed_later(tiny_qwen3: Path):
    state = make_state(tiny_config(tiny_qwen3, reward=reward_by("share_of_letters"), top_entropy_quantile=0.2))
    prompts = [make_prompt({"id": text, "prompt": text}, state.policy.tokenizer) for text in ("one", "another")]
    batch = make_batch(generate(state.policy, prompts, 4, Sampling(9)), mx.array([[1.0, -1.0, 2.0, -2.0]] * 2))
    scored = score_tokens(state.policy.model, batch).entropies
    least = replace(batch, sampled_entropies=-scored)

    def gradient_norm(batch: Batch, iteration: int = 0) -> float:
        loss = loss_gradients(state, batch, FixedLogps(None, None), entropy_mask(state, batch, iteration))
        return update_policy(state, loss, 0.0)["grad_norm"]  # at rate 0 the policy stays

    most = gradient_norm(batch)
    assert most == pytest.approx(gradient_norm(replace(batch, sampled_entropies=scored)), rel=1e-4)
    assert most != pytest.approx(gradient_norm(least), rel=0.05)
    assert gradient_norm(least, iteration=1) == pytest.approx(most, rel=1e-4)


def test_step_keeps_no_gradient_in_memory(tiny_qwen3: Path):
    config = tiny_config(tiny_qwen3, reward=reward_by("share_of_letters"), fine_tune_type="full", lora={})
    state = make_state(config)
    prompts = [make_prompt({"id": "0", "prompt": "hi"}, state.policy.tokenizer)]
    steps = grpo_steps(state, prompts, [0, 1])
    next(steps)
    paused = mx.get_active_memory()
    steps.close()
    weights = sum(w.nbytes for _, w in tree_flatten(state.policy.model.trainable_parameters()))
    assert paused - mx.get_active_memory() < weights / 10


def test_run_writes_config_metrics_samples_and_adapter(tiny_qwen3: Path, tmp_path: Path):
    data = {"train": rows_file(tmp_path, completion="aaa")}
    config = tiny_config(
        tiny_qwen3,
        data=data,
        reward=reward_by("share_of_letters"),
        output_dir=str(tmp_path / "runs"),
        warm_start={"steps": 3, "batch_size": 2, "learning_rate": 1e-2},
        beta=0.04,
    )
    reporter = NoteReporter()
    run = train(config, reporter).folder
    assert sum("6 of 6 prompts are plain text" in note for note in reporter.lines) == 1
    assert (tmp_path / "runs" / "latest").resolve() == run.resolve()
    assert runs.Run(run).config == config
    metrics = runs.read_jsonl(run / runs.METRICS)
    assert [m["step"] for m in metrics] == [0, 1, 2, 0, 1]
    assert metrics[2]["loss"] < metrics[0]["loss"]
    named = {"reward", "reward_std", "rewards/share_of_letters/mean", "frac_reward_zero_std", "completions/mean_length"}
    named |= {"completions/clipped_ratio", "kl", "entropy", "clip_ratio/low_mean", "clip_ratio/high_mean", "grad_norm"}
    named |= {"learning_rate", "step_time", "num_tokens", "peak_memory_gb", "loss"}
    assert named <= metrics[-1].keys()
    samples = runs.read_jsonl(run / runs.SAMPLES)
    assert len(samples) == 2 * 2 * 4
    assert samples[0].keys() >= {"step", "prompt_id", "completion", "reward", "rewards"}
    for folder in (runs.WARM_START, runs.ADAPTER):
        assert (run / folder / "adapters.safetensors").is_file()


def test_a_template_that_opens_the_thought_trains_and_the_limit_names_it(tiny_qwen3: Path, tmp_path: Path):
    prompt = [{"role": "user", "content": "say 1"}]
    config = tiny_config(
        with_template(tiny_qwen3, tmp_path / "r1", THINKING_TEMPLATE),
        data={"train": rows_file(tmp_path, prompt=prompt), "enable_thinking": True},
        reward=reward_by("share_of_letters"),
        output_dir=str(tmp_path / "runs"),
        max_steps=1,
    )
    reporter = NoteReporter()
    run = train(config, reporter)
    assert run.metrics()[0]["completions/cut_in_thought"] > 0.5
    assert any("cut off at 8 tokens, 100% inside their thought" in note for note in reporter.lines)
    assert not any("plain text" in note for note in reporter.lines)
    assert all(sample["prompt_opens_thought"] for sample in run.samples())


def test_same_seed_gives_the_same_samples_and_adapter_bit_for_bit(tiny_qwen3: Path, tmp_path: Path):
    def one(name: str) -> tuple[str, bytes]:
        data = {"train": rows_file(tmp_path)}
        config = tiny_config(
            tiny_qwen3,
            data=data,
            reward=reward_by("share_of_letters"),
            output_dir=str(tmp_path / name),
            lora={"dropout": 0.1},
        )
        run = train(config, SilentReporter()).folder
        return (run / runs.SAMPLES).read_text(), (run / runs.ADAPTER / "adapters.safetensors").read_bytes()

    assert one("a") == one("b")


def test_failing_reward_function_loses_no_step(tiny_qwen3: Path, tmp_path: Path):
    config = tiny_config(
        tiny_qwen3,
        data={"train": rows_file(tmp_path)},
        reward=reward_by("fails_in_step_two"),
        output_dir=str(tmp_path / "runs"),
        save_steps=50,
    )
    with pytest.raises(UserError) as caught:
        train(config, SilentReporter())
    fault, advice = caught.value.problems
    assert "fails_in_step_two returned 1e+39" in fault
    assert "stopped after step 1 of grpo, all saved; continue with: mlx-grpo train" in advice
    run = runs.Run.find(tmp_path / "runs" / "latest")
    with run.locked():
        state, _, _ = trainer.prepare(config, Ranks())
        assert load_checkpoint(run, state, print).position.steps == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warm_start": {"steps": 1}}, "has no `completion` to imitate"),
        ({"max_completion_length": 600}, "exceed the model's context of 512"),
        ({"data": {"train": "absent.jsonl"}}, "no such file"),
        ({"reward": {"rubric": "strict"}}, "has no decision, score, facts"),
        ({"lora": {"keys": ["no_such_layer"]}}, "matches no linear layer"),
    ],
)
def test_mistakes_are_reported_before_a_run_folder_is_made(
    tiny_qwen3: Path, tmp_path: Path, changes: dict, message: str
):
    settings = {"data": {"train": rows_file(tmp_path)}, "reward": reward_by("share_of_letters"), **changes}
    with pytest.raises(UserError, match=message):
        train(tiny_config(tiny_qwen3, output_dir=str(tmp_path / "runs"), **settings), SilentReporter())
    assert not (tmp_path / "runs").exists()


def test_a_run_keeps_the_date_of_its_first_day(tiny_qwen3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Clock(date):
        day = date(2026, 1, 31)

        @classmethod
        def today(cls) -> date:
            return cls.day

    monkeypatch.setattr(trainer, "date", Clock)
    starts: list[str] = []
    monkeypatch.setattr(trainer, "check_columns", lambda _, prompts: starts.append(prompts[0].text[:10]))
    data = {"train": rows_file(tmp_path, prompt=[{"role": "user", "content": "hi"}])}
    model = with_template(tiny_qwen3, tmp_path / "m", "{{ strftime_now('%Y-%m-%d') }}" + TEMPLATE)
    config = tiny_config(
        model,
        data={**data, "heldout": data["train"]},
        reward=reward_by("share_of_letters"),
        output_dir=str(tmp_path / "runs"),
        max_steps=1,
    )
    run = train(config, SilentReporter())
    monkeypatch.setattr(Clock, "day", date(2026, 2, 1))
    train(config.model_copy(update={"max_steps": 2}), SilentReporter(), runs.Run(run.folder))
    assert starts == ["2026-01-31"] * 2
    assert heldout_prompts(runs.Run(run.folder))[0].text.startswith("2026-01-31")
    assert find_ranking_model(str(run.folder), "compact").settings.today == "2026-01-31"
