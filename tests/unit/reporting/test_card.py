"""The model card shows what the run's files hold, and nothing of the machine."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from support.hub_data import point_to
from support.tiny_models import tiny_config, tiny_policy
from support.tiny_runs import evaluated_run

from mlx_grpo.export.export import export_run
from mlx_grpo.models.policy import save_adapter
from mlx_grpo.reporting import tables
from mlx_grpo.reporting.card import model_card
from mlx_grpo.runs import Run


@pytest.fixture(scope="module")
def run(tiny_qwen3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return evaluated_run(tiny_qwen3, tmp_path_factory.mktemp("card"))


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    """A copy of the run for a test to change."""
    return Path(shutil.copytree(run, tmp_path / "a-run"))


def test_the_metadata_is_what_huggingface_hub_reads_and_holds_the_measured_figures(run: Path, tiny_qwen3: Path):
    card = ModelCard(model_card(Run(run), tiny_qwen3, "someone/ranker"))  # raises on metadata that it can't read
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "text-generation"
    assert card.data.model_name == "ranker"
    means = json.loads((run / "eval.json").read_text())["means"]["trained"]
    listed = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert listed == {
        "mean reward (strict)": round(means["reward"], 4),
        "mean reward (published)": round(means["published"], 4),
        "accuracy": round(means["correct"], 4),
    }
    assert {result.dataset_split for result in card.data.eval_results} == {"heldout"}
    assert yaml.safe_load(str(card).split("---")[1])["model-index"][0]["name"] == "ranker"


def test_both_tables_with_their_intervals_and_the_pictures_are_in_it(run: Path, tiny_qwen3: Path):
    text = model_card(Run(run), tiny_qwen3)
    results = json.loads((run / "eval.json").read_text())
    for table in (tables.headline(results), tables.components(results)):
        assert tables.markdown_table(*table) in text
    assert text.count("[95% interval]") == 3
    shown = set(re.findall(r"!\[[^]]+\]\(([\w.]+)\)", text))
    assert shown == {path.name for path in (run / "plots").iterdir()}
    assert len(shown) == 9


def test_card_needs_the_figures_alone(copied: Path, tiny_qwen3: Path):
    text = model_card(Run(copied), tiny_qwen3)
    (copied / "episodes.jsonl").unlink()
    assert model_card(Run(copied), tiny_qwen3) == text


def test_card_lists_no_figure_that_is_undefined(copied: Path, tiny_qwen3: Path):
    results = json.loads((copied / "eval.json").read_text())
    results["means"]["trained"] |= dict.fromkeys(("reward", "published", "correct"))  # a reward that never applies
    (copied / "eval.json").write_text(json.dumps(results))
    assert ModelCard(model_card(Run(copied), tiny_qwen3)).data.eval_results is None


def test_no_path_of_the_machine_is_in_it(copied: Path, tiny_qwen3: Path):
    config = yaml.safe_load((copied / "config.yaml").read_text())
    config["warm_start"] |= {"steps": 2, "run": str(copied.parent / "first-run")}
    (copied / "config.yaml").write_text(yaml.safe_dump(config))
    text = model_card(Run(copied), tiny_qwen3)
    for path in (copied.parent, Path(config["data"]["train"]).parent, tiny_qwen3.parent, Path.home()):
        assert str(path) not in text
    settings = yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, flags=re.DOTALL)[1])
    del config["output_dir"]
    config["warm_start"]["run"] = "first-run"
    assert settings == config | {"model": "tiny-qwen3", "data": config["data"] | {"train": "my-data"}}


def test_it_says_what_was_trained_how_and_which_adapter_was_kept(run: Path, tiny_qwen3: Path):
    text = model_card(Run(run), tiny_qwen3)
    assert "`tiny-qwen3` trained with GRPO" in text
    assert "the `my-data` prompts" in text
    assert "decision_match 0.3" in text
    assert "| learning rate | 0.0123, linear |" in text
    kept = json.loads((run / "eval.json").read_text())["kept_step"]
    weights = f"after step {kept} of 2, which did best" if kept else "before the first of 2 GRPO steps: none after it"
    assert weights in " ".join(text.split())
    assert "| steps | 2 |" in text
    assert "Hiring decisions belong to people" in text


def test_a_run_that_ended_early_says_after_how_many_of_its_steps(copied: Path, tiny_qwen3: Path):
    config = yaml.safe_load((copied / "config.yaml").read_text())
    (copied / "config.yaml").write_text(yaml.safe_dump(config | {"max_steps": 5}))
    assert "| steps | 2 of 5 |" in model_card(Run(copied), tiny_qwen3)


def test_a_base_model_of_the_hub_is_named_and_linked(copied: Path, tiny_qwen3: Path):
    for file in (copied / "config.yaml", copied / "adapter" / "adapter_config.json"):
        text = file.read_text()
        file.write_text(text.replace(str(tiny_qwen3), "Qwen/Qwen3-0.6B").replace("tiny-qwen3", "Qwen/Qwen3-0.6B"))
    text = model_card(Run(copied), tiny_qwen3)
    assert ModelCard(text).data.base_model == "Qwen/Qwen3-0.6B"
    assert "https://huggingface.co/Qwen/Qwen3-0.6B" in text


def test_data_set_of_the_hub_is_named_even_out_of_reach(
    copied: Path, tiny_qwen3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    point_to("http://127.0.0.1:9", tmp_path / "home", monkeypatch)
    config = Run(copied).config
    changed = {"train": f"org/sums@{'a' * 40}", "subset": "main", "heldout": None}
    Run(copied).update_config(config.model_copy(update={"data": config.data.model_copy(update=changed)}))
    card = ModelCard(model_card(Run(copied), tiny_qwen3))
    assert card.data.datasets == "org/sums"
    assert {result.dataset_type for result in card.data.eval_results} == {"org/sums"}
    assert f"train: org/sums@{'a' * 40}\n" in str(card)


def test_a_base_model_from_a_folder_is_no_base_model_of_the_hub_even_when_the_folder_is_gone(
    copied: Path, tiny_qwen3: Path
):
    config = copied / "config.yaml"
    config.write_text(config.read_text().replace(str(tiny_qwen3), "models/tiny-qwen3"))
    text = model_card(Run(copied), tiny_qwen3)
    assert ModelCard(text).data.base_model is None
    assert "models/tiny-qwen3" not in text


def test_the_licence_is_the_one_that_the_base_models_card_states_and_its_text_goes_along(
    run: Path, tiny_qwen3: Path, tmp_path: Path
):
    base = Path(shutil.copytree(tiny_qwen3, tmp_path / "tiny-qwen3"))
    (base / "README.md").write_text("---\nlicense: apache-2.0\nlicense_link: https://example.com/L\n---\n# Base\n")
    (base / "LICENSE").write_text("Apache License\n")
    text = model_card(Run(run), base)
    data = ModelCard(text).data
    assert (data.license, data.license_link) == ("apache-2.0", "https://example.com/L")
    assert "under its licence, `apache-2.0`: https://example.com/L" in text
    copied = Path(shutil.copytree(run, tmp_path / "a-run"))
    config = copied / "config.yaml"
    config.write_text(config.read_text().replace(str(tiny_qwen3), str(base)))
    folder, summary = export_run(str(copied), ["hf"])
    assert "LICENSE" in summary.files
    assert (folder / "LICENSE").read_text() == "Apache License\n"


@pytest.mark.parametrize("stated", ["---\n[1, 2]\n---\n", "---\nlicense: [\n---\n", "no metadata", "\xff"])
def test_a_base_card_that_states_no_licence_leaves_it_to_the_base(
    run: Path, tiny_qwen3: Path, tmp_path: Path, stated: str
):
    base = Path(shutil.copytree(tiny_qwen3, tmp_path / "base"))
    (base / "README.md").write_bytes(stated.encode("latin-1"))
    text = model_card(Run(run), base)
    assert ModelCard(text).data.license is None
    assert "under its licence (see there)" in text


def test_thinking_is_switched_off_in_the_snippet_of_a_model_that_thinks_and_not_named_otherwise(
    run: Path, tiny_qwen3: Path, tmp_path: Path
):
    assert "enable_thinking=False" in model_card(Run(run), tiny_qwen3)
    base = Path(shutil.copytree(tiny_qwen3, tmp_path / "base"))
    (base / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    assert "enable_thinking=" not in model_card(Run(run), base)


@pytest.mark.parametrize(("format", "bits"), [("hf", None), ("mlx", None), ("mlx", 8)])
@pytest.mark.parametrize("prompts", ["bundled", "chat", "text", "text of a model without a chat template"])
def test_the_snippet_of_each_kind_of_card_runs(
    prompts: str, format: str, bits: int | None, tiny_qwen3: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip("torch", reason="needs torch")
    base = Path(shutil.copytree(tiny_qwen3, tmp_path / "base"))
    if "without" in prompts:
        settings = json.loads((base / "tokenizer_config.json").read_text())
        del settings["chat_template"]
        (base / "tokenizer_config.json").write_text(json.dumps(settings))
    prompt = [{"role": "user", "content": "say it"}] if prompts == "chat" else "say it"
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": prompt}))
    data = {"train": "shortlist" if prompts == "bundled" else str(tmp_path / "rows.jsonl")}
    config = tiny_config(base, data=data, eval={"max_new_tokens": 4}, output_dir=str(tmp_path / "runs"))
    run = Run.create(config)
    save_adapter(tiny_policy(base), config, run.folder / "adapter")
    folder, _ = export_run(str(run.folder), [format], bits=bits, verify=False)
    card = (folder / "README.md").read_text()
    assert ModelCard(card).data.library_name == {"hf": "transformers", "mlx": "mlx"}[format]
    assert ("apply_chat_template" in card) == (prompts in ("bundled", "chat"))
    (tmp_path / "rows.jsonl").unlink()
    assert ("without" in prompts) == ("apply_chat_template" not in model_card(run, base))
    snippet = re.search(r"```python\n(.*?)```", card, flags=re.DOTALL)[1]
    exec(snippet.replace("USER/NAME", str(folder)), {})
    assert capsys.readouterr().out


def test_every_licence_of_a_base_card_that_lists_several_is_kept(run: Path, tiny_qwen3: Path, tmp_path: Path):
    base = Path(shutil.copytree(tiny_qwen3, tmp_path / "base"))
    (base / "README.md").write_text("---\nlicense:\n- apache-2.0\n- mit\n---\n# Base\n")
    text = model_card(Run(run), base)
    assert ModelCard(text).data.license == ["apache-2.0", "mit"]
    assert "under its licence, `apache-2.0`, `mit`." in text


def test_a_run_that_was_not_evaluated_says_so_and_lists_no_results(copied: Path, tiny_qwen3: Path):
    (copied / "eval.json").unlink()
    text = model_card(Run(copied), tiny_qwen3)
    assert "Not evaluated yet." in text
    assert "model-index" not in text
    assert "![" not in text
