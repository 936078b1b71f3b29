"""A run's Space: a folder that asks the exported model on a page, and needs nothing of the project."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from support.paths import ROOT
from support.tiny_models import tiny_config, tiny_policy
from transformers import AutoTokenizer

from mlx_grpo.cli.main import main
from mlx_grpo.data.dataset import make_prompt
from mlx_grpo.errors import UserError
from mlx_grpo.export import space as module
from mlx_grpo.export import space_app
from mlx_grpo.export.export import export_run
from mlx_grpo.export.space import GRADIO, Space, export_space
from mlx_grpo.models.policy import load_tokenizer_of, save_adapter
from mlx_grpo.runs import Run
from mlx_grpo.tasks.shortlist.instruction import PUBLISHED_INSTRUCTION, instruction_of

NOT_NEEDED = ("mlx", "mlx_lm", "pydantic", "yaml", "numpy", "torch", "gradio")
EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def run(tiny_qwen3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the bundled rows, with its export."""
    folder = tmp_path_factory.mktemp("space")
    changes = {"data": {"train": "shortlist"}, "reward": {"rubric": "strict", "limits": {"max_reasons": 4}}}
    config = tiny_config(tiny_qwen3, output_dir=str(folder / "runs"), **changes)
    run = Run.create(config, "2026-01-31").folder
    save_adapter(tiny_policy(tiny_qwen3, **changes), config, run / "adapter")
    export_run(str(run), ["hf"], verify=False)
    return run


@pytest.fixture(scope="module")
def space(run: Path) -> Space:
    return export_space(str(run), repo="someone/ranker")


