"""Rows that begin alike share that beginning, at any depth, and get the gradients of plain rows."""

from __future__ import annotations

import gc
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from support.logps_cases import count_tokens, gradients, logps
from support.tiny_models import tiny_policy

from mlx_grpo.data.batch import make_batch, make_supervised_batch
from mlx_grpo.data.types import Batch, Prompt, Rollout
from mlx_grpo.generation.nodes import prefill
from mlx_grpo.models.logps import score_tree
from mlx_grpo.models.tree import Node, common_start, rows_in_order, token_tree

Ids = tuple[int, ...]
FULL = {"fine_tune_type": "full", "lora": {}}


def random_ids(*lengths: int) -> list[Ids]:
    rng = np.random.default_rng(3)
    return [tuple(rng.integers(0, 250, length).tolist()) for length in lengths]


SYSTEM, JOB, OTHER_JOB, *PEOPLE = random_ids(40, 50, 35, 20, 34, 3, 12)
ANSWERS = random_ids(4, 9, 2, 6, 1, 17, 5, 3)


def prompts_of_two_jobs() -> list[Prompt]:
    """Two candidates of each of two jobs, and a prompt with nothing in common, in a mixed order."""
    jobs = (SYSTEM + JOB, SYSTEM + OTHER_JOB)
    ids = [jobs[0] + PEOPLE[0], jobs[1] + PEOPLE[1], PEOPLE[3], jobs[0] + PEOPLE[2], jobs[1] + PEOPLE[0]]
    return [Prompt(str(n), "", prompt) for n, prompt in enumerate(ids)]


def groups(size: int = 3, shared: Ids = ()) -> Batch:
    """Return groups of completions of these prompts, with advantages of both signs."""
    prompts = [Prompt(p.id, "", p.token_ids, shared_prefix_ids=shared) for p in prompts_of_two_jobs()]
    rows = [Rollout(p, ANSWERS[(n + i) % 8], "", "stop") for n, p in enumerate(prompts) for i in range(size)]
    return make_batch(rows, mx.array(np.random.default_rng(0).normal(size=(len(prompts), size))))


def outline(node: Node) -> tuple:
    """Return a tree as nested tuples: tokens of the node, its children by size, and the sorted rows of its parts."""
    children = sorted(outline(child) for child in node.children)
    return len(node.token_ids), children, [tuple(sorted(part.rows)) for part in node.parts]


