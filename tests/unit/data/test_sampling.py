"""The prompts of a step: once per epoch, in turns of a label, in clusters."""

from __future__ import annotations

from collections import Counter

import pytest

from mlx_grpo.config.schema import DataConfig
from mlx_grpo.data.sampling import sample_instead, sample_prompts
from mlx_grpo.data.types import Prompt
from mlx_grpo.errors import UserError

PROMPTS = [Prompt(str(i), "", (1,)) for i in range(10)]


def of_jobs(**sizes: int) -> list[Prompt]:
    """Make prompts of jobs, every second one a shortlist."""
    return [
        Prompt(f"{job}{i}", "", (1,), {"job": job, "label": ("yes", "no")[i % 2]})
        for job, size in sizes.items()
        for i in range(size)
    ]


CLUSTERS = DataConfig(cluster_by="job", cluster_size=4, balance_by="label")


def test_an_epoch_shows_every_prompt_once_and_the_next_in_another_order():
    epochs = [[p.id for step in range(5) for p in sample_prompts(PROMPTS, 2, 0, 5 * e + step)] for e in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == [str(i) for i in range(10)]
    assert epochs[0] != epochs[1]


def test_a_steps_prompts_depend_on_seed_and_step_alone():
    assert sample_prompts(PROMPTS, 3, 1, 7) == sample_prompts(PROMPTS, 3, 1, 7)
    assert sample_prompts(PROMPTS, 3, 1, 7) != sample_prompts(PROMPTS, 3, 2, 7)


def test_the_values_of_a_column_take_turns_and_an_epoch_still_shows_every_prompt():
    prompts = [Prompt(str(i), "", (1,), {"label": "yes" if i < 4 else "no"}) for i in range(8)]
    steps = [sample_prompts(prompts, 2, 0, step, DataConfig(balance_by="label")) for step in range(4)]
    assert all([p.columns["label"] for p in chosen] == ["no", "yes"] for chosen in steps)
    assert sorted(p.id for chosen in steps for p in chosen) == [str(i) for i in range(8)]


def test_a_step_may_span_two_epochs_and_repeat_a_small_dataset():
    assert len(sample_prompts(PROMPTS[:2], 5, 0, 0)) == 5


def test_a_step_takes_so_many_prompts_of_each_of_its_clusters_balanced_within():
    prompts = of_jobs(a=12, b=12, c=12)
    for step in range(6):
        chosen = sample_prompts(prompts, 8, 0, step, CLUSTERS)
        for cluster in (chosen[:4], chosen[4:]):
            assert len({p.columns["job"] for p in cluster}) == 1
            assert Counter(p.columns["label"] for p in cluster) == {"yes": 2, "no": 2}


def test_an_epoch_of_clusters_shows_every_prompt_once_and_the_next_in_another_order():
    prompts = of_jobs(a=8, b=4, c=12)
    epochs = [
        [p.id for step in range(3) for p in sample_prompts(prompts, 8, 0, 3 * e + step, CLUSTERS)] for e in (0, 1)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(p.id for p in prompts)
    assert epochs[0] != epochs[1]


def test_a_small_cluster_fills_its_place_with_repeats():
    chosen = sample_prompts(of_jobs(a=2), 4, 0, 0, CLUSTERS)
    assert Counter(p.id for p in chosen) == {"a0": 2, "a1": 2}


def test_a_redraw_stays_within_the_job():
    prompts = of_jobs(a=12, b=12, c=12)
    replaced = [prompts[3], prompts[30], prompts[4], prompts[13]]
    fresh = sample_instead(prompts, replaced, 7, 2, CLUSTERS)
    assert [p.columns["job"] for p in fresh] == ["a", "c", "a", "b"]
    assert fresh[0] != fresh[2]


@pytest.mark.parametrize("key", ["cluster_by", "balance_by"])
def test_a_column_that_a_row_lacks_is_named(key: str):
    with pytest.raises(UserError, match=f"data.{key}: row 0 has no column 'job'"):
        sample_prompts(PROMPTS, 2, 0, 0, DataConfig(**{key: "job"}))
