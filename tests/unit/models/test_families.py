"""Families beside Qwen 3 and Llama: they score, sample, learn and export as transformers computes them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models import gpt2
from support.families import PUBLISHED, make_family, published, torch, torch_logps, transformers
from support.logps_cases import assert_same, gradients, logps, make_rows
from support.tiny_models import tiny_config, tiny_policy

from convert.hf import ExportSummary, export_hf
from convert.peft import export_peft
from mlx_grpo.data.batch import make_batch
from mlx_grpo.data.types import Prompt
from mlx_grpo.errors import UserError
from mlx_grpo.generation.rollout import complete, generate
from mlx_grpo.generation.sampling import Sampling
from mlx_grpo.models.folder import ModelFolder
from mlx_grpo.models.head import check_head
from mlx_grpo.models.policy import load_policy, outline, save_adapter
from mlx_grpo.models.prefix import shares_prompt
from mlx_grpo.planning.activations import Activations, Pass
from mlx_grpo.planning.architecture import count, count_parameters
from mlx_grpo.planning.plan import plan

Family = Callable[[str], Path]
SHARING = {"granite": True, "gemma2": False, "gemma3_text": False, "lfm2": False, "qwen3_5": False}
"""True for families that run a prompt once for its completions."""


def quick(*names: str, among: Iterable[str] = SHARING) -> list[Any]:
    """Return families as parameters of a test; those that are not named are left to `make test-long`."""
    return [name if name in names else pytest.param(name, marks=pytest.mark.long) for name in among]


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Return a function that gives the folder of a family's tiny model."""
    root = tmp_path_factory.mktemp("families")
    return lambda name: root / name if (root / name).exists() else make_family(root / name, name)


