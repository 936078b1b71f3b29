"""Bad model folders, run folders and reward functions: exit code 2 and a message with a remedy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.bad_input import ROW, Words, error_of, good_config, holds, lines, write
from support.tiny_models import QWEN3, make_model_folder, tiny_config, tiny_policy

from mlx_grpo.cli.main import main
from mlx_grpo.models.policy import save_adapter


def changed(name: str, **changes: Any) -> Callable[[Path], None]:
    """Replace keys of a JSON file of the model."""

    def change(model: Path) -> None:
        write(model / name, {**json.loads((model / name).read_text()), **changes})

    return change


def without(*names: str) -> Callable[[Path], None]:
    """Take files away."""

    def remove(model: Path) -> None:
        for name in names:
            (model / name).unlink()

    return remove


def cut(name: str, size: int) -> Callable[[Path], None]:
    """Keep a file's first bytes."""
    return lambda model: write(model / name, (model / name).read_bytes()[:size])


def replaced(name: str, content: str | bytes) -> Callable[[Path], None]:
    """Put something else in a file's place."""
    return lambda model: write(model / name, content)


def only_a_pickle(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def a_larger_vocabulary(model: Path) -> None:
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["zz"] = 300
    write(model / "tokenizer.json", tokenizer)


MODELS: dict[str, tuple[Callable[[Path], None], Words]] = {
    "no config.json": (without("config.json"), ("no config.json", "give a folder")),
    "a config.json that is no JSON": (replaced("config.json", "{oops"), ("m/config.json", "not readable", "fetch")),
    "a config.json that is a list": (replaced("config.json", "[]"), ("m/config.json", "holds list", "fetch")),
    "no model_type": (changed("config.json", model_type=None), ("m/config.json", "model_type is None", '"qwen3"')),
    "an unknown model_type": (
        changed("config.json", model_type="gpt99"),
        ("m/config.json", "no model of the type 'gpt99'", "use a Qwen, Llama"),
    ),
    "a size that is a text": (changed("config.json", hidden_size="32"), ("m can't be loaded", "'str'", "fetch")),
    "no attention heads": (changed("config.json", num_attention_heads=0), ("m can't be loaded", "zero", "fetch")),
    "weights of another width": (changed("config.json", hidden_size=64), ("m can't be loaded", "shape", "fetch")),
    "a layer too many": (
        changed("config.json", num_hidden_layers=3),
        ("can't be loaded", "Missing 11 parameters", "give"),
    ),
    "code of its own": (
        changed("config.json", model_file="model.py"),
        ("model_file is 'model.py'", "never run", "remove"),
    ),
    "no weights": (without("model.safetensors"), ("m can't be loaded", "no model*.safetensors", "give a folder")),
    "a pickle alone": (only_a_pickle, ("pytorch_model.bin", "may run code", "safetensors weights")),
    "weights cut in the middle": (
        cut("model.safetensors", 50_000),
        ("m/model.safetensors", "size of the file", "fetch"),
    ),
    "weights cut in the header": (
        cut("model.safetensors", 100),
        ("m/model.safetensors", "100 bytes", "fetch it again"),
    ),
    "weights of no bytes": (cut("model.safetensors", 0), ("m/model.safetensors", "Unable to read", "fetch it again")),
    "a zip file as weights": (
        replaced("model.safetensors", b"PK\x03\x04" * 50),
        ("m/model.safetensors", "header", "fetch"),
    ),
    "a pointer of Git LFS": (
        replaced("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        ("m/model.safetensors", "can't be loaded", "fetch it again"),
    ),
    "no tokenizer": (without("tokenizer.json"), ("m has no tokenizer", "tokenizer.json", "fetch")),
    "half a tokenizer": (cut("tokenizer.json", 500), ("m/tokenizer.json", "not readable", "fetch")),
    "a tokenizer without a vocabulary": (
        changed("tokenizer.json", model={"type": "BPE"}),
        ("m can't be loaded", "vocab"),
    ),
    "another model's tokenizer": (a_larger_vocabulary, ("token 300", "vocab_size of 258", "trained with")),
    "no end token": (
        changed("tokenizer_config.json", eos_token=None),
        ("no eos_token", "add it to tokenizer_config.json"),
    ),
    "no chat template": (
        changed("tokenizer_config.json", chat_template=None),
        ("row rows-1", "no chat template", "as text"),
    ),
    "a chat template that is broken": (
        changed("tokenizer_config.json", chat_template="{% for m in %}"),
        ("row rows-1", "chat template", "change"),
    ),
    "a chat template that refuses": (
        changed("tokenizer_config.json", chat_template="{{ raise_exception('Roles must alternate') }}"),
        ("row rows-1", "Roles must alternate", "change them"),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_bad_model_folder_is_refused_with_a_remedy(name: str, workdir: Path, tiny_qwen3: Path):
    change, words = MODELS[name]
    shutil.copytree(tiny_qwen3, workdir / "m")
    change(workdir / "m")
    write(workdir / "rows.jsonl", lines(ROW))
    write(workdir / "good.yaml", good_config(Path("m"), eval_steps=0))
    holds(error_of("train", "good.yaml"), words)


@pytest.fixture(scope="module")
def finished(tiny_qwen3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step."""
    root = tmp_path_factory.mktemp("finished")
    write(root / "rows.jsonl", lines(ROW))
    data = {"train": str(root / "rows.jsonl"), "heldout": str(root / "rows.jsonl")}
    settings = good_config(tiny_qwen3, data=data, output_dir=str(root / "runs"), eval={"max_new_tokens": 4})
    write(root / "good.yaml", settings)
    result = CliRunner().invoke(main, ["train", str(root / "good.yaml")])
    assert result.exit_code == 0, result.output
    return (root / "runs" / "latest").resolve()


def in_config(old: str, new: str) -> Callable[[Path], None]:
    """Replace a text in the run's config."""
    return lambda run: write(run / "config.yaml", (run / "config.yaml").read_text().replace(old, new))


def of_rank_three(run: Path) -> None:
    model = run.parent / "other"
    make_model_folder(model, {**QWEN3, "hidden_size": 64})
    config = tiny_config(model, lora={"rank": 3})
    save_adapter(tiny_policy(model, lora={"rank": 3}), config, run / "adapter")


EVAL, EXPORT = ("eval", "run", "--backend", "mlx"), ("export", "run", "--hf")
RUNS: dict[str, tuple[Callable[[Path], None], tuple[str, ...], Words]] = {
    "no run": (lambda run: None, ("eval", "nowhere"), ("nowhere", "not a run folder", "give a folder")),
    "no runs here": (lambda run: None, ("export", "--hf"), ("runs/latest", "no run here yet", "mlx-grpo train")),
    "no adapter to evaluate": (lambda run: shutil.rmtree(run / "adapter"), EVAL, ("has no adapter", "finish first")),
    "no adapter to export": (lambda run: shutil.rmtree(run / "adapter"), EXPORT, ("has no adapter", "finish first")),
    "half an adapter to evaluate": (
        cut("adapter/adapters.safetensors", 2000),
        EVAL,
        ("run/adapter", "can't be loaded"),
    ),
    "half an adapter to export": (
        cut("adapter/adapters.safetensors", 2000),
        EXPORT,
        ("adapters.safetensors", "cannot be read"),
    ),
    "an adapter's settings that are no JSON": (
        replaced("adapter/adapter_config.json", "{"),
        EVAL,
        ("run/adapter", "train"),
    ),
    "another base's adapter to evaluate": (of_rank_three, EVAL, ("run/adapter", "shape", "was trained on this model")),
    "another base's adapter to export": (of_rank_three, EXPORT, ("run/adapter", "do not fit the base's")),
    "a broken config": (
        replaced("config.yaml", "model: ["),
        EVAL,
        ("run/config.yaml", "not readable as YAML", "correct"),
    ),
    "a key of another version": (in_config("seed:", "sead:"), EVAL, ("run/config.yaml", "sead", "did you mean seed?")),
    "no held-out file": (in_config("heldout: ", "heldout: /no"), EVAL, ("/no", "no such file", "mlx-grpo data build")),
    "held-out rows without labels": (
        in_config("rubric: null\n", "rubric: strict\n"),
        EVAL,
        ("exclude each other", "reward.rubric to null"),
    ),
    "metrics that are cut": (cut("metrics.jsonl", 40), EVAL, ("metrics.jsonl, line 1", "not JSON", "remove the line")),
    "a completion longer than the context": (
        lambda run: None,
        (*EVAL, "--max-new-tokens", "600"),
        ("row rows-1", "context of 512", "shorten"),
    ),
    "a device that is none": (lambda run: None, ("eval", "run", "--device", "tpu"), ("'tpu'", "cuda, mps, cpu")),
    "an export onto a file": (lambda run: None, (*EXPORT, "--out", "run/config.yaml"), ("is not a folder", "choose")),
    "an export among other files": (lambda run: None, (*EXPORT, "--out", "run"), ("holds files", "choose an empty")),
}


@pytest.mark.parametrize("name", RUNS)
def test_bad_run_folder_is_refused_with_a_remedy(name: str, workdir: Path, finished: Path):
    change, arguments, words = RUNS[name]
    shutil.copytree(finished, workdir / "run")
    change(workdir / "run")
    holds(error_of(*arguments), words)


def test_failing_reward_function_is_reported_with_row_and_completion(workdir: Path, tiny_qwen3: Path):
    write(workdir / "rows.jsonl", lines({**ROW, "id": "r7"}))
    faults = {
        "raises": ("support.toy_rewards:raises raised KeyError", "for row r7", "completion:"),
        "too_few": ("returned 1 values for 2 completions", "r7", "None where it does not apply"),
        "not_a_number": ("returned nan for row r7", "return a finite number", "completion:"),
        "nothing_at_all": ("returned None", "return a list of numbers"),
        "endless_integer": ("for row r7", "return a finite number"),
    }
    for name, words in faults.items():
        reward = {"rubric": None, "functions": [f"support.toy_rewards:{name}"]}
        write(workdir / "good.yaml", good_config(tiny_qwen3, reward=reward))
        holds(error_of("train", "good.yaml"), words)
