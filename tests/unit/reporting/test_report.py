"""The report as a reader's browser shows it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.browser import CHROMIUM, Browser
from support.paths import BUNDLED_ROWS
from support.tiny_models import tiny_config

from mlx_grpo.config.files import save_config
from mlx_grpo.data.dataset import read_rows
from mlx_grpo.data.inputs import Inputs
from mlx_grpo.data.types import Prompt
from mlx_grpo.errors import UserError
from mlx_grpo.evaluation.episodes import score_completions
from mlx_grpo.evaluation.run_matrix import RunMatrix
from mlx_grpo.evaluation.summary import summarize
from mlx_grpo.json_files import append_jsonl
from mlx_grpo.reporting.report import gather, render, write_report
from mlx_grpo.reporting.report_curves import curves
from mlx_grpo.rewards import load_judge, load_reward
from mlx_grpo.runs import INPUTS, Run, write_results

EVIL = "<script>alert(1)</script>"
MODELS = {"baseline": "I can't say.", "warm start": None, "trained": None}


def make_run(folder: Path, episodes: int, split: str = "heldout", evaluated: bool = True) -> Path:
    """A run folder as training and evaluation leave it: gold completions, one candidate named like a script."""
    rows = [
        {**row, "id": f"{row['id']}#{copy}"}
        for copy in range(10)
        for row in read_rows(BUNDLED_ROWS / f"{split}.jsonl.gz")
    ]
    rows = rows[:episodes]
    rows[0]["id"] = rows[0]["id"] + EVIL
    said = rows[0]["prompt"][-1]
    said["content"] = said["content"].replace("[CANDIDATE]\n", f"[CANDIDATE]\n{EVIL}, ")
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = {"train": str(folder / "rows.jsonl"), "heldout": str(folder / "rows.jsonl")}
    config = tiny_config(Path("a/tiny"), data=data, reward={"rubric": "strict"})
    save_config(config, folder / "config.yaml")
    Inputs.of(config).write(folder / INPUTS)
    prompts = [Prompt(row["id"], "", (), row, row["prompt"][-1]["content"]) for row in rows]
    if evaluated:
        texts = {name: [text or row["completion"] for row in rows] for name, text in MODELS.items()}
        texts["trained"][0] = json.dumps(
            {"reasons": [f"has {EVIL}", "\ud800", "no SQL; 99 years, above 1-2"], "score": 0.1, "decision": "reject"}
        )
        reward, judge = load_reward(config.reward), load_judge(config)
        models = {name: score_completions(prompts, own, reward, judge) for name, own in texts.items()}
        facts = {"rubric": "strict", "backend": "torch", "device": "cpu", "n_episodes": episodes, "max_new_tokens": 9}
        figures = summarize(models, RunMatrix(warm_starts={"trained": "warm start"}))
        write_results(folder, {**facts, **figures}, models)
    for step in range(30):
        append_jsonl(folder / "metrics.jsonl", {"step": step, "reward": step / 30, "loss": 0.5, "kl": 0.0})
        rewards = {"format_valid": 1.0, "decision_match": 0.0}
        sample = {"step": step, "prompt_id": rows[0]["id"], "completion": rows[0]["completion"], "reward": 0.5}
        append_jsonl(folder / "samples.jsonl", *[{**sample, "rewards": rewards}] * 4)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run"), 24)


@pytest.fixture(scope="module")
def browser(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium with the report open."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    opened = Browser(tmp_path_factory.mktemp("profile"))
    opened.look(1280)
    opened.open(write_report(str(run)).path)
    yield opened
    opened.close()


def visible(browser: Browser) -> int:
    return browser.run("document.querySelectorAll('#episodes tbody:not([hidden])').length")


def choose(browser: Browser, **values: str) -> int:
    """Reset the filters, set some, and count the candidates left."""
    browser.run("document.getElementById('filters').reset(); new Promise((done) => setTimeout(done))")
    for name, value in values.items():
        browser.run(
            f"(() => {{ const field = document.getElementById('filters').{name}; field.value = {value!r};"
            "field.dispatchEvent(new Event('input', { bubbles: true })); })()"
        )
    return visible(browser)


def test_it_opens_without_a_word_on_the_console_or_a_request(browser: Browser):
    assert visible(browser) == 24
    assert browser.run("document.querySelectorAll('#charts svg').length") == 2  # kl is 0 all along
    assert browser.problems == []


def test_a_candidate_named_like_a_script_is_text(browser: Browser, run: Path):
    browser.run("document.querySelector('#episodes .opener').click()")
    assert EVIL in browser.run("document.querySelector('#episodes .opener').textContent")
    assert EVIL in browser.run("document.querySelector('#episodes .shown').textContent")
    assert EVIL in browser.run("[...document.querySelectorAll('#episodes .answer')].at(-1).textContent")
    assert browser.run("document.scripts.length") == 2
    assert browser.problems == []
    assert EVIL not in render(gather(Run(run)))


def test_each_filter_keeps_what_it_names(browser: Browser, run: Path):
    episodes = Run(run).episodes()["trained"]
    shortlists = sum(episode["positive"] for episode in episodes)
    wrong = sum(not episode["correct"] for episode in episodes)
    assert 0 < shortlists < 24
    assert choose(browser, label="shortlist") == shortlists
    assert wrong == 1  # the script's candidate, a shortlist by its label
    assert choose(browser, verdict="shortlist") == shortlists - wrong
    assert choose(browser, correct="false") == wrong
    assert choose(browser, model="0", correct="false") == 24
    assert choose(browser, model="0", verdict="none") == 24
    quality = sum(episode["components"]["reason_quality"] <= 0.99 for episode in episodes)
    assert 0 < quality < 24
    assert choose(browser, component="3") == quality
    assert choose(browser, component="3", most="-1") == 0
    assert "0 of 24" in browser.run("document.getElementById('count').textContent")
    assert choose(browser) == 24
    assert browser.problems == []


def test_the_keyboard_opens_a_candidate(browser: Browser):
    browser.run("[...document.querySelectorAll('#episodes .opener')][1].focus()")
    browser.press("Tab", 9)
    assert browser.run("document.activeElement.matches('.opener:focus-visible')")
    browser.press("Enter", 13, "\r")
    assert browser.run("document.activeElement.getAttribute('aria-expanded')") == "true"
    assert browser.run("document.activeElement.closest('tbody').querySelectorAll('.answer').length") == 3


def test_every_field_has_a_label(browser: Browser):
    fields = "[...document.querySelectorAll('select, input')]"
    assert browser.run(f"{fields}.every((field) => field.labels.length === 1 && field.labels[0].textContent)")


def test_the_steps_can_be_walked_through(browser: Browser):
    browser.run("[...document.querySelectorAll('#stepper button')].at(-1).click()")
    assert browser.run("document.querySelector('#stepper select').value") == "1"
    assert browser.run("document.querySelectorAll('#groups .answer mark.confirmed').length") > 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_whole_and_each_scheme_has_its_colours(browser: Browser, scheme: str):
    browser.look(390, scheme=scheme)
    assert browser.run("document.documentElement.scrollWidth") <= 390
    page = browser.run("getComputedStyle(document.body).backgroundColor")
    assert page == {"light": "rgb(255, 255, 255)", "dark": "rgb(19, 22, 27)"}[scheme]
    browser.look(1280)


def test_three_hundred_full_episodes_stay_under_5_mb(tmp_path: Path):
    report = write_report(str(make_run(tmp_path, 300, "heldout-full")))
    assert report.episodes == 300
    assert report.size < 5_000_000
    assert report.missing == []


def test_many_samples_are_thinned_and_the_page_says_so(tmp_path: Path):
    run = make_run(tmp_path, 2, evaluated=False)
    line = (run / "samples.jsonl").read_text().splitlines()[0]
    for step in range(30, 80):
        sample = json.loads(line) | {"step": step, "completion": "word " * 2000}
        append_jsonl(run / "samples.jsonl", *[sample] * 10)
    some, every = gather(Run(run))["samples"]["shown"]
    assert (some, every) == (20, 80)
    assert write_report(str(run)).size < 2_000_000


def test_a_run_that_was_not_evaluated_says_what_is_missing(tmp_path: Path):
    run = make_run(tmp_path, 2, evaluated=False)
    (run / "samples.jsonl").unlink()
    report = write_report(str(run), tmp_path / "page.html")
    assert report.path == tmp_path / "page.html"
    assert [line.partition(":")[0] for line in report.missing] == ["eval.json", "samples.jsonl"]


def test_old_single_file_gives_the_same_page_as_the_new_two(tmp_path: Path):
    run = make_run(tmp_path, 3)
    page = render(gather(Run(run)))
    results = {**Run(run).results(), "models": Run(run).episodes()}
    del results["components"]
    (run / "eval.json").write_text(json.dumps(results))
    (run / "episodes.jsonl").unlink()
    assert render(gather(Run(run))) == page


def test_figures_without_episodes_give_the_tables_and_say_what_is_missing(tmp_path: Path):
    run = make_run(tmp_path, 3)
    tables = gather(Run(run))["tables"]
    (run / "episodes.jsonl").unlink()
    records = gather(Run(run))
    assert records["tables"] == tables
    assert records["episodes"] == []
    assert records["missing"] == ["episodes.jsonl: not in this folder, so no held-out completions are shown"]


def test_a_missing_dataset_leaves_the_prompts_out_and_two_models_are_enough(tmp_path: Path):
    run = make_run(tmp_path, 3)
    results, episodes = Run(run).results(), Run(run).episodes()
    for by_model in (episodes, results["means"], results["differences"]):
        by_model.pop("warm start", None)
    results.pop("grpo_over_warm_start")
    write_results(run, results, episodes)
    (run / "rows.jsonl").unlink()
    records = gather(Run(run))
    assert records["models"] == ["baseline", "trained"]
    assert all("no such file" in line for line in records["missing"])
    assert records["episodes"][0]["shown"] == []


def test_a_torn_file_and_a_page_without_a_place_are_the_users_to_mend(run: Path, tmp_path: Path):
    with pytest.raises(UserError, match="--out"):
        write_report(str(run), tmp_path / "absent" / "page.html")
    torn = make_run(tmp_path, 2)
    (torn / "eval.json").write_text('{"models": ')
    with pytest.raises(UserError, match="run it again"):
        write_report(str(torn))


def test_curves_leave_out_what_is_nothing_and_gaps():
    metrics = [{"step": 0, "reward": 0.0, "kl": 0.0, "grad_norm": float("inf")}, {"step": 1, "reward": 0.0, "loss": 2}]
    assert curves(metrics) == [
        {"title": "reward", "series": [{"name": "training", "points": [[1, 0.0], [2, 0.0]]}]},
        {"title": "loss", "series": [{"name": "loss", "points": [[2, 2.0]]}]},
    ]
