"""A model's folder: its config.json is read once, and names what the weights are stored in."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.tiny_models import QWEN3, tiny_config
from support.tiny_runs import reward_by, rows_file

from mlx_grpo.distributed.ranks import Ranks
from mlx_grpo.errors import UserError
from mlx_grpo.models import checks
from mlx_grpo.models import policy as policy_module
from mlx_grpo.models.folder import ModelFolder
from mlx_grpo.training.progress import SilentReporter
from mlx_grpo.training.trainer import prepare, train


@pytest.fixture(scope="module")
def calls(tiny_qwen3: Path, tmp_path_factory: pytest.TempPathFactory) -> Counter[str]:
    """Readings of config.json and outlines built in a run with a warm start, evaluation and the memory check."""
    counts: Counter[str] = Counter()
    read_object, load_model = checks.read_object, policy_module.load_model

    def count_reading(path: Path) -> dict[str, Any]:
        counts[path.name] += 1
        return read_object(path)

    def count_outline(*arguments: Any, **options: Any) -> Any:
        counts["outlines"] += 1
        return load_model(*arguments, **options)

    folder = tmp_path_factory.mktemp("run")
    rows = rows_file(folder, completion="yes")
    config = tiny_config(
        tiny_qwen3,
        data={"train": rows, "heldout": rows},
        reward=reward_by("share_of_letters"),
        output_dir=str(folder),
        warm_start={"steps": 1, "batch_size": 2},
        eval_steps=1,
        eval={"validation": 2, "episodes": 3},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "read_object", count_reading)
        patch.setattr(policy_module, "load_model", count_outline)
        train(config, SilentReporter())
    return counts


def test_training_reads_config_json_once(calls: Counter[str]):
    assert calls["config.json"] == 1


def test_training_counts_the_loaded_model_and_builds_no_outline(calls: Counter[str]):
    assert calls["outlines"] == 0


def folder_with(path: Path, **settings: object) -> ModelFolder:
    (path / "config.json").write_text(json.dumps({**QWEN3, **settings}))
    return ModelFolder.read(path)


def test_stored_weights_take_4_bytes_in_float32_and_2_otherwise(tmp_path: Path):
    assert folder_with(tmp_path, torch_dtype="float32").stored_weight_bytes == 4
    assert folder_with(tmp_path, torch_dtype="bfloat16").stored_weight_bytes == 2
    assert folder_with(tmp_path).stored_weight_bytes == 2


def test_folder_is_packed_if_config_json_names_a_quantization(tmp_path: Path):
    packed = folder_with(tmp_path, quantization={"group_size": 32, "bits": 4})
    assert packed.is_packed and packed.quantization == {"group_size": 32, "bits": 4}
    plain = folder_with(tmp_path)
    assert not plain.is_packed and plain.quantization is None


def test_folder_with_code_of_its_own_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="never run"):
        folder_with(tmp_path, model_file="model.py")


MISTRAL, PHI3 = ({"model_type": family} for family in ("mistral", "phi3"))
QWEN2, QWEN3_MOE, SMOLLM3 = (
    {"model_type": family, "use_sliding_window": True, "sliding_window": 300}
    for family in ("qwen2", "qwen3_moe", "smollm3")
)


@pytest.mark.parametrize(
    ("settings", "limit"),
    [
        ({**MISTRAL, "sliding_window": 300}, 300),
        ({**MISTRAL, "sliding_window": None}, 512),
        ({**MISTRAL, "max_position_embeddings": 8192}, 4096),  # transformers' default
        ({**PHI3, "sliding_window": 300}, 300),
        (PHI3, 512),
        ({"model_type": "gemma2", "max_position_embeddings": 8192}, 4096),  # half of its layers
        ({**QWEN2, "max_window_layers": 1}, 300),
        ({**QWEN2, "layer_types": ["full_attention", "sliding_attention"]}, 300),
        ({**QWEN2, "layer_types": ["full_attention"] * 2, "max_window_layers": 1}, 512),
        ({**QWEN2, "max_window_layers": 2}, 512),  # of two layers
        (QWEN2, 512),  # 28 by default
        ({**QWEN2, "max_window_layers": 1, "use_sliding_window": False}, 512),
        (QWEN3_MOE, 300),
        (SMOLLM3, 300),
        ({"model_type": "gemma3_text", "sliding_window": 300}, 512),  # mlx-lm applies that one
    ],
)
def test_sliding_window_that_mlx_lm_ignores_limits_a_sequence(settings: dict, limit: int, tmp_path: Path):
    assert folder_with(tmp_path, **settings).length_limit.tokens == limit


def test_training_refuses_a_prompt_longer_than_a_window_that_mlx_lm_ignores(tiny_llama: Path, tmp_path: Path):
    shutil.copytree(tiny_llama, tmp_path / "m")
    settings = json.loads((tmp_path / "m/config.json").read_text())
    (tmp_path / "m/config.json").write_text(json.dumps({**settings, **MISTRAL, "sliding_window": 10}))
    config = tiny_config(tmp_path / "m", data={"train": rows_file(tmp_path)}, reward=reward_by("share_of_letters"))
    assert prepare(config.model_copy(update={"max_completion_length": 5}), Ranks())
    with pytest.raises(UserError, match="sliding window of 10, which mlx-lm does not apply; shorten"):
        prepare(config, Ranks())
