"""What is added to a config.json for mlx-lm."""

from __future__ import annotations

import pytest

from convert.layout import hub_name, mlx_name
from convert.settings import config_changes
from mlx_grpo.errors import UserError

LOCAL, LINEAR, FULL = "sliding_attention", "linear_attention", "full_attention"
PATTERN, INTERVAL = "sliding_window_pattern", "full_attention_interval"


def test_lfm2_gets_its_width_where_transformers_leaves_it_out():
    assert config_changes({"model_type": "lfm2", "hidden_size": 40})["block_dim"] == 40
    assert "block_dim" not in config_changes({"model_type": "lfm2", "hidden_size": 40, "block_dim": 48})


@pytest.mark.parametrize(
    ("family", "key", "layers", "interval"),
    [
        ("gemma3_text", PATTERN, [LOCAL] * 5 + [FULL] + [LOCAL] * 2, 6),
        ("gemma3_text", PATTERN, [LOCAL, FULL] * 2, 2),
        ("qwen3_5_text", INTERVAL, [LINEAR, LINEAR, FULL] * 2, 3),
        ("qwen3_5_text", INTERVAL, [FULL], 1),
    ],
)
def test_interval_of_full_attention_is_read_from_the_layers(family: str, key: str, layers: list[str], interval: int):
    rope = {kind: {"rope_type": "default", "rope_theta": 1e4} for kind in (LOCAL, FULL)}
    config = {"model_type": family, "layer_types": layers, "rope_parameters": rope}
    assert config_changes(config)[key] == interval
    assert config_changes({"text_config": config})["text_config"][key] == interval
    assert key not in config_changes({**config, key: interval})
    assert config_changes({**config, key: interval + 1})[key] == interval


@pytest.mark.parametrize(
    ("layers", "problem"),
    [
        ([LINEAR, FULL, FULL], "full_attention in layer 3 with the first full attention in layer 2"),
        ([LINEAR, FULL, LINEAR, LINEAR], "linear_attention in layer 4 with the first full attention in layer 2"),
        ([LOCAL, FULL], "sliding_attention in layer 1 with the first full attention in layer 2"),
        ([LINEAR] * 2, "linear_attention in layer 1 with no full attention in any layer"),
    ],
)
def test_layers_without_an_interval_are_refused(layers: list[str], problem: str):
    with pytest.raises(UserError, match=f"layer_types: mlx-lm can't have {problem}; take another model"):
        config_changes({"model_type": "qwen3_5_text", "layer_types": layers})


def test_tensors_of_a_nested_text_model_have_the_names_of_the_hub():
    ours = "language_model.model.layers.0.mlp.up_proj.weight"
    theirs = "model.language_model.layers.0.mlp.up_proj.weight"
    assert (hub_name(ours), mlx_name(theirs)) == (theirs, ours)
    assert hub_name("language_model.lm_head.weight") == "lm_head.weight"
    assert hub_name("model.layers.0.mlp.up_proj.weight") == "model.layers.0.mlp.up_proj.weight"
