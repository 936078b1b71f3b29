"""Mixtures of experts: the experts stay frozen, since no export can write them, and all else is exported."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import mlx_lm
import pytest
from support.convert_cases import SIZES, write_tokenizer
from support.tiny_models import tiny_config, tiny_policy
from support.tiny_runs import NoteReporter, reward_by, rows_file

from convert.hf import export_hf
from mlx_grpo.errors import UserError
from mlx_grpo.export.export import export_run
from mlx_grpo.models.policy import load_policy, save_adapter
from mlx_grpo.training.trainer import train

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen3-MoE of one dense layer and one of four experts, as transformers saves it."""
    torch.manual_seed(0)
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "mlp_only_layers": [0]}
    config = transformers.Qwen3MoeConfig(**SIZES, **experts, norm_topk_prob=True, tie_word_embeddings=False)
    model = transformers.Qwen3MoeForCausalLM(config)
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name else 0.0, std=0.1)
    folder = tmp_path_factory.mktemp("mixture")
    model.save_pretrained(folder)
    settings = json.loads((folder / "config.json").read_text())
    # The names on the Hub, which mlx-lm asks for; transformers 5 reads both.
    (folder / "config.json").write_text(json.dumps(settings | {"num_experts": 4, "rope_theta": 1e4}))
    write_tokenizer(folder)
    return folder


def test_run_on_a_mixture_of_experts_says_what_learns_and_is_exported(mixture: Path, tmp_path: Path):
    rows = rows_file(tmp_path)
    settings = {"learning_rate": 3e-2, "reward": reward_by("share_of_letters"), "output_dir": str(tmp_path / "runs")}
    notes = NoteReporter()
    run = train(tiny_config(mixture, data={"train": rows}, **settings), notes)
    assert any("the experts stay as they are" in text for text in notes.lines)
    kept = json.loads((run.adapter() / "adapter_config.json").read_text())["lora_parameters"]["keys"]
    attention = [f"self_attn.{name}_proj" for name in "koqv"]
    assert kept == sorted([*attention, "mlp.gate", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"])
    _, summary = export_run(str(run.folder), ["hf"], dtype="float32")
    assert summary.verification is not None and summary.verification.checked_in == ("MLX", "PyTorch")
    assert summary.verification.adapter_effect > 1e-3


@pytest.mark.parametrize("bits", [None, 8])
def test_base_whose_experts_mlx_lm_stacked_is_exported_as_the_hub_names_them(mixture: Path, tmp_path: Path, bits: int):
    base = tmp_path / "base"
    mlx_lm.convert(str(mixture), str(base), quantize=True, q_group_size=32, q_bits=8, dtype="float32")
    save_adapter(tiny_policy(base), tiny_config(base), tmp_path / "adapter")
    summary = export_hf(base, tmp_path / "out", adapter=tmp_path / "adapter", dtype="float32", bits=bits, verify=True)
    assert summary.verification is not None and summary.verification.adapter_effect > 1e-2
    if bits is None:
        assert summary.verification.checked_in == ("MLX", "PyTorch")
        names = mx.load(str(tmp_path / "out" / "model.safetensors")).keys()
        assert "model.layers.1.mlp.experts.3.up_proj.weight" in names


def test_experts_are_refused_where_they_would_learn(mixture: Path):
    with pytest.raises(UserError, match=r"lora\.keys: mlp\.switch_mlp\.up_proj: no export can write"):
        load_policy(tiny_config(mixture, lora={"keys": ["self_attn.q_proj", "mlp.switch_mlp.up_proj"]}))
    with pytest.raises(UserError, match="fine_tune_type: full, but qwen3_moe is a mixture of experts"):
        load_policy(tiny_config(mixture, fine_tune_type="full", lora={}))
