"""The formulas of GRPO against numbers worked out by hand."""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
import pytest

from mlx_grpo.grpo import LossConfig, group_advantages, grpo_loss, high_entropy_mask, normalize_then_sum, token_weights

MASK = mx.array([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
OLD = mx.array([[-1.0, -2.0, -0.5], [-1.0, -1.0, -1.0]])


def loss_of(
    logps: mx.array,
    advantages: list[float],
    ref_logps: mx.array | None = None,
    term_mask: mx.array | None = None,
    **settings: object,
) -> float:
    config = LossConfig(**settings)
    weights = token_weights(MASK, config.loss_type, max_completion_length=4)
    terms = grpo_loss(logps, OLD, mx.array(advantages), MASK, weights, config, ref_logps=ref_logps, term_mask=term_mask)
    return terms.loss.item()


def test_group_advantages_are_rewards_centred_and_divided_by_the_sample_deviation():
    advantages = group_advantages(mx.array([[0.0, 1.0, 0.0, 1.0]]))
    deviation = math.sqrt(4 * 0.25 / 3)  # Bessel: divided by G - 1
    np.testing.assert_allclose(
        np.array(advantages), [[s * 0.5 / (deviation + 1e-4) for s in (-1, 1, -1, 1)]], rtol=1e-6
    )


def test_unscaled_advantages_are_only_centred():
    advantages = group_advantages(mx.array([[0.0, 1.0], [3.0, 1.0]]), "none")
    np.testing.assert_allclose(np.array(advantages), [[-0.5, 0.5], [1.0, -1.0]], atol=1e-7)


def test_batch_scale_divides_by_the_deviation_of_all_rewards():
    rewards = np.array([[0.0, 1.0], [3.0, 1.0]])
    expected = (rewards - rewards.mean(axis=1, keepdims=True)) / (rewards.std(ddof=1) + 1e-4)
    np.testing.assert_allclose(np.array(group_advantages(mx.array(rewards), "batch")), expected, rtol=1e-6)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_equal_rewards_give_exactly_zero(scale: str):
    rewards = mx.array([[0.7] * 8, [0.1] * 7 + [0.3]])
    assert np.all(np.array(group_advantages(rewards, scale))[0] == 0.0)


def test_completion_without_reward_gets_zero_and_does_not_affect_its_group():
    with_gap = np.array(group_advantages(mx.array([[0.0, math.nan, 1.0]])))[0]
    without = np.array(group_advantages(mx.array([[0.0, 1.0]])))[0]
    np.testing.assert_allclose(with_gap, [without[0], 0.0, without[1]], rtol=1e-6)


def test_components_count_alike_whatever_their_scale():
    # Each component's deviations are -1, 0 and 1 of its own, in opposite order; the second weighs half.
    small, large = [0.1, 0.2, 0.3], [3000.0, 2000.0, 1000.0]
    total = normalize_then_sum(mx.array([[small], [large]]), mx.array([1.0, 0.5]))
    np.testing.assert_allclose(np.array(total), [[-0.5, 0.0, 0.5]], atol=2e-3)


def test_constant_component_adds_exactly_nothing():
    # The mean of seven 0.1 in float32 is not 0.1: divided by 1e-4, the difference would count.
    varied = np.random.default_rng(0).random((1, 2, 7)).astype(np.float32)
    constant = np.full((1, 2, 7), 0.1, np.float32)
    alone = normalize_then_sum(mx.array(varied), mx.array([1.0]))
    both = normalize_then_sum(mx.array(np.concatenate([varied, constant])), mx.array([1.0, 5.0]))
    assert mx.array_equal(alone, both)
    nothing = normalize_then_sum(mx.array(constant), mx.array([1.0]))
    assert np.all(np.array(group_advantages(nothing, "batch")) == 0.0)


def test_component_that_does_not_apply_adds_nothing_to_its_completion():
    first, second = [0.0, 1.0, math.nan, math.nan], [math.nan, 1.0, 0.0, math.nan]
    total = np.array(normalize_then_sum(mx.array([[first], [second]]), mx.array([1.0, 1.0])))[0]
    one = 0.5 / (math.sqrt(0.5) + 1e-4)
    np.testing.assert_allclose(total, [-one, 2 * one, -one, math.nan], rtol=1e-6)


def test_weights_of_each_loss_type_on_three_tokens_and_one():
    def weights(loss_type: str) -> list[list[float]]:
        return np.array(token_weights(MASK, loss_type, max_completion_length=4)).tolist()

    np.testing.assert_allclose(weights("grpo"), [[1 / 6] * 3, [1 / 2, 0, 0]], rtol=1e-6)
    np.testing.assert_allclose(weights("dapo"), [[1 / 4] * 3, [1 / 4, 0, 0]], rtol=1e-6)
    np.testing.assert_allclose(weights("dr_grpo"), [[1 / 8] * 3, [1 / 8, 0, 0]], rtol=1e-6)
    assert weights("bnpo") == weights("cispo") == weights("dapo")
    assert weights("sapo") == weights("grpo")


def test_fully_masked_row_still_counts_as_a_row():
    mask = mx.array([[1.0, 1.0], [0.0, 0.0]])
    np.testing.assert_allclose(np.array(token_weights(mask, "grpo", 4)), [[0.25, 0.25], [0, 0]])


def test_on_policy_loss_is_minus_the_weighted_mean_advantage():
    assert loss_of(OLD, [2.0, -1.0]) == pytest.approx(-(3 * 2.0 - 1.0) / 4)


def test_on_policy_gradient_is_reinforce_with_baseline():
    weights = token_weights(MASK, "dapo", 4)
    gradient = mx.grad(lambda logps: grpo_loss(logps, OLD, mx.array([2.0, -1.0]), MASK, weights).loss)(OLD)
    np.testing.assert_allclose(np.array(gradient), [[-0.5, -0.5, -0.5], [0.25, 0, 0]], atol=1e-7)


def test_ratio_above_the_range_is_clipped_where_the_advantage_is_positive():
    higher = OLD + math.log(1.5)
    assert loss_of(higher, [1.0, 1.0], epsilon=0.2, epsilon_high=0.3) == pytest.approx(-1.3, rel=1e-6)
    assert loss_of(higher, [-1.0, -1.0], epsilon=0.2, epsilon_high=0.3) == pytest.approx(1.5, rel=1e-6)


def test_ratio_below_the_range_is_clipped_where_the_advantage_is_negative():
    lower = OLD + math.log(0.5)
    assert loss_of(lower, [-1.0, -1.0], epsilon=0.2) == pytest.approx(0.8, rel=1e-6)
    assert loss_of(lower, [1.0, 1.0], epsilon=0.2) == pytest.approx(-0.5, rel=1e-6)


def test_delta_caps_the_unclipped_ratio():
    assert loss_of(OLD + math.log(5.0), [-1.0, -1.0], delta=2.0) == pytest.approx(2.0, rel=1e-6)


def test_cispo_caps_the_ratio_absolutely_and_keeps_the_gradient():
    weights = token_weights(MASK, "cispo", 4)
    logps = OLD + math.log(9.0)

    def loss(logps: mx.array) -> mx.array:
        return grpo_loss(logps, OLD, mx.array([1.0, 1.0]), MASK, weights, LossConfig("cispo", epsilon_high=5.0)).loss

    np.testing.assert_allclose(np.array(mx.grad(loss)(logps))[0], [-5 / 4] * 3, rtol=1e-6)


def test_sapo_gates_the_ratio_softly_with_a_steeper_gate_for_negative_advantages():
    assert loss_of(OLD, [1.0, 1.0], loss_type="sapo") == pytest.approx(-2.0)
    assert loss_of(OLD, [-1.0, -1.0], loss_type="sapo") == pytest.approx(2.0 / 1.05)


def test_sequence_ratio_is_the_exponential_of_the_masked_mean_difference():
    logps = OLD + mx.array([[0.1, 0.2, 0.3], [0.4, 50.0, -50.0]])
    expected = -(3 * math.exp(0.2) + math.exp(0.4)) / 4
    measured = loss_of(logps, [1.0, 1.0], importance_sampling_level="sequence", epsilon=0.9, epsilon_high=0.9)
    assert measured == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("corrected", "factor"), [(False, 1.0), (True, math.exp(0.1))])
def test_kl_is_k3_and_its_correction_multiplies_it_by_the_ratio(corrected: bool, factor: float):
    logps, difference = OLD + 0.1, 0.5
    reference = logps + difference
    k3 = math.exp(difference) - difference - 1
    measured = loss_of(logps, [0.0, 0.0], ref_logps=reference, beta=0.3, use_bias_correction_kl=corrected)
    assert measured == pytest.approx(0.3 * k3 * factor, rel=1e-5)


def test_padding_values_do_not_change_the_loss():
    wild = mx.where(MASK > 0, OLD, mx.array(1e4))
    options = {"ref_logps": mx.where(MASK > 0, OLD - 0.2, mx.array(-1e4)), "beta": 0.1}
    assert loss_of(wild, [1.0, -1.0], **options) == pytest.approx(
        loss_of(OLD, [1.0, -1.0], ref_logps=OLD - 0.2, beta=0.1), rel=1e-6
    )


@pytest.mark.parametrize("loss_type", ["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo"])
def test_losses_of_disjoint_rows_add_up_to_the_loss_of_all(loss_type: str):
    logps, advantages = OLD + mx.array([[0.3, -0.4, 0.1], [0.2, 0, 0]]), mx.array([1.5, -0.5])
    weights = token_weights(MASK, loss_type, 4)
    config = LossConfig(loss_type, epsilon_high=5.0 if loss_type == "cispo" else 0.2)
    whole = grpo_loss(logps, OLD, advantages, MASK, weights, config).loss
    parts = [
        grpo_loss(logps[r], OLD[r], advantages[r], MASK[r], weights[r], config).loss for r in (slice(0, 1), slice(1, 2))
    ]
    assert (parts[0] + parts[1]).item() == pytest.approx(whole.item(), rel=1e-6)


def test_clip_fractions_count_tokens_outside_the_range_on_the_side_that_clips():
    logps = OLD + mx.array([[math.log(1.5), 0.0, math.log(0.5)], [math.log(0.5), 0, 0]])
    terms = grpo_loss(logps, OLD, mx.array([1.0, -1.0]), MASK, token_weights(MASK, "dapo", 4))
    assert (terms.clipped_low.item(), terms.clipped_high.item()) == (1.0, 1.0)


def test_high_entropy_mask_keeps_the_upper_share_of_unmasked_tokens():
    entropies = mx.array([[0.1, 0.9, 0.5], [0.7, 99.0, 99.0]])
    kept = np.array(high_entropy_mask(entropies, MASK, 0.5))
    np.testing.assert_array_equal(kept, [[0, 1, 0], [1, 0, 0]])


def test_term_mask_hides_tokens_from_the_policy_but_not_from_the_kl():
    hidden = mx.zeros_like(MASK)
    k3 = math.exp(0.5) - 0.5 - 1
    measured = loss_of(OLD, [1.0, 1.0], ref_logps=OLD + 0.5, beta=1.0, term_mask=hidden)
    assert measured == pytest.approx(k3, rel=1e-5)