def check_logps(folder: Path, name: str) -> None:
    """Fail if a folder's model gives another log-probability than in transformers."""
    policy, batch = load_policy(tiny_config(folder)), make_rows([5], [30])
    assert shares_prompt(policy.model) is SHARING[name]
    ids = [*batch.prompt_ids[0].tolist(), *batch.completion_ids[0].tolist()]
    expected = torch_logps(folder, ids[:35])[np.arange(4, 34), ids[5:35]]
    actual = logps(policy, batch, share=SHARING[name])[0, :30]
    np.testing.assert_allclose(actual, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", SHARING)
def test_logps_equal_those_of_transformers(name: str, family: Family):
    check_logps(family(name), name)


@pytest.mark.parametrize("name", quick("lfm2", among=PUBLISHED))
def test_config_with_older_keys_exports_the_same_model(name: str, family: Family, tmp_path: Path):
    folder = published(tmp_path / "m", name)
    check_logps(folder, name)
    ids = list(range(20))
    np.testing.assert_array_equal(torch_logps(folder, ids), torch_logps(family(name), ids))
    check_export(export_hf(folder, tmp_path / "out", adapter=trained(folder, tmp_path / "a"), verify=True))


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("name", quick("gemma3_text", "qwen3_5"))
def test_gradient_has_its_parts_whether_layers_are_recomputed_or_not(name: str, full: bool, family: Family):
    changes = {"fine_tune_type": "full", "lora": {}} if full else {}
    policy, batch = tiny_policy(family(name), **changes), make_rows([6, 3], [4, 2])
    plain = gradients(policy, batch, share=False)
    assert_same(gradients(policy, batch, share=False, checkpointing=True), plain)
    assert_same(gradients(policy, batch, share=SHARING[name], rows=1), plain)


@pytest.mark.parametrize("name", quick("gemma3_text", "lfm2", "qwen3_5"))
def test_sampled_logps_are_those_of_the_whole_rows(name: str, family: Family):
    policy, rng = tiny_policy(family(name)), np.random.default_rng(0)
    prompts = [Prompt(str(n), "", tuple(rng.integers(0, 250, n).tolist())) for n in (1, 14, 7)]
    rollouts = generate(policy, prompts, 2, Sampling(10, temperature=1.0, ignore_stop=True))
    scored = logps(policy, make_batch(rollouts, mx.zeros((3, 2))), share=False)
    np.testing.assert_allclose(scored[:, :10], [rollout.sampled_logps for rollout in rollouts], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", quick("gemma2", "lfm2"))
def test_rows_that_join_later_are_completed_as_alone(name: str, family: Family):
    policy, rng = tiny_policy(family(name)), np.random.default_rng(1)
    prompts = [Prompt(str(n), "", tuple(rng.integers(0, 250, n).tolist())) for n in (12, 3, 18, 2)]
    together = complete(policy, prompts, 8, max_rows=2)
    alone = [generate(policy, [prompt], 1, Sampling(8, temperature=0))[0] for prompt in prompts]
    assert [row.completion_ids for row in together] == [row.completion_ids for row in alone]


def trained(base: Path, folder: Path, full: bool = False) -> Path:
    """Write an adapter that changes every weight that it may."""
    config = tiny_config(base, **({"fine_tune_type": "full", "lora": {}} if full else {}))
    policy = load_policy(config)
    mx.random.seed(3)
    weights = tree_flatten(policy.model.trainable_parameters())
    policy.model.load_weights([(name, w + 0.05 * mx.random.normal(w.shape)) for name, w in weights], strict=False)
    save_adapter(policy, config, folder)
    return folder


def check_export(done: ExportSummary, frameworks: tuple[str, ...] = ("MLX", "PyTorch")) -> None:
    """Fail if an export computes something else than the policy, or if the policy is the base."""
    assert done.verification is not None and done.verification.adapter_effect is not None
    assert done.verification.checked_in == frameworks
    assert done.verification.adapter_effect > 1e-2


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("name", quick("lfm2"))
def test_export_computes_what_the_policy_does(name: str, full: bool, family: Family, tmp_path: Path):
    adapter = trained(family(name), tmp_path / "adapter", full)
    check_export(export_hf(family(name), tmp_path / "out", adapter=adapter, dtype="float32", verify=True))


@pytest.mark.parametrize("name", quick("qwen3_5"))
def test_adapter_for_peft_computes_what_the_policy_does(name: str, family: Family, tmp_path: Path):
    adapter = trained(family(name), tmp_path / "adapter")
    out = tmp_path / "out"
    check_export(export_peft(family(name), out, adapter=adapter, base_name=name, verify=True), ("PyTorch",))


@pytest.mark.parametrize("name", quick("qwen3_5"))
def test_model_quantized_for_mlx_trains_and_exports(name: str, tmp_path: Path):
    plain = make_family(tmp_path / "plain", name, hidden_size=64, intermediate_size=64)
    adapter = trained(plain, tmp_path / "first")
    check_export(export_hf(plain, tmp_path / "q8", adapter=adapter, bits=8, verify=True), ("MLX",))
    adapter = trained(tmp_path / "q8", tmp_path / "second")
    check_export(export_hf(tmp_path / "q8", tmp_path / "out", adapter=adapter, dtype="float32", verify=True))


@pytest.mark.parametrize("name", SHARING)
def test_plan_says_if_a_prompt_is_run_once(name: str, family: Family):
    config = tiny_config(family(name), gradient_checkpointing=True)
    result = plan(config, "16GB", 50, None)
    loaded = load_policy(config).model
    assert result["parameters"] == count_parameters(loaded)
    assert ("once for all" in result["path"]) is SHARING[name]
    assert ("each completion runs its own" in result["path"]) is not SHARING[name]


def test_recurrent_states_count_for_the_layers_that_a_gradient_reaches(family: Family):
    folder = ModelFolder.read(family("qwen3_5"))
    for adapted, states in ((-1, 2), (1, 0), (2, 1)):  # the last of three layers has attention
        config = tiny_config(folder.path, lora={"rank": 4, "num_layers": adapted})
        sizes = count(outline(folder, config), folder, config)
        assert (sizes.state_bytes, sizes.state_layers) == (4 * 8 * 8 * 4, states)
    assert Activations(sizes, True).of_states([Pass(3, 10)]) == 30 * sizes.state_bytes


def test_tensors_that_training_does_not_use_are_exported_as_they_are(family: Family, tmp_path: Path):
    shutil.copytree(family("qwen3_5"), tmp_path / "base")
    base = mx.load(str(tmp_path / "base/model.safetensors"))
    base = {name: w.astype(mx.bfloat16) for name, w in base.items()} | {"mtp.fc.weight": mx.ones((4, 3), mx.bfloat16)}
    mx.save_safetensors(str(tmp_path / "base/model.safetensors"), base, metadata={"format": "pt"})
    adapter = trained(tmp_path / "base", tmp_path / "adapter")
    check_export(export_hf(tmp_path / "base", tmp_path / "out", adapter=adapter, verify=True))
    exported = mx.load(str(tmp_path / "out/model.safetensors"))
    assert exported.keys() == base.keys()
    changed = {name for name, w in exported.items() if w.dtype != mx.bfloat16 or (w != base[name]).any().item()}
    assert len(changed) == 2 * 8 + 7 and all(re.match(r"model\.language_model\.layers\..*proj", c) for c in changed)
    whole = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "out", dtype=torch.bfloat16)
    assert whole.model.visual.pos_embed.weight.tolist() == base["model.visual.pos_embed.weight"].tolist()


def test_model_with_its_embedding_elsewhere_is_refused():
    sizes = {"n_ctx": 8, "n_embd": 8, "n_head": 2, "n_layer": 1, "n_positions": 8, "vocab_size": 8}
    model = gpt2.Model(gpt2.ModelArgs("gpt2", layer_norm_epsilon=1e-5, **sizes))
    with pytest.raises(UserError, match="gpt2 architecture is not supported"):
        check_head(model)