def assert_exact(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Fail where a gradient differs from the expected one by 1e-5 of its largest number."""
    for name, gradient in expected.items():
        np.testing.assert_allclose(actual[name], gradient, rtol=0, atol=1e-5 * np.abs(gradient).max(), err_msg=name)
        assert gradient.any(), name


def test_tree_has_a_node_for_the_instruction_each_job_and_each_group():
    job = (50, [(2, [], [(6, 7)]), (19, [], [(0, 1)])], [])
    other_job = (35, [(19, [], [(8, 9)]), (33, [], [(2, 3)])], [])
    alone = (11, [], [(4, 5)])
    assert outline(token_tree(groups(2), 2)) == (0, [alone, (40, [other_job, job], [])], [])


def test_batch_is_freed_with_its_tree_and_waits_for_no_garbage_collection(tiny_qwen3: Path):
    policy = tiny_policy(tiny_qwen3)
    gc.collect()
    gc.disable()
    try:
        score_tree(policy.model, token_tree(groups(2), 2))
        prefill(policy.model, [prompt.token_ids for prompt in prompts_of_two_jobs()])
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_rows_of_single_completions_are_run_together_after_their_job():
    tree = token_tree(make_supervised_batch(prompts_of_two_jobs(), ANSWERS[:5]))
    assert outline(tree) == (0, [(40, [(35, [], [(1, 4)]), (50, [], [(0, 3)])], [])], [(2,)])


def test_every_row_is_in_one_part_of_at_most_so_many_rows():
    for size in (1, 2, 3, 4, 100):
        parts = list(token_tree(groups(), size).every_part())
        assert sorted(row for part in parts for row in part.rows) == list(range(15))
        assert max(part.mask.shape[0] for part in parts) == min(size, 3)


def test_some_rows_or_none_of_a_batch_have_a_tree_of_their_own():
    tree = token_tree(groups(), rows=[0, 1, 9, 10, 11])
    assert outline(tree) == (0, [(90, [(2, [], [(9, 10, 11)]), (19, [], [(0, 1)])], [])], [])
    assert list(token_tree(groups(), rows=[]).every_part()) == []
    assert list(token_tree(groups(), rows=[], share=False).every_part()) == []


def test_rows_in_order_keep_a_jobs_rows_together():
    places = [row // 3 for row in rows_in_order(groups())]
    runs = [places[n] for n in range(len(places)) if n == 0 or places[n] != places[n - 1]]
    assert sorted(runs) == [0, 1, 2, 3, 4]
    assert abs(runs.index(0) - runs.index(3)) == 1
    assert abs(runs.index(1) - runs.index(4)) == 1


def test_fewer_common_tokens_than_a_pass_is_worth_are_not_shared():
    first, second, start = random_ids(9, 5, 31)
    batch = make_supervised_batch([Prompt("a", "", start + first), Prompt("b", "", start + second)], ANSWERS[:2])
    assert outline(token_tree(batch)) == (0, [], [(0, 1)])
    assert common_start([start + first, start + second]) == 0
    assert common_start([(*start, 1, *first), (*start, 1, *second)]) == 32


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("changes", [{}, FULL], ids=["lora", "full"])
@pytest.mark.parametrize("options", [{}, {"checkpointing": True}, {"evaluate_each": True}], ids=str)
def test_tree_gives_the_gradient_of_plain_rows(tiny_qwen3: Path, rows: int, changes: dict, options: dict):
    policy, batch = tiny_policy(tiny_qwen3, **changes), groups()
    assert_exact(gradients(policy, batch, rows=rows, **options), gradients(policy, batch, share=False))


def test_tree_gives_the_gradient_of_plain_rows_with_branched_groups(tiny_llama: Path):
    policy, batch = tiny_policy(tiny_llama), groups(shared=PEOPLE[2])
    assert_exact(gradients(policy, batch), gradients(policy, batch, share=False))


def test_tree_of_examples_gives_the_gradient_of_plain_rows(tiny_qwen3: Path):
    policy, batch = tiny_policy(tiny_qwen3), make_supervised_batch(prompts_of_two_jobs(), ANSWERS[:5])
    assert_exact(gradients(policy, batch), gradients(policy, batch, share=False))
    np.testing.assert_allclose(logps(policy, batch), logps(policy, batch, share=False), atol=1e-5)


def test_tree_gives_the_logps_of_plain_rows(tiny_llama: Path):
    policy, batch = tiny_policy(tiny_llama), groups()
    np.testing.assert_allclose(logps(policy, batch), logps(policy, batch, share=False), atol=1e-5)


@pytest.mark.parametrize("evaluate_each", [False, True])
def test_each_node_is_run_once_each_way(tiny_qwen3: Path, evaluate_each: bool, monkeypatch: pytest.MonkeyPatch):
    policy, batch = tiny_policy(tiny_qwen3), groups()
    passes = count_tokens(policy.model, monkeypatch)
    gradients(policy, batch, evaluate_each=evaluate_each)
    nodes = 40 + 50 + 35 + 19 + 33 + 2 + 19 + 11
    completions = sum(3 * 16 * -(-max(map(len, (ANSWERS[(n + i) % 8] for i in range(3)))) // 16) for n in range(5))
    assert sum(passes) == nodes * (2 if evaluate_each else 1) + completions  # again forward where each is evaluated


@pytest.mark.parametrize("checkpointing", [False, True])
def test_dropout_is_the_same_in_both_ways_to_evaluate(tiny_qwen3: Path, checkpointing: bool):
    policy, batch = tiny_policy(tiny_qwen3, lora={"rank": 4, "dropout": 0.5}), groups()

    def run(evaluate_each: bool, seed: int = 5) -> dict[str, np.ndarray]:
        mx.random.seed(seed)
        return gradients(policy, batch, evaluate_each=evaluate_each, checkpointing=checkpointing)

    kept = run(False)
    assert_exact(run(True), kept)
    name = next(iter(kept))
    assert np.abs(run(False, 6)[name] - kept[name]).max() > 0.1 * np.abs(kept[name]).max()
