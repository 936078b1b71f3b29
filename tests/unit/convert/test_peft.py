"""mlx-lm adapter -> PEFT: `peft.PeftModel.from_pretrained` computes what the MLX policy computes."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from support.convert_cases import IDS, KEYS, make_base, make_full, make_lora, mlx_logits

from convert.peft import export_peft
from convert.verify import verify_peft
from mlx_grpo.errors import UserError

# isort: split
import mlx.core as mx
import mlx_lm

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")


@pytest.fixture(scope="module", params=["qwen3", "llama"])
def base(request, tmp_path_factory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / request.param, request.param)


def peft_model(base: Path, out: Path) -> peft.PeftModel:
    """As a user loads it; PEFT warns where config and tensors do not belong together."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return peft.PeftModel.from_pretrained(model, out).eval()


def logits(model: torch.nn.Module) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor(IDS)).logits.numpy()


def export(base: Path, tmp_path: Path, keys: list[str] | None = KEYS, layers: int = 2, **options: object) -> Path:
    adapter = make_lora(base, tmp_path / "adapter", keys, layers=layers)
    export_peft(base, tmp_path / "peft", adapter=adapter, base_name="org/base", **options)
    return tmp_path / "peft"


def assert_agrees(base: Path, tmp_path: Path) -> None:
    policy = mlx_logits(base, tmp_path / "adapter")
    assert np.abs(policy - mlx_logits(base)).max() > 0.1
    np.testing.assert_allclose(logits(peft_model(base, tmp_path / "peft")), policy, atol=1e-4, rtol=0)


EMBEDDING = "model.embed_tokens"


@pytest.mark.parametrize(
    ("keys", "layers", "targets", "to_transform"),
    [
        (None, 2, ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"], None),
        (KEYS, 2, ["down_proj", "o_proj", "q_proj", "v_proj"], None),
        (KEYS, 1, ["down_proj", "o_proj", "q_proj", "v_proj"], [1]),
        (["self_attn.q_proj", EMBEDDING], 1, [EMBEDDING, "q_proj"], [1]),
        ([EMBEDDING], 1, [EMBEDDING], None),
        (
            ["model.layers.0.mlp.up_proj", "self_attn.q_proj"],
            1,
            ["model.layers.0.mlp.up_proj", "model.layers.1.self_attn.q_proj"],
            None,
        ),
    ],
    ids=["all", "keys", "last layer", "layer and embedding", "embedding", "one module of each layer"],
)
def test_peft_computes_what_the_policy_does_and_its_config_names_the_same_modules(
    base, tmp_path, keys, layers, targets, to_transform
):
    config = json.loads((export(base, tmp_path, keys, layers) / "adapter_config.json").read_text())
    assert (config["target_modules"], config["layers_to_transform"]) == (targets, to_transform)
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (4, 12, "org/base")
    assert_agrees(base, tmp_path)


def test_a_head_of_its_own_is_adapted_too(tmp_path):
    base = make_base(tmp_path / "base", "llama")
    export(base, tmp_path, [*KEYS, "lm_head"], 1)
    assert_agrees(base, tmp_path)


def test_a_tied_head_that_the_base_stores_all_the_same_is_adapted_with_the_embedding(tmp_path):
    base = make_base(tmp_path / "base", "qwen3")
    weights = dict(mx.load(str(base / "model.safetensors")))
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    mx.save_safetensors(str(base / "model.safetensors"), weights, metadata={"format": "pt"})
    export(base, tmp_path, [EMBEDDING])
    assert_agrees(base, tmp_path)


def test_the_adapter_can_be_merged_in_pytorch(base, tmp_path):
    merged = peft_model(base, export(base, tmp_path)).merge_and_unload()
    np.testing.assert_allclose(logits(merged), mlx_logits(base, tmp_path / "adapter"), atol=1e-4, rtol=0)


def test_what_peft_saves_again_is_the_same_adapter(base, tmp_path):
    out = export(base, tmp_path, KEYS, 1)
    peft_model(base, out).save_pretrained(tmp_path / "again")
    ours, theirs = (mx.load(str(folder / "adapter_model.safetensors")) for folder in (out, tmp_path / "again"))
    assert ours.keys() == theirs.keys()
    assert all((ours[name] == theirs[name]).all() for name in ours)


def test_the_tokenizer_travels_and_only_an_export_of_ours_is_replaced(base, tmp_path):
    out = export(base, tmp_path)
    ours, theirs = (transformers.AutoTokenizer.from_pretrained(folder) for folder in (out, base))
    assert ours.get_vocab() == theirs.get_vocab() and ours.chat_template == theirs.chat_template
    export(base, tmp_path, KEYS, 1)
    (out / "export.json").unlink()
    with pytest.raises(UserError, match="choose an empty or new folder"):
        export(base, tmp_path)


# The check after the export


def test_an_adapter_that_agrees_is_measured(base, tmp_path):
    adapter = make_lora(base, tmp_path / "adapter")
    check = export_peft(base, tmp_path / "peft", adapter=adapter, base_name="org/base", verify=True).verification
    assert check.error < 1e-5 and check.same_top_token == 1.0 and check.adapter_effect > 0.1
    assert abs(check.kept - 1) < 1e-4 and check.checked_in == ("PyTorch",)


def test_verification_names_the_first_layer_that_differs(base, tmp_path):
    out = export(base, tmp_path)
    config = json.loads((out / "adapter_config.json").read_text())
    (out / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 11}))
    with pytest.raises(UserError, match=r"differs from the policy, first at model\.layers\.0:"):
        verify_peft(base, out, adapter=tmp_path / "adapter")
    (out / "adapter_config.json").write_text(json.dumps(config | {"layers_to_transform": [0]}))
    weights = {n: w for n, w in mx.load(str(out / "adapter_model.safetensors")).items() if "layers.0" in n}
    mx.eval(weights)
    mx.save_safetensors(str(out / "adapter_model.safetensors"), weights, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"differs from the policy, first at model\.layers\.1:"):
        verify_peft(base, out, adapter=tmp_path / "adapter")


# What is refused


def test_a_full_fine_tune_and_a_quantized_base_are_sent_to_hf(tmp_path):
    base = make_base(tmp_path / "base", "llama")
    with pytest.raises(UserError, match="full fine-tune, which has no adapter; export with --hf"):
        export_peft(base, tmp_path / "out", adapter=make_full(base, tmp_path / "full"), base_name="b")
    mlx_lm.convert(str(base), str(tmp_path / "quantized"), quantize=True, q_group_size=32)
    adapter = make_lora(tmp_path / "quantized", tmp_path / "lora")
    with pytest.raises(UserError, match="quantized for MLX and PyTorch can't load it; export with --hf"):
        export_peft(tmp_path / "quantized", tmp_path / "out", adapter=adapter, base_name="b")
    assert not (tmp_path / "out").exists()


def test_without_peft_the_check_names_the_remedy_and_the_export_works_unchecked(base, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match="--no-verify"):
        export(base, tmp_path, verify=True)
    assert (export(base, tmp_path) / "adapter_model.safetensors").is_file()