def in_space(space: Space, code: str, elsewhere: Path) -> str:
    """Run code in a process that finds the Space's folder, but not the project or a large library."""
    script = f"import sys\nsys.path.insert(0, {str(space.folder)!r})\n"
    script += f"sys.modules.update(dict.fromkeys({NOT_NEEDED}))\nimport app\n{code}"
    done = subprocess.run([sys.executable, "-I", "-c", script], cwd=elsewhere, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_space_marks_every_clause_without_the_project_on_the_path(space: Space, tmp_path: Path):
    code = f"""
job, candidate = app.settings()["examples"][1]
question = app.ask(job, candidate)
import mlx_grpo, reward
print(mlx_grpo.__file__, reward.__file__)
wrong = {{"reasons": ["9 years, inside 1-2", "loves {EVIL}"], "score": 0.1, "decision": "reject"}}
import json
print(app.answer_box("Trained", json.dumps(wrong), question))
print(app.answer_box("Base", "{EVIL}", question))
print(app.verdict_of_rules(question))
"""
    where, trained, base, rules = in_space(space, code, tmp_path).splitlines()
    assert where == f"{space.folder}/mlx_grpo/__init__.py {space.folder}/reward/__init__.py"
    assert 'class="refuted"' in trained
    assert "✗ 9 years, inside 1-2</span><small" in trained
    assert 'class="unread"' in trained
    assert "reject <span>0.10</span><small>agrees with the rules" in trained
    assert "no valid answer" in base
    assert "<img" not in trained + base
    assert "&lt;img src=x" in trained and "&lt;img src=x" in base
    assert "By the rules: <b>reject</b>" in rules


def test_page_without_a_package_or_a_model_ends_in_one_line(space: Space, tmp_path: Path):
    code = """
def absent(name):
    raise OSError("no file\\nnamed that")
for module in (None, sys):
    sys.modules["gradio"], app.load = module, absent
    try:
        app.main()
    except SystemExit as error:
        print(error)
"""
    package, model = in_space(space, code, tmp_path).splitlines()
    assert "gradio" in package and package.endswith(f": run `pip install -r {space.folder / 'requirements.txt'}`")
    assert model == "a model can't be loaded: no file named that; set MODEL and BASE to other ones"


@pytest.fixture
def app(space: Space, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page's module as it is in the Space's folder."""
    monkeypatch.setattr(space_app, "HERE", space.folder)
    for cached in (space_app.settings, space_app.sources):
        cached.cache_clear()
    yield
    for cached in (space_app.settings, space_app.sources):
        cached.cache_clear()


@pytest.mark.usefixtures("app")
def test_space_asks_with_the_prompt_that_the_run_was_trained_on(run: Path):
    job, candidate = space_app.settings()["examples"][0]
    message = {"role": "user", "content": f"[JOB]\n{job}\n[CANDIDATE]\n{candidate}"}
    row = {"id": "0", "prompt": [*instruction_of("compact"), message]}
    tokenizer = load_tokenizer_of(run / "hf")
    expected = make_prompt(row, tokenizer, today="2026-01-31").text
    assert space_app.prompt_text(space_app.ask(job, candidate), AutoTokenizer.from_pretrained(run / "hf")) == expected
    assert space_app.settings()["stop_ids"] == sorted(tokenizer.eos_token_ids)


@pytest.mark.usefixtures("app")
def test_space_of_a_run_on_the_published_wording_asks_in_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    changed = space_app.settings() | {"instruction": PUBLISHED_INSTRUCTION}
    (tmp_path / "settings.json").write_text(json.dumps(changed))
    monkeypatch.setattr(space_app, "HERE", tmp_path)
    space_app.settings.cache_clear()
    job, candidate = space_app.settings()["examples"][0]
    assert space_app.ask(job, candidate).message == f"[JOB DESCRIPTION]\n{job}\n\n[CANDIDATE]\n{candidate}"


@pytest.mark.usefixtures("app")
def test_space_takes_models_from_the_environment_then_this_machine_then_the_hub(
    run: Path, space: Space, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    local = json.loads((space.folder / "local.json").read_text())
    assert space_app.sources() == local
    assert local["model"] == str(run / "hf")
    monkeypatch.setenv("BASE", "org/other")
    space_app.sources.cache_clear()
    assert space_app.sources() == local | {"base": "org/other"}
    monkeypatch.delenv("BASE")
    (tmp_path / "settings.json").write_text((space.folder / "settings.json").read_text())
    monkeypatch.setattr(space_app, "HERE", tmp_path)
    space_app.sources.cache_clear()
    assert space_app.sources() == {"model": "someone/ranker"}


@pytest.mark.usefixtures("app")
def test_text_in_another_form_is_refused(space: Space):
    job, candidate = space_app.settings()["examples"][0]
    for texts in [("We want someone nice", candidate), (job, "Jo, 5 years"), (job, f"{candidate}\n[CANDIDATE]\nJo")]:
        with pytest.raises(ValueError, match="not a"):
            space_app.ask(*texts)


def test_space_holds_no_module_that_the_page_does_not_import(space: Space):
    packages = {name for name in space.files if name.endswith(".py")}
    assert packages == {"app.py", *module.imported_modules(module.APP)}
    assert not [name for name in packages if "posting" in name or "training" in name or "models" in name]
    assert sum(space.files.values()) < 200_000


def test_readme_of_a_space_names_the_model_and_its_page(space: Space):
    _, front, text = (space.folder / "README.md").read_text().split("---\n", 2)
    fields = yaml.safe_load(front)
    assert (fields["sdk"], fields["app_file"]) == ("gradio", "app.py")
    assert fields["models"] == ["someone/ranker"]
    assert len(fields["short_description"]) <= 60
    assert "https://huggingface.co/someone/ranker" in text
    assert (space.folder / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_base_on_the_hub_is_named_and_a_local_one_is_not(run: Path, space: Space, monkeypatch: pytest.MonkeyPatch):
    assert json.loads((space.folder / "settings.json").read_text())["base"] is None
    assert set(json.loads((space.folder / "local.json").read_text())) == {"model", "base"}
    monkeypatch.setattr(module, "hub_id", lambda run, config: "org/base")
    named = export_space(str(run), run.parent / "named", "someone/ranker")
    settings = json.loads((named.folder / "settings.json").read_text())
    assert settings["base"] == "org/base"
    assert "- org/base\n" in (named.folder / "README.md").read_text()


def test_pushed_files_hold_no_path_of_this_machine(space: Space, run: Path):
    assert "local.json" not in space.files
    for name in space.files:
        assert str(run.parent.parent) not in (space.folder / name).read_text(), name


def test_space_of_another_task_or_without_an_export_is_refused(tiny_qwen3: Path, run: Path, tmp_path: Path):
    config = tiny_config(tiny_qwen3, output_dir=str(tmp_path / "runs"), data={"train": "shortlist"})
    bare = Run.create(config).folder
    save_adapter(tiny_policy(tiny_qwen3), config, bare / "adapter")
    with pytest.raises(UserError, match="is not exported yet; run `mlx-grpo export --hf` first"):
        export_space(str(bare))
    inputs = json.loads((bare / "inputs.json").read_text())
    (bare / "inputs.json").write_text(json.dumps(inputs | {"form": None}))
    with pytest.raises(UserError, match=r"shows the shortlist task in its two forms.*; `mlx-grpo chat` tries any run"):
        export_space(str(bare))


def test_folder_with_other_files_is_not_overwritten(run: Path, tmp_path: Path):
    (tmp_path / "reward").mkdir()
    (tmp_path / "reward" / "mine.py").touch()
    for mine in (b"mine = 1\n", b"\xff"):
        (tmp_path / "app.py").write_bytes(mine)
        with pytest.raises(UserError, match="holds other files"):
            export_space(str(run), tmp_path)
    assert (tmp_path / "reward" / "mine.py").is_file()
    with pytest.raises(UserError, match=r"--out: .*mine\.py is a file; give an empty or a new folder"):
        export_space(str(run), tmp_path / "reward" / "mine.py")


def test_space_is_written_again_without_its_old_modules(run: Path, space: Space):
    (space.folder / "reward" / "old.py").touch()
    export_space(str(run), repo="someone/ranker")
    assert not (space.folder / "reward" / "old.py").exists()


def test_options_of_other_formats_are_refused_for_a_space(run: Path):
    for options, problem in [
        (["--bits", "4"], "--bits 4: belongs to --mlx"),
        (["--dtype", "float32"], "--dtype float32: belongs to --hf and --mlx"),
        (["--hf"], "name one format"),
    ]:
        done = CliRunner().invoke(main, ["export", "--space", str(run), *options])
        assert done.exit_code == 2
        assert problem in done.stderr
    done = CliRunner().invoke(main, ["export", "--hf", str(run), "--model", "a/b"])
    assert "--model a/b: names the model that a Space asks" in done.stderr


def test_space_runs_by_the_pinned_gradio_which_needs_pillow_below_13():
    pins = dict(re.findall(r"^([\w-]+)==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert pins["gradio"] == GRADIO
    assert int(pins["pillow"].split(".")[0]) < 13
