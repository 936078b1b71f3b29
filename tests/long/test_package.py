"""What a plain `pip install` brings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from support.paths import ROOT

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts' folder of a new environment with the wheel.

    A full install takes minutes, so a .pth file links the packages that the wheel needs from this environment. This
    environment's own .pth files are not read there, so its editable mlx-grpo can't be imported.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    place = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True
    ).stdout.strip()
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    options = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", *options, str(wheel)], check=True, capture_output=True)
    (Path(place) / "linked.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def run_installed(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the environment in a folder that has nothing of the checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "PATH": f"{installed}:{os.environ['PATH']}"}
    return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_installed_wheel_is_what_is_imported_elsewhere(installed: Path, tmp_path: Path):
    code = "import mlx_grpo, reward, convert; print(mlx_grpo.__file__, reward.__file__, convert.__file__)"
    done = run_installed(installed, tmp_path, "python", "-c", code)
    assert done.returncode == 0, done.stderr
    assert all(Path(file).is_relative_to(installed.parent) for file in done.stdout.split())


def test_doctor_of_an_installed_wheel_answers(installed: Path, tmp_path: Path):
    done = run_installed(installed, tmp_path, "mlx-grpo", "doctor", "--json")
    assert done.returncode == 0, done.stderr
    findings = json.loads(done.stdout)
    assert findings["can_train"] and {"MLX", "Hub", "disk"} <= {finding["subject"] for finding in findings["findings"]}


def test_plan_of_an_installed_wheel_finds_an_example_config_and_a_model_folder(
    installed: Path, tiny_qwen3: Path, tmp_path: Path
):
    model = f"model={tiny_qwen3}"
    limit = "max_completion_length=64"
    done = run_installed(installed, tmp_path, "mlx-grpo", "plan", "qwen3", model, limit, "warm_start.steps=0", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    assert list(tmp_path.iterdir()) == []


def test_wheel_holds_the_example_configs_the_data_and_nothing_of_the_tests(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"mlx_grpo/configs/{path.name}" for path in (ROOT / "configs").glob("*.yaml")} <= names
    assert {f"mlx_grpo/tasks/data/{path.name}" for path in (ROOT / "mlx_grpo/tasks/data").glob("*.jsonl.gz")} <= names
    reporting = {"report.html", "report.css", "report.js", "card.md.jinja", "space.md.jinja"}
    assert {f"mlx_grpo/reporting/{name}" for name in reporting} <= names
    assert {
        "mlx_grpo/tasks/shortlist/vocabulary.json",
        "mlx_grpo/export/space.css",
        "reward/strict.py",
        "convert/hf.py",
    } <= names
    assert not {name for name in names if name.startswith(("tests/", "models/", "runs/"))}
