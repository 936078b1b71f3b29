"""QLoRA: a LoRA on packed 4- and 8-bit weights trains as on the weights they stand for, and is exported."""

from __future__ import annotations

import json
from pathlib import Path

import mlx_grpo  # noqa: F401  (before mlx.core: it loads the BLAS)

# isort: split
import mlx.core as mx
import mlx.nn as nn
import mlx_lm
import numpy as np
import pytest
from mlx.utils import tree_flatten
from support.logps_cases import assert_same, gradients, logps, make_rows
from support.tiny_models import LLAMA, QWEN3, make_model_folder, tiny_config, tiny_policy
from support.tiny_runs import reward_by

from convert.hf import export_hf
from convert.verify import verify_export
from mlx_grpo.data.dataset import load_prompts
from mlx_grpo.distributed.ranks import Ranks
from mlx_grpo.errors import UserError
from mlx_grpo.evaluation.generators import GreedySettings, complete_with_mlx, complete_with_torch
from mlx_grpo.export.export import export_run
from mlx_grpo.models import policy as policy_module
from mlx_grpo.models.folder import ModelFolder
from mlx_grpo.models.head import output_head
from mlx_grpo.models.policy import load_for_inference, load_policy, outline
from mlx_grpo.runs import ADAPTER, METRICS, Run, read_jsonl
from mlx_grpo.training.progress import SilentReporter
from mlx_grpo.training.trainer import train


@pytest.fixture(scope="module", params=[(QWEN3, 4), (QWEN3, 8), (LLAMA, 4)], ids=["tied-4", "tied-8", "untied-4"])
def packed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model as `mlx_lm.convert -q` writes it: embedding, head and all linear layers packed."""
    settings, bits = request.param
    folder = tmp_path_factory.mktemp("packed")
    base = make_model_folder(folder / "base", {**settings, "hidden_size": 64})
    out = folder / "packed"
    mlx_lm.convert(str(base), str(out), quantize=True, q_group_size=32, q_bits=bits, dtype="float32")
    return out


@pytest.fixture
def kept_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load as on a GPU, which multiplies packed weights; a CPU unpacks them."""
    monkeypatch.setattr(policy_module, "multiplies_packed", lambda device: True)


def test_shared_prompt_pass_is_exact_on_packed_weights(packed: Path, kept_packed: None):
    policy, batch = tiny_policy(packed), make_rows([9, 4], [3, 7, 1])
    shared, plain = (logps(policy, batch, share=way) for way in (True, False))
    np.testing.assert_allclose(shared, plain, rtol=1e-5, atol=1e-5)
    assert_same(gradients(policy, batch, share=True), gradients(policy, batch, share=False))


def test_packed_weights_give_the_logps_and_gradients_of_their_plain_weights(
    packed: Path, kept_packed: None, tmp_path: Path
):
    export_hf(packed, tmp_path / "plain", dtype="float32")
    on_packed, on_plain = tiny_policy(packed), tiny_policy(tmp_path / "plain")
    on_plain.model.load_weights(tree_flatten(on_packed.model.trainable_parameters()), strict=False)
    head, _ = output_head(on_packed.model)
    assert isinstance(head, nn.QuantizedLinear | nn.QuantizedEmbedding)
    assert isinstance(output_head(on_plain.model)[0], nn.Linear | nn.Embedding)
    batch = make_rows([9, 4], [3, 7, 1])
    np.testing.assert_allclose(logps(on_packed, batch), logps(on_plain, batch), rtol=1e-4, atol=1e-4)
    assert_same(gradients(on_packed, batch), gradients(on_plain, batch))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_micro_batches_sum_to_the_batch_on_packed_weights(packed: Path, kept_packed: None, checkpointing: bool):
    policy, batch = tiny_policy(packed), make_rows([7, 5], [4, 2, 6, 1])

    expected = gradients(policy, batch)
    for evaluate_each in (False, True):
        assert_same(
            gradients(policy, batch, rows=2, checkpointing=checkpointing, evaluate_each=evaluate_each), expected
        )


