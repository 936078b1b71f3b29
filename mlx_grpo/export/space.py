"""A run as a Space for the Hugging Face Hub: a Gradio page that asks the exported model, and all that it needs."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from convert.hf import MARKER
from mlx_grpo import __version__
from mlx_grpo.data.dataset import context_of, read_rows
from mlx_grpo.errors import UserError
from mlx_grpo.models.folder import ModelFolder
from mlx_grpo.models.policy import find_model, load_tokenizer_of
from mlx_grpo.reporting.card import hub_id
from mlx_grpo.runs import Run
from mlx_grpo.tasks.shortlist.task import Shortlist

ROOT = Path(__file__).resolve().parents[2]
APP = Path(__file__).with_name("space_app.py")
CSS = Path(__file__).with_name("space.css")
CARD = ROOT / "mlx_grpo" / "reporting" / "space.md.jinja"
PLACEHOLDER = "USER/NAME"
GRADIO = "6.31.0"
"""The version that the page was looked at with."""
REQUIREMENTS = f"gradio=={GRADIO}\ntorch>=2.6\ntransformers>=5\njinja2>=3.1\n"
LOCAL = "local.json"
"""Holds paths of this machine, and is never pushed."""
EXAMPLES = 4


class Space(NamedTuple):
    """A written Space."""

    folder: Path
    files: dict[str, int]
    """What a push uploads: each file with its size in bytes."""


def export_space(name: str | None, out: Path | None = None, repo: str | None = None) -> Space:
    """Write a run's Space as `out` (RUN/space by default), which asks the model `repo` of the Hub.

    While RUN/hf is there, the page asks that in its place. Raises UserError where there is no such run, it is none of
    the shortlist task, or it has not been exported yet.
    """
    run = Run.find(name)
    inputs, exported = run.inputs, run.folder / "hf"
    if inputs is None or inputs.form is None:
        raise UserError(
            f"--space: {run.folder}: its page shows the shortlist task in its two forms, and this run has other "
            "prompts; `mlx-grpo chat` tries any run"
        )
    if repo is None and not (exported / MARKER).is_file():
        raise UserError(f"--space: {run.folder} is not exported yet; run `mlx-grpo export --hf` first")
    base = find_model(run.config.model)
    folder = out or run.folder / "space"
    _refuse_foreign(folder)
    settings = _settings(run, base, repo)
    files = dict(_sources()) | {
        "README.md": _card(settings, repo or PLACEHOLDER),
        "requirements.txt": REQUIREMENTS,
        "settings.json": json.dumps(settings, ensure_ascii=False, indent=1) + "\n",
        "LICENSE": _licence(),
        ".gitignore": f"{LOCAL}\n__pycache__/\n",
    }
    local = {"model": exported} if (exported / MARKER).is_file() else {}
    local |= {} if settings["base"] or ModelFolder.read(base).is_packed else {"base": base}
    _write(folder, files, {key: str(path.resolve()) for key, path in local.items()})
    return Space(folder, {path: len(text.encode()) for path, text in files.items()})


def _refuse_foreign(folder: Path) -> None:
    """Raise UserError where `folder` is a file, or holds other files than a Space of ours, which is replaced."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out: {folder} is a file; give an empty or a new folder")
    app, title = folder / "app.py", APP.read_bytes().partition(b"\n")[0]
    ours = app.is_file() and app.read_bytes().startswith(title)
    if folder.exists() and any(folder.iterdir()) and not ours:
        raise UserError(f"--out: {folder} holds other files; give an empty or a new folder")


def _settings(run: Run, base: Path, repo: str | None) -> dict[str, Any]:
    """Return what the page needs to ask and grade as the run did."""
    config, inputs = run.config, run.inputs
    assert inputs is not None and inputs.form is not None
    strict = config.reward.rubric == "strict"
    on_hub = None if ModelFolder.read(base).is_packed else hub_id(run, config)
    title = (repo or run.name).rpartition("/")[2]
    return {
        "title": title,
        "intro": "Judges a candidate for a job. Trained with GRPO on rules, which mark each clause of its reasons.",
        "caution": Shortlist.caution,
        "model": repo,
        "base": on_hub,
        "form": inputs.form,
        "instruction": inputs.instruction,
        "today": inputs.today,
        "enable_thinking": config.data.enable_thinking,
        "max_new_tokens": config.eval.max_new_tokens,
        "stop_ids": sorted(load_tokenizer_of(base).eos_token_ids),
        "reward": {"weights": config.reward.weights, "limits": config.reward.limits} if strict else {},
        "examples": list(_examples(inputs.form)),
    }


def _examples(form: str) -> Iterator[list[str]]:
    """Yield job and candidate of made-up held-out rows, each decision in turn; a user's rows may be real people."""
    _, heldout = Shortlist.bundled["shortlist" if form == "compact" else "shortlist-full"]
    rows = read_rows(heldout)
    for number in range(EXAMPLES):
        wanted = ("shortlist", "reject")[number % 2]
        row = [row for row in rows if row["decision"] == wanted][number * 7]
        yield [text.strip() for _, text in Shortlist().show_row(row, context_of(row)).parts]


def _card(settings: dict[str, Any], repo: str) -> str:
    """Return the Space's README with its front matter."""
    template = jinja2.Environment(keep_trailing_newline=True, undefined=jinja2.StrictUndefined).from_string(
        CARD.read_text(encoding="utf-8")
    )
    shown = {key: settings[key] for key in ("title", "base", "caution")}
    return template.render(**shown, repo=repo, gradio=GRADIO, version=__version__)


def _sources() -> Iterator[tuple[str, str]]:
    """Yield the page and every module of ours that it imports, by path, with its text."""
    yield "app.py", APP.read_text(encoding="utf-8")
    yield "app.css", CSS.read_text(encoding="utf-8")
    for path in sorted(imported_modules(APP)):
        # The package's own __init__ loads a BLAS for MLX.
        text = '"""The parts of mlx-grpo that app.py needs."""\n' if path == "mlx_grpo/__init__.py" else None
        yield path, text or (ROOT / path).read_text(encoding="utf-8")


def imported_modules(source: Path) -> set[str]:
    """Return the modules of ours that a file needs, itself left out, with their packages, as paths below the root."""
    found: set[str] = set()
    waiting = [source]
    while waiting:
        tree = ast.parse(waiting.pop().read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or str(node.module).split(".")[0] not in ("mlx_grpo", "reward"):
                continue
            base = str(node.module).replace(".", "/")
            names = [f"{base}.py", *(f"{base}/{alias.name}.py" for alias in node.names)]
            packages = [f"{folder}/__init__.py" for folder in map(str, [Path(base), *Path(base).parents][:-1])]
            new = {path for path in [*names, *packages] if (ROOT / path).is_file()} - found
            found |= new
            waiting += [ROOT / path for path in new if path != "mlx_grpo/__init__.py"]
    return found


def _licence() -> str:
    """Return the licence of mlx-grpo, which its parts must bring along."""
    try:
        text = distribution("mlx-grpo").read_text("licenses/LICENSE")
    except PackageNotFoundError:
        text = None
    return text or (ROOT / "LICENSE").read_text(encoding="utf-8")


def _write(folder: Path, files: dict[str, str], local: dict[str, str]) -> None:
    """Replace a Space's files; those of an earlier one that no longer belong to it are removed."""
    try:
        for package in ("mlx_grpo", "reward"):
            shutil.rmtree(folder / package, ignore_errors=True)
        for name, text in (files | {LOCAL: json.dumps(local, indent=1) + "\n"}).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out: {folder} can't be written ({error.strerror}); choose another folder") from None
