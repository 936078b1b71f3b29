"""Families beside Qwen 3 and Llama: they score, sample, learn and export as transformers computes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mlx_lm.models import gpt2
from support.families import make_family, torch_logps
from support.logps_cases import assert_same, gradients, logps, make_rows
from support.tiny_models import tiny_config, tiny_policy

from mlx_grpo.errors import UserError
from mlx_grpo.models.head import check_head
from mlx_grpo.models.policy import load_policy
from mlx_grpo.models.prefix import shares_prompt

Family = Callable[[str], Path]
SHARING = {"granite": True, "gemma2": False}
"""True for families that run a prompt once for its completions."""


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Return a function that gives the folder of a family's tiny model."""
    root = tmp_path_factory.mktemp("families")
    return lambda name: root / name if (root / name).exists() else make_family(root / name, name)


@pytest.mark.parametrize("name", SHARING)
def test_logps_equal_those_of_transformers(name: str, family: Family):
    policy, batch = load_policy(tiny_config(family(name))), make_rows([5], [30])
    assert shares_prompt(policy.model) is SHARING[name]
    ids = [*batch.prompt_ids[0].tolist(), *batch.completion_ids[0].tolist()]
    expected = torch_logps(family(name), ids[:35])[np.arange(4, 34), ids[5:35]]
    actual = logps(policy, batch, share=SHARING[name])[0, :30]
    np.testing.assert_allclose(actual, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("name", SHARING)
def test_gradient_has_its_parts_whether_layers_are_recomputed_or_not(name: str, full: bool, family: Family):
    changes = {"fine_tune_type": "full", "lora": {}} if full else {}
    policy, batch = tiny_policy(family(name), **changes), make_rows([6, 3], [4, 2])
    plain = gradients(policy, batch, share=False)
    assert_same(gradients(policy, batch, share=False, checkpointing=True), plain)
    assert_same(gradients(policy, batch, share=SHARING[name], rows=1), plain)


def test_model_with_its_embedding_elsewhere_is_refused():
    sizes = {"n_ctx": 8, "n_embd": 8, "n_head": 2, "n_layer": 1, "n_positions": 8, "vocab_size": 8}
    model = gpt2.Model(gpt2.ModelArgs("gpt2", layer_norm_epsilon=1e-5, **sizes))
    with pytest.raises(UserError, match="gpt2 architecture is not supported"):
        check_head(model)
