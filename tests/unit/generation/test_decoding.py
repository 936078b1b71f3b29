"""Rows that share a prompt decode as if each had run it by itself, whichever rows and groups end first."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from support.tiny_models import tiny_policy

from mlx_grpo.backend import exponential
from mlx_grpo.generation import decoding, nodes
from mlx_grpo.generation.decoding import SharedRows, decoding_rows
from mlx_grpo.generation.nodes import prefill, shared_start
from mlx_grpo.models.policy import Policy


@pytest.fixture(scope="module", params=["tiny_qwen3", "tiny_llama"])
def policy(request: pytest.FixtureRequest) -> Policy:
    return tiny_policy(request.getfixturevalue(request.param))


@pytest.fixture(params=["prompts of one row", "short prompts", "short prompts, as on a GPU"])
def copied(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy the prompts that one row continues, or also those that are short; attend by MLX's function, or not."""
    if request.param == "prompts of one row":
        monkeypatch.setattr(decoding, "COPIED_TOKENS", 0)
    if request.param == "short prompts, as on a GPU":
        monkeypatch.setattr(exponential, "SLOW_EXP", False)


@pytest.fixture
def no_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy no prompt that several rows continue."""
    monkeypatch.setattr(decoding, "COPIED_TOKENS", 0)


def random_ids(*lengths: int) -> list[tuple[int, ...]]:
    rng = np.random.default_rng(0)
    return [tuple(rng.integers(0, 250, n).tolist()) for n in lengths]


def check_decoding(
    policy: Policy, prompts: list[tuple[int, ...]], leaving: list[list[int]], added: dict[int, list] | None = None
) -> SharedRows:
    """Decode random tokens; at each position some rows leave and others come. Every logit is that of the row alone."""
    rows = decoding_rows(policy.model, len(leaving) + 1)
    rows.add([ids for ids in prompts for _ in range(2)])
    sequences = [list(ids) for ids in prompts for _ in range(2)]
    rng = np.random.default_rng(1)
    for position, seats in enumerate([*leaving, []]):
        logits = policy.model(mx.array([s[-1] for s in sequences])[:, None], cache=rows.caches)[:, -1]
        for row, sequence in enumerate(sequences):
            alone = policy.model(mx.array([sequence]))[0, -1]
            np.testing.assert_allclose(np.array(logits[row]), np.array(alone), atol=1e-4)
        kept = [seat for seat in range(len(sequences)) if seat not in seats]
        if len(kept) < len(sequences):
            rows.keep(kept)
        sequences = [[*sequences[seat], int(rng.integers(0, 250))] for seat in kept]
        more = (added or {}).get(position, [])
        if more:
            rows.add(more)
            sequences += map(list, more)
    return rows


@pytest.mark.parametrize(
    ("lengths", "leaving"),
    [
        ((6, 6), [[], [0], [0, 1]]),  # groups of one length: no mask
        ((5, 1, 9), [[], [4], [4], [0]]),  # the longest prompt's group leaves first, a row at a time
        ((5, 1, 9), [[0, 1, 3], [0]]),  # only the longest stays
        ((1, 1), [[1], []]),  # nothing to share
        ((40,), [[], []]),
    ],
)
@pytest.mark.usefixtures("copied")
def test_every_logit_equals_that_of_the_row_by_itself(policy: Policy, lengths: tuple, leaving: list):
    check_decoding(policy, random_ids(*lengths), leaving)


SYSTEM, JOB, OTHER, *PEOPLE = random_ids(40, 50, 35, 20, 34, 3, 12)
TREE = [SYSTEM + JOB + PEOPLE[0], SYSTEM + OTHER + PEOPLE[1], PEOPLE[2], SYSTEM + JOB + PEOPLE[3]]
"""Two candidates of one job and one of another, below one instruction, and a prompt of its own."""
TREE_AND_ONE_MORE = [*TREE, SYSTEM + OTHER + PEOPLE[0]]


@pytest.mark.parametrize("leaving", [[[], [1], [0, 3]], [[0, 1, 6, 7], [], [0, 1]], [[2, 3, 8, 9], []]])
@pytest.mark.usefixtures("copied")
def test_rows_below_any_tree_of_prompts_decode_as_by_themselves(policy: Policy, leaving: list):
    check_decoding(policy, TREE_AND_ONE_MORE, leaving)


@pytest.mark.usefixtures("copied")
def test_rows_that_come_later_decode_as_by_themselves(policy: Policy):
    later = {0: [SYSTEM + JOB + PEOPLE[2], PEOPLE[2]], 2: [SYSTEM + PEOPLE[1]] * 2, 3: [(5,), TREE[0]]}
    leaving = [[0, 1, 2, 3], [], [0, 1, 2], [4], []]
    rows = check_decoding(policy, TREE, leaving, later)
    assert min(rows.layout.begins) == 0 < max(rows.layout.begins)


def test_positions_that_no_row_needs_are_forgotten(policy: Policy):
    rows = check_decoding(policy, random_ids(40, 41), [[], [], [0, 1, 2, 3], []], {1: random_ids(42, 43)})
    assert rows.caches[0].own.offset == 42 + 3  # the longest of the copied prompts, and what followed it


@pytest.mark.usefixtures("no_short")
def test_nodes_are_stored_once_and_dropped_with_their_last_row(policy: Policy):
    rows = decoding_rows(policy.model, 4)
    rows.add([ids for ids in TREE_AND_ONE_MORE for _ in range(2)])
    shapes = [stack.keys.shape[::2] for stack in rows.caches[0].stacks]
    assert shapes == [(2, 40), (2, 50), (4, 33)]  # instruction and own prompt, two jobs, four candidates
    rows.keep([2, 3])
    assert [stack.keys.shape[::2] for stack in rows.caches[0].stacks] == [(1, 40), (1, 35), (1, 33)]
    rows.add([TREE[2]] * 2)
    rows.keep([2, 3])
    assert [stack.keys.shape[::2] for stack in rows.caches[0].stacks] == [(1, 2)]


def test_prompt_of_one_row_and_short_prompt_are_among_the_rows_own_tokens(policy: Policy):
    rows = decoding_rows(policy.model, 4)
    long, short = random_ids(90, 1 + decoding.COPIED_TOKENS)
    rows.add([long, short, short])
    assert (rows.caches[0].stacks, rows.caches[0].own.offset) == ([], 89)
    above = random_ids(2 + decoding.COPIED_TOKENS)[0]
    rows.add([above, above])
    assert [stack.keys.shape[2] for stack in rows.caches[0].stacks] == [1 + decoding.COPIED_TOKENS]


def test_prompt_that_others_continue_is_not_copied(policy: Policy):
    rows = decoding_rows(policy.model, 4)
    rows.add([(*JOB, 7), JOB + PEOPLE[0], JOB + PEOPLE[1]])
    assert rows.caches[0].own.offset == len(PEOPLE[1]) - 1
    rows.add([(*JOB, 8)])
    assert rows.caches[0].own.offset == len(PEOPLE[1]) - 1


@pytest.mark.usefixtures("no_short")
def test_prompts_without_a_long_beginning_in_common_have_one_level(policy: Policy):
    rows = decoding_rows(policy.model, 4)
    rows.add([PEOPLE[0][:20] + ids for ids in random_ids(9, 12)] * 2)
    assert [len(level.nodes) for level in rows.layout.levels] == [2]


def test_rows_with_copied_prompts_decode_the_same(policy: Policy, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(decoding, "shares_prompt", lambda model: False)
    check_decoding(policy, random_ids(5, 1, 9), [[], [4], [0, 1]], {1: random_ids(7, 2)})


@pytest.mark.parametrize("shares", [True, False])
def test_prompt_run_in_chunks_decodes_as_one_run_at_once(policy: Policy, shares: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nodes, "PREFILL_CHUNK", 4)
    monkeypatch.setattr(decoding, "PREFILL_CHUNK", 4)
    monkeypatch.setattr(decoding, "shares_prompt", lambda model: shares)
    longest = []
    forward = type(policy.model.model).__call__

    def measured(layers: nn.Module, ids: mx.array, *args: object) -> mx.array:
        longest.append(ids.shape[1] if len(args) else 0)
        return forward(layers, ids, *args)

    prompts = random_ids(9, 10, 3)
    monkeypatch.setattr(type(policy.model.model), "__call__", measured)
    rows = decoding_rows(policy.model, 1)
    rows.add(prompts)
    assert max(longest) == 4
    monkeypatch.undo()
    logits = policy.model(mx.array([ids[-1] for ids in prompts])[:, None], cache=rows.caches)[:, -1]
    for row, ids in enumerate(prompts):
        np.testing.assert_allclose(np.array(logits[row]), np.array(policy.model(mx.array([ids]))[0, -1]), atol=1e-4)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record how many tokens each pass of a prefill runs."""
    sizes: list[int] = []
    extend = nodes.extend
    monkeypatch.setattr(
        nodes, "extend", lambda model, ids, chain=(): sizes.append(ids.size) or extend(model, ids, chain)
    )
    return sizes


