"""A Space's page as a visitor's browser shows it: real Gradio, a real model in PyTorch, headless Chromium."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.browser import CHROMIUM, Browser
from support.paths import ROOT

from mlx_grpo.config.files import load_config
from mlx_grpo.distributed.launch import free_ports
from mlx_grpo.export.export import export_run
from mlx_grpo.export.space import export_space
from mlx_grpo.models.policy import load_policy, save_adapter
from mlx_grpo.runs import Run

MODEL = ROOT / "models" / "SmolLM2-135M-Instruct"
SECONDS = 300

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not MODEL.is_dir(), reason="needs SmolLM2's weights: make model"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the page of an untrained SmolLM2 run, served in a process that does not find the project."""
    pytest.importorskip("gradio", reason="needs Gradio: pip install 'mlx-grpo[space]'")
    folder = tmp_path_factory.mktemp("page")
    overrides = [f"model={MODEL}", f"output_dir={folder}", "lora.rank=2", "eval.max_new_tokens=24"]
    config = load_config("smollm2", overrides)
    run = Run.create(config, "2026-01-31").folder
    save_adapter(load_policy(config), config, run / "adapter")
    export_run(str(run), ["hf"], verify=False)
    app = export_space(str(run)).folder / "app.py"
    port = free_ports(1)[0]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"GRADIO_SERVER_PORT": str(port), "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(
        [sys.executable, "-u", str(app)], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    try:
        printed = b""
        while b"Running on local URL" not in printed:
            line = process.stdout.readline()
            assert line, printed.decode()
            printed += line
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def browser(page: str, tmp_path: Path) -> Iterator[Browser]:
    """Chromium with the page open."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    opened = Browser(tmp_path)
    opened.look(1280)
    opened.open(page)
    wait(opened, "!!document.querySelector('#judge')")
    yield opened
    opened.close()


def wait(browser: Browser, condition: str) -> None:
    """Wait until an expression in the page is true."""
    end = time.monotonic() + SECONDS
    while not browser.run(condition):
        assert time.monotonic() < end, condition
        time.sleep(0.2)


def box(browser: Browser, name: str) -> dict[str, float]:
    """Return the place of an element on the screen."""
    return json.loads(browser.run(f"JSON.stringify(document.querySelector('{name}').getBoundingClientRect())"))


def test_page_shows_both_answers_beside_each_other_and_below_on_a_phone(browser: Browser, page: str):
    browser.run("document.querySelector('#judge').click()")
    wait(browser, "document.querySelectorAll('#base .verdict, #trained .verdict').length == 2")
    assert browser.run("document.querySelector('#rules').textContent").strip().startswith("By the rules: shortlist")
    for name in ("#base", "#trained"):
        assert "Reward" in browser.run(f"document.querySelector('{name}').textContent")
    assert box(browser, "#base")["y"] == box(browser, "#trained")["y"]
    browser.look(390)
    wait(browser, "document.querySelector('#base').getBoundingClientRect().width < 390")
    assert box(browser, "#base")["y"] < box(browser, "#trained")["y"]
    assert browser.run("document.documentElement.scrollWidth") <= 390
    foreign = [problem for problem in browser.problems if not problem.startswith(page) and "http" in problem[:5]]
    assert foreign == []


def test_text_in_another_form_gets_a_hint(browser: Browser):
    browser.run(
        "(() => { const area = document.querySelector('textarea'); area.value = 'somebody nice';"
        "area.dispatchEvent(new Event('input', { bubbles: true })); })()"
    )
    browser.run("document.querySelector('#judge').click()")
    wait(browser, "document.body.textContent.includes('Write the job as: Data Engineer, 3-6 years')")
