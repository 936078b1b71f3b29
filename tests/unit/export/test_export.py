"""What `mlx-grpo export` writes of a run, and what mlx-lm makes of the adapter as it is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from click.testing import CliRunner
from mlx_lm.utils import load
from support.command import cli
from support.tiny_models import TEMPLATE, tiny_config, tiny_policy, with_template

from mlx_grpo.cli.export import describe, export
from mlx_grpo.errors import UserError
from mlx_grpo.export.export import export_run
from mlx_grpo.models.policy import save_adapter
from mlx_grpo.runs import Run

IDS = mx.array([[5, 60, 70, 80]])


def make_run(base: Path, folder: Path, **changes: object) -> Path:
    """A run folder with a trained adapter, as `train` leaves it."""
    config = tiny_config(base, output_dir=str(folder / "runs"), **changes)
    run = Run.create(config).folder
    save_adapter(tiny_policy(base, **changes), config, run / "adapter")
    return run


@pytest.mark.parametrize("lora", [{"rank": 4}, {"rank": 2, "num_layers": 1, "keys": ["mlp.up_proj"]}])
def test_mlx_lm_loads_a_runs_adapter_by_its_own_loader(tiny_qwen3: Path, tmp_path: Path, lora: dict):
    run = make_run(tiny_qwen3, tmp_path, lora=lora)
    loaded, _ = load(str(tiny_qwen3), adapter_path=str(run / "adapter"))
    policy = np.array(tiny_policy(tiny_qwen3, lora=lora).model(IDS))
    np.testing.assert_allclose(np.array(loaded(IDS)), policy, atol=1e-5)
    assert np.abs(policy - np.array(load(str(tiny_qwen3))[0](IDS))).max() > 1e-2


def test_mlx_lm_generate_runs_with_a_runs_adapter(tiny_qwen3: Path, tmp_path: Path):
    run = make_run(tiny_qwen3, tmp_path)
    command = [sys.executable, "-m", "mlx_lm", "generate", "--model", str(tiny_qwen3), "--max-tokens", "4"]
    done = subprocess.run(
        [*command, "--prompt", "hi", "--adapter-path", str(run / "adapter")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Generation: " in done.stdout


@pytest.mark.parametrize(
    ("format", "options", "weights"),
    [
        ("hf", {"dtype": "bfloat16"}, "model.safetensors"),
        ("mlx", {}, "model.safetensors"),
        ("mlx", {"bits": 8}, "model.safetensors"),
        ("peft", {}, "adapter_model.safetensors"),
    ],
)
def test_each_format_goes_to_a_folder_of_its_own_and_is_verified(
    tiny_llama: Path, tmp_path: Path, format: str, options: dict, weights: str
):
    pytest.importorskip("peft" if format == "peft" else "torch")
    run = make_run(tiny_llama, tmp_path)
    folder, summary = export_run(str(run), [format], **options)
    assert folder == run / format and weights in summary.files
    assert json.loads((folder / "export.json").read_text())["verification"]["kept"] == summary.verification.kept
    assert summary.verification.storing_error < summary.verification.tolerance
    assert summary.verification.adapter_effect > 1e-2


def test_export_stops_at_the_tokens_that_the_run_stops_at(tiny_qwen3: Path, tmp_path: Path):
    base = with_template(tiny_qwen3, tmp_path / "m", TEMPLATE.replace("<|im_end|>", "<|im_start|>"))
    (base / "generation_config.json").write_text(json.dumps({"eos_token_id": 5, "temperature": 0.6}))
    folder, _ = export_run(str(make_run(base, tmp_path)), ["hf"], verify=False)
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation == {"eos_token_id": list(tiny_policy(base).stop_ids), "temperature": 0.6}
    assert load(str(folder))[1].eos_token_ids == set(generation["eos_token_id"])


def test_export_whose_files_name_every_stop_token_keeps_them(tiny_qwen3: Path, tmp_path: Path):
    folder, _ = export_run(str(make_run(tiny_qwen3, tmp_path)), ["hf"], verify=False)
    assert not (folder / "generation_config.json").exists()


def test_the_command_says_how_far_the_export_is_or_that_it_was_not_verified_and_no_library_adds_to_it(
    tiny_llama: Path, tmp_path: Path
):
    base = Path(shutil.copytree(tiny_llama, tmp_path / "base"))
    settings = json.loads((base / "config.json").read_text())
    settings["rope_scaling"] = {"rope_type": "default", "unknown": 1}  # transformers warns of it
    (base / "config.json").write_text(json.dumps(settings))
    make_run(base, tmp_path)
    shown = cli("export", "--mlx", folder=tmp_path)
    assert "the export keeps 100% of it" in shown.stdout, shown.stdout + shown.stderr
    assert "transformers" not in shown.stderr
    unchecked = cli("export", "--mlx", "--no-verify", "--json", folder=tmp_path)
    assert json.loads(unchecked.stdout)["verification"] is None


def test_rounding_that_outweighs_training_is_warned_of_with_a_remedy(tiny_llama: Path, tmp_path: Path):
    pytest.importorskip("torch")
    lora = {"rank": 4, "scale": 1e-3}
    run = make_run(tiny_llama, tmp_path, lora=lora)
    lines = describe(*export_run(str(run), ["hf"], dtype="bfloat16"))
    assert lines[-1].startswith("warning: bfloat16 changes the model more") and "--dtype float32" in lines[-1]
    assert not any("warning" in line for line in describe(*export_run(str(run), ["hf"], dtype="float32")))
    assert "more bits" in describe(*export_run(str(run), ["mlx"], bits=4))[-1]
    assert describe(*export_run(str(run), ["mlx"], verify=False))[-1] == "not verified"


def test_an_export_that_differs_exits_with_2_names_the_layer_and_writes_nothing(tiny_qwen3: Path, tmp_path: Path):
    pytest.importorskip("torch")
    base = tmp_path / "base"
    shutil.copytree(tiny_qwen3, base)
    settings = json.loads((base / "config.json").read_text())
    window = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}  # which mlx-lm does not heed
    (base / "config.json").write_text(json.dumps(settings | window))
    run = make_run(base, tmp_path)
    failed = cli("export", "--hf", folder=tmp_path)
    assert failed.returncode == 2
    assert "loaded in PyTorch, differs from the policy, first at model.layers.1:" in failed.stderr
    assert "Traceback" not in failed.stderr and sorted(path.name for path in run.iterdir()) == [
        "adapter",
        "config.yaml",
        "inputs.json",
    ]


def test_options_that_exclude_each_other_are_all_named(tmp_path: Path):
    failed = cli("export", "--hf", "--peft", "--bits", "4", "--dtype", "float16", folder=tmp_path)
    assert failed.returncode == 2
    for told in ("name one format", "--bits 4: belongs to --mlx", "--dtype float16: belongs to --hf and --mlx"):
        assert told in failed.stderr


@pytest.fixture
def byte_pair_run(tmp_path: Path) -> Path:
    """A run on a Llama whose tokenizer has merges, as llama.cpp needs."""
    pytest.importorskip("gguf")
    pytest.importorskip("torch")
    from support.gguf_cases import random_model, tensors_of, write_gguf

    from convert.gguf import convert_gguf

    template = {"tokenizer.chat_template": TEMPLATE}
    convert_gguf([write_gguf(tmp_path / "x.gguf", tensors_of(random_model()), extra=template)], tmp_path / "base")
    return make_run(tmp_path / "base", tmp_path)


def test_gguf_export_is_verified_and_has_a_modelfile_with_the_runs_template(byte_pair_run: Path):
    shown = CliRunner().invoke(export, [str(byte_pair_run), "--gguf", "--quant", "Q8_0", "--json"])
    assert (shown.exit_code, shown.stderr) == (0, "")
    summary = json.loads(shown.stdout)
    assert (summary["folder"], summary["dtype"]) == (str(byte_pair_run / "gguf"), "Q8_0")
    assert summary["verification"]["checked_in"] == ["MLX", "PyTorch"]
    assert sorted(path.name for path in (byte_pair_run / "gguf").iterdir()) == [
        "Modelfile",
        "export.json",
        "model-Q8_0.gguf",
    ]
    modelfile = (byte_pair_run / "gguf" / "Modelfile").read_text()
    assert modelfile == (
        'FROM ./model-Q8_0.gguf\nTEMPLATE """{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}'
        "<|im_start|>user\n{{ .Prompt }}<|im_end|>\n<|im_start|>assistant\n<think></think>{{ .Response }}<|im_end|>\n"
        '"""\nPARAMETER stop "<|endoftext|>"\nPARAMETER stop "<|im_end|>"\n'
    )


def test_gguf_export_names_its_rounding_and_the_remedy(byte_pair_run: Path):
    lines = describe(*export_run(str(byte_pair_run), ["gguf"]))
    assert "(F16, " in lines[0] and lines[1].startswith("verified in MLX and PyTorch")
    summary = export_run(str(byte_pair_run), ["gguf"], quant="Q8_0", verify=False)[1]
    assert describe(byte_pair_run, summary)[-1] == "not verified"


def test_options_of_gguf_and_of_other_formats_exclude_each_other():
    with pytest.raises(UserError) as error:
        export_run(None, ["gguf"], dtype="float16")
    assert error.value.problems == ["--dtype float16: belongs to --hf and --mlx; --gguf takes --quant F16 or Q8_0"]
    with pytest.raises(UserError) as error:
        export_run(None, ["mlx"], quant="Q8_0")
    assert error.value.problems == ["--quant Q8_0: belongs to --gguf; --mlx takes --bits"]


def test_missing_gguf_names_its_extra(byte_pair_run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UserError, match=r"writing a GGUF needs more packages .*: pip install 'mlx-grpo\[gguf\]'"):
        export_run(str(byte_pair_run), ["gguf"], verify=False)
    assert not (byte_pair_run / "gguf").exists()