def test_common_start_of_prompts_is_run_once(policy: Policy, run: list[int]):
    job, first, second, other = random_ids(50, 8, 5, 20)
    prompts = [other, job + first, job + second, job + first]
    chains = prefill(policy.model, prompts)
    assert sorted(run) == [4, 7, 19, 50]
    assert chains[1] == chains[3]
    assert [[node.length for node in chain] for chain in chains] == [[19], [50, 7], [50, 4], [50, 7]]


def test_start_shared_with_earlier_batches_is_not_run_again(policy: Policy, run: list[int]):
    job, first, second, other = random_ids(50, 8, 5, 20)
    start = shared_start(policy.model, [job + first, job + second])
    assert start[0].token_ids == job
    run.clear()
    chains = prefill(policy.model, [job + first, other, job + second], start)
    assert sorted(run) == [4, 7, 19]
    assert chains[0][:1] == chains[2][:1] == start
    assert shared_start(policy.model, [first, second]) == (), "too little to be worth a pass"


def test_rows_that_come_later_continue_the_nodes_of_present_rows(policy: Policy, run: list[int]):
    rows = decoding_rows(policy.model, 4)
    rows.add([TREE[0], TREE[3]])
    run.clear()
    rows.add([SYSTEM + JOB + PEOPLE[2]])
    assert run == [2]
    assert [node.token_ids for node in rows.layout.levels[0].nodes] == [SYSTEM + JOB]
    assert len(rows.layout.levels) == 1, "what each candidate adds is of one row"