def test_full_fine_tune_of_packed_weights_is_refused_with_a_remedy(packed: Path):
    with pytest.raises(UserError, match="fine_tune_type lora"):
        load_policy(tiny_config(packed, fine_tune_type="full"))


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("method", ["awq", "gptq", "compressed-tensors", "fp8"])
def test_weights_packed_by_another_library_are_refused_before_they_are_loaded(
    method: str, kind: str, tiny_llama: Path, tmp_path: Path
):
    settings = json.loads((tiny_llama / "config.json").read_text())
    settings["quantization_config"] = {"quant_method": method, "bits": 4}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    config = tiny_config(tmp_path, fine_tune_type=kind, lora={})
    for load in (load_policy, lambda config: outline(ModelFolder.read(tmp_path), config)):
        with pytest.raises(UserError, match=f"quantized by {method} .* use the model that it was quantized from") as e:
            load(config)
        assert len(e.value.problems) == 1


def test_weights_packed_by_another_library_are_refused_where_the_text_config_says_so(tiny_llama: Path, tmp_path: Path):
    settings = json.loads((tiny_llama / "config.json").read_text())
    settings["text_config"] = {"quantization_config": {"quant_method": "gptq"}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="quantized by gptq"):
        load_policy(tiny_config(tmp_path))


def test_weights_packed_by_modelopt_are_refused(tiny_llama: Path, tmp_path: Path):
    (tmp_path / "config.json").write_text((tiny_llama / "config.json").read_text())
    (tmp_path / "hf_quant_config.json").write_text('{"quantization": {"quant_algo": "NVFP4"}}')
    with pytest.raises(UserError, match="quantized by ModelOpt"):
        load_policy(tiny_config(tmp_path))


def test_weights_unpacked_on_a_cpu_equal_those_of_the_export(packed: Path, tmp_path: Path):
    export_hf(packed, tmp_path / "plain", dtype="float32")
    unpacked, plain = (
        dict(tree_flatten(load_for_inference(f, None, "float32").model.parameters()))
        for f in (packed, tmp_path / "plain")
    )
    assert unpacked.keys() == plain.keys()
    assert all(mx.array_equal(unpacked[name], plain[name]) for name in plain)


@pytest.mark.parametrize("keeps", [True, False], ids=["packed", "unpacked"])
def test_run_on_packed_weights_completes_the_same_in_mlx_and_pytorch(
    packed: Path, keeps: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(policy_module, "multiplies_packed", lambda device: keeps)
    torch = pytest.importorskip("torch", reason="needs torch")
    transformers = pytest.importorskip("transformers")
    rows = [{"id": str(i), "prompt": f"say {i}"} for i in range(4)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = tiny_config(
        packed,
        data={"train": str(tmp_path / "rows.jsonl")},
        reward=reward_by("share_of_letters"),
        output_dir=str(tmp_path / "runs"),
        beta=0.1,
        learning_rate=3e-2,
    )
    run = train(config, SilentReporter()).folder
    metrics = read_jsonl(run / METRICS)[-1]
    assert metrics["sampling/sampling_logp_difference/max"] < 1e-3
    assert metrics["grad_norm"] > 0

    folder, _ = export_run(str(run), ["hf"], dtype="float32")
    assert "quantization" not in json.loads((folder / "config.json").read_text())
    verification = verify_export(packed, folder, adapter=run / ADAPTER)
    assert verification.error < 1e-4 < verification.adapter_effect
    ids = [[5, 60, 70, 80, 90, 33]]
    trained, _ = mlx_lm.load(str(packed), adapter_path=str(run / ADAPTER))
    with torch.no_grad():
        exported = transformers.AutoModelForCausalLM.from_pretrained(folder)(torch.tensor(ids)).logits.numpy()
    np.testing.assert_allclose(np.array(trained(mx.array(ids))), exported, atol=1e-3, rtol=1e-3)

    prompts = load_prompts(tmp_path / "rows.jsonl", load_policy(config).tokenizer)
    settings = GreedySettings("torch", "cpu", "float32", max_new_tokens=8, batch_size=2)
    for adapter in (None, run / ADAPTER):
        texts: dict[str, list] = {"torch": [], "mlx": []}
        complete_with_torch(Run(run), packed, adapter, prompts, settings, texts["torch"].extend)
        complete_with_mlx(packed, adapter, prompts, settings, Ranks(), texts["mlx"].extend)
        assert len(texts["mlx"]) == len(prompts)
        assert texts["torch"] == texts["mlx"]
