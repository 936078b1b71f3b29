"""A configuration says what is wrong with it, all at once, each with key, value and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.paths import ROOT

from mlx_grpo.config.files import find_config, load_config, save_config, validate
from mlx_grpo.config.schema import Config, LoraConfig
from mlx_grpo.errors import UserError

CONFIGS = ROOT / "configs"


def problems_of(**values: object) -> list[str]:
    with pytest.raises(UserError) as caught:
        validate({"model": "m", **values})
    return caught.value.problems


def write(folder: Path, text: str) -> str:
    path = folder / "c.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_config_is_valid(path: Path):
    assert load_config(str(path)).model


def test_the_commented_example_documents_every_key():
    text = (CONFIGS / "qwen3.yaml").read_text()
    sections = {name: field.annotation for name, field in Config.model_fields.items()}
    keys = [*sections, *LoraConfig.model_fields, *sections["reward"].model_fields, *sections["data"].model_fields]
    keys += [*sections["warm_start"].model_fields, *sections["eval"].model_fields]
    assert [key for key in keys if f"{key}:" not in text] == []


def test_scientific_notation_that_yaml_reads_as_text_is_a_number(tmp_path: Path):
    assert load_config(write(tmp_path, "model: m\nlearning_rate: 1e-6")).learning_rate == 1e-6


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path):
    assert load_config(write(tmp_path, "\ufeffmodel: m")).model == "m"


def test_overrides_replace_keys_at_the_top_and_in_sections(tmp_path: Path):
    config = load_config(write(tmp_path, "model: m"), ["max_steps=5", "lora.rank=3", "reward.rubric=published"])
    assert (config.max_steps, config.lora.rank, config.reward.rubric) == (5, 3, "published")


def test_every_mistake_is_reported_at_once_with_the_file_key_value_and_remedy(tmp_path: Path):
    path = write(tmp_path, "model: m\nlearnin_rate: 1\nbeta: -1\nmax_steps: five\nlora: {rnk: 2}")
    with pytest.raises(UserError) as caught:
        load_config(path)
    text = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 4
    assert all(line.startswith(path) for line in caught.value.problems)
    assert "learnin_rate: 1: unknown key; did you mean learning_rate?" in text
    assert "lora.rnk: 2: unknown key; did you mean rank?" in text
    assert "beta: -1 is not accepted; give greater than or equal to 0" in text
    assert "max_steps: 'five' is not accepted" in text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epsilon_high": 0.1}, "epsilon_high: 0.1 is below epsilon 0.2"),
        ({"loss_type": "cispo"}, "loss_type cispo, where it caps the ratio itself"),
        ({"loss_type": "sapo", "delta": 2.0}, "delta: 2.0 has no meaning for loss_type sapo"),
        ({"delta": 1.1}, "delta: 1.1 lies inside the clipping range"),
        ({"fine_tune_type": "full", "lora": {"rank": 2}}, "lora: set, but fine_tune_type is full"),
        ({"reward": {"functions": ["a:b"]}}, "exclude each other"),
        ({"reward": {"rubric": None}}, "nothing to reward"),
        ({"reward": {"rubric": None, "functions": ["a:b"], "reward_weights": [1, 2]}}, "2 entries for 1 functions"),
        ({"warm_start": {"run": "runs/latest"}}, "warm_start.run: set, but warm_start.steps is 0"),
        ({"num_generations": 1}, "num_generations: 1 is not accepted"),
        ({"temperature": 0}, "temperature: 0 is not accepted"),
        ({"max_steps": True}, "max_steps: True is not accepted; give a number"),
        ({"learning_rate": "x", "loss_type": "sapo", "delta": 2.0}, "delta: 2.0 has no meaning for loss_type sapo"),
    ],
)
def test_impossible_combinations_are_named_with_their_remedy(values: dict, message: str):
    assert any(message in line for line in problems_of(**values))


def test_a_missing_file_names_the_examples():
    with pytest.raises(UserError, match="no such config file; give a path, or one of"):
        load_config("nowhere.yaml")


def test_an_example_is_found_by_name_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert find_config("configs/qwen3.yaml").name == "qwen3.yaml"
    assert find_config("qwen3").name == "qwen3.yaml"


@pytest.mark.parametrize("text", ["- a\n- b", "model: [", "just text", ""])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str):
    with pytest.raises(UserError, match=r"c\.yaml"):
        load_config(write(tmp_path, text))


def test_a_saved_config_reads_back_the_same(tmp_path: Path):
    config = validate({"model": "m", "lora": {"rank": 3}, "delta": 5.0})
    save_config(config, tmp_path / "c.yaml")
    assert load_config(str(tmp_path / "c.yaml")) == config
