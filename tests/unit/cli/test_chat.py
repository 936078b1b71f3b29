"""A run's base and trained model answer what is typed, a held-out prompt, or a job and a candidate."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console
from support.paths import BUNDLED_ROWS
from support.tiny_models import tiny_config, tiny_policy

from mlx_grpo.cli import chat as command
from mlx_grpo.cli.main import main
from mlx_grpo.config.schema import Config
from mlx_grpo.data.dataset import read_rows
from mlx_grpo.data.types import Prompt, Rollout
from mlx_grpo.errors import UserError
from mlx_grpo.evaluation import chat as evaluation
from mlx_grpo.evaluation.chat import Chat
from mlx_grpo.generation.rollout import generate
from mlx_grpo.generation.sampling import Sampling
from mlx_grpo.models.policy import load_adapter, load_policy, save_adapter
from mlx_grpo.runs import ADAPTER, INPUTS, Run
from mlx_grpo.tasks.shortlist.instruction import instruction_of

JOB = "Job Description: Data Analyst\nRequired: Python, SQL\n3-6 years of experience\n"
PERSON = {
    "candidate_id": "C1",
    "profile": {"current_title": "Analyst", "years_of_experience": 4},
    "skills": [{"name": "Python", "proficiency": "advanced", "duration_months": 20}],
    "career_history": [{"title": "Analyst", "company": "Acme", "duration_months": 40}],
}


def make_run(model: Path, folder: Path, **changes: Any) -> Run:
    """Make a run, as if trained, on short rows of the bundle: its policy is not its base."""
    data = folder / "my-data"
    data.mkdir(parents=True)
    for split in ("train", "heldout"):
        rows = read_rows(BUNDLED_ROWS / f"{split}.jsonl.gz")[:4]
        for row in rows:
            row["prompt"] = [{"role": "user", "content": row["prompt"][-1]["content"][:40]}]
        (data / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = {"data": {"train": str(data)}, "eval": {"max_new_tokens": 12}, "output_dir": str(folder / "runs")}
    config = tiny_config(model, **settings, **changes)
    run = Run.create(config)
    save_adapter(trained_policy(model, config, changes), config, run.folder / ADAPTER)
    return run


def trained_policy(model: Path, config: Config, changes: dict[str, Any]) -> Any:
    if config.fine_tune_type == "lora":
        return tiny_policy(model)
    policy = load_policy(config)
    head = policy.model.model.layers[0].mlp.down_proj
    head.weight = head.weight * -1
    return policy


@pytest.fixture(scope="module")
def run(tiny_qwen3: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tiny_qwen3, tmp_path_factory.mktemp("chat"))


def typed(run: Run, *options: str, lines: str | bytes = "") -> Result:
    result = CliRunner().invoke(main, ["chat", str(run.folder), *options], input=lines)
    assert not isinstance(result.exception, Exception), result.exception
    return result


@pytest.mark.parametrize("changes", [{}, {"fine_tune_type": "full", "lora": {}}], ids=["lora", "full"])
def test_each_model_writes_what_it_writes_alone(tiny_qwen3: Path, tmp_path: Path, changes: dict[str, Any]):
    run = make_run(tiny_qwen3, tmp_path, **changes)
    talk = Chat(run)
    prompt = talk.typed_prompt("say a")
    texts = {}
    for name in ("trained", "base", "trained"):
        pieces: list[str] = []
        texts[name] = talk.complete(name, prompt, pieces.append).completion
        assert "".join(pieces) == texts[name]
        assert len(pieces) > 3
    alone = {}
    for name in ("base", "trained"):
        policy = load_policy(run.config)
        if name == "trained":
            load_adapter(policy, run.adapter())
        [rollout] = generate(policy, [prompt], 1, Sampling(12, temperature=0))
        alone[name] = rollout.completion
    assert texts == alone
    assert texts["base"] != texts["trained"]


def test_temperature_draws_by_the_seed(run: Run):
    texts = []
    for seed in (0, 0, 1):
        talk = Chat(run, temperature=2.0, seed=seed)
        texts.append(talk.complete("base", talk.typed_prompt("say a")).completion)
    assert texts[0] == texts[1] != texts[2]


def test_empty_lines_of_a_pipe_take_the_heldout_prompts_in_order(run: Run):
    printed = typed(run, lines="\nsay a\n\n")
    assert printed.exit_code == 0
    first, second = [row["id"] for row in read_rows(Path(run.config.data.train) / "heldout.jsonl")[:2]]
    lines = printed.stdout.splitlines()
    assert lines.index(first) < lines.index(second)
    assert [line for line in lines if line in ("base", "trained")] == ["base", "trained"] * 3
    assert sum(line.startswith("right: ") for line in lines) == 2
    assert sum(line.startswith("reward 0.") for line in lines) == 4
    assert lines.count("(cut off after 12 tokens)") == 6
    assert "\x1b" not in printed.output


def test_a_prompt_as_an_option_is_answered_once_as_json(run: Run):
    printed = typed(run, "--prompt", "say a", "--prompt", "say b", "--max-new-tokens", "5", "--json", lines="say c\n")
    records = [json.loads(line) for line in printed.stdout.splitlines()]
    assert [record["prompt"] for record in records] == ["say a", "say b"]
    talk = Chat(run, max_new_tokens=5)
    reply = talk.reply(talk.complete("base", talk.typed_prompt("say a")), labelled=False)
    assert records[0]["base"] == {**asdict(reply), "reasons": [], "faults": []}
    assert records[0]["base"]["reward"] is None
    assert records[0]["label"] is None


def test_typed_text_follows_the_runs_instruction(run: Run, tmp_path: Path):
    asked = copied(run, tmp_path, instruction=[{"role": "system", "content": "Be short."}])
    text = Chat(asked).typed_prompt("hi").text
    assert text.startswith(
        "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assist"
    )


def test_typed_text_is_the_whole_prompt_of_a_run_on_plain_text(tiny_qwen3: Path, tmp_path: Path):
    run = make_run(tiny_qwen3, tmp_path)
    (Path(run.config.data.train) / "train.jsonl").write_text(json.dumps({"prompt": "plain text"}))
    assert Chat(run).typed_prompt("hi").text == "hi"


def copied(run: Run, folder: Path, **inputs: Any) -> Run:
    """Copy a run and change its record."""
    shutil.copytree(run.folder, folder / "run")
    file = folder / "run" / INPUTS
    file.write_text(json.dumps({**json.loads(file.read_text()), **inputs}))
    return Run(folder / "run")


def answering(text: Callable[[Prompt], str]) -> Callable[..., Rollout]:
    """Return a Chat.complete that writes a text of its own."""

    def complete(talk: Chat, model: str, prompt: Prompt, on_text: Callable[[str], None] = lambda text: None) -> Rollout:
        completion = text(prompt) if model == "trained" else "no JSON"
        for piece in completion.partition(","):
            on_text(piece)
        return Rollout(prompt, (5, 2), completion, "stop")

    return complete


def test_job_and_candidate_of_files_are_asked_and_every_clause_is_marked(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = copied(run, tmp_path, form="compact", instruction=list(instruction_of("compact")))
    (tmp_path / "job.txt").write_text(JOB)
    (tmp_path / "pool.jsonl").write_text(f"{json.dumps({**PERSON, 'candidate_id': 'C0'})}\n{json.dumps(PERSON)}\n")
    answer = {"reasons": ["Python: advanced, 20 months; SQL: expert", "SQL: missing"], "score": 0.4}
    monkeypatch.setattr(Chat, "complete", answering(lambda prompt: json.dumps({**answer, "decision": "reject"})))
    files = ["--jd", str(tmp_path / "job.txt"), "--candidate", str(tmp_path / "pool.jsonl")]
    printed = typed(asked, *files, "--id", "C1")
    assert "C1" in printed.stdout.splitlines()[0]
    assert "Data Analyst, 3-6 years. Required: Python, SQL." in printed.stdout
    assert "Python: advanced, 20 months (confirmed); SQL: expert (refuted)\nSQL: missing (confirmed)" in printed.stdout
    assert "refuted: the profile does not list 'sql'" in printed.stdout
    record = json.loads(typed(asked, *files, "--json").stdout)
    assert record["prompt_id"].endswith("C0")
    assert record["trained"]["reasons"][0][1] == {"text": "SQL: expert", "status": "refuted"}
    assert record["trained"]["verdict"] == "reject"
    assert 0 < record["trained"]["reward"] <= 1
    assert record["base"]["reward"] == 0
    missing = typed(asked, *files, "--id", "C9")
    assert missing.exit_code == 2
    assert "has no candidate 'C9'" in missing.stderr


def test_job_is_refused_by_a_run_of_another_task_with_what_chat_takes(run: Run, tmp_path: Path):
    asked = copied(run, tmp_path, form=None)
    failed = typed(asked, "--jd", "job.txt", "--candidate", "pool.jsonl")
    assert failed.exit_code == 2
    assert failed.stderr.startswith("error: --jd: the prompts of ")
    assert failed.stderr.endswith("ask something else than the shortlist task; give --prompt, or type one\n")


@pytest.mark.parametrize("width", [80, 120])
def test_both_stand_beside_each_other_in_a_terminal(run: Run, width: int, monkeypatch: pytest.MonkeyPatch):
    screen = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    monkeypatch.setattr(command, "console", screen)
    monkeypatch.setattr(Chat, "complete", answering(lambda prompt: "left, right"))
    talk = Chat(run)
    command._answer(talk, talk.typed_prompt("say a"), False, False)
    heads, texts = screen.file.getvalue().splitlines()[-3:-1]
    assert texts.split() == ["no", "JSON", "left,", "right"]
    assert texts.index("left") == width // 2
    assert heads.rpartition("\x1b[2K")[2].index("trained") == width // 2
    assert len(texts) <= width


def test_mistake_at_a_terminal_does_not_end_the_conversation(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    typing = iter(["x" * 600, "say a", ""])
    monkeypatch.setattr(command, "sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    monkeypatch.setattr(command, "_lines", lambda typed: typing)
    told: list[str] = []
    monkeypatch.setattr(command, "tell", lambda *texts: told.extend(texts))
    command._converse(Chat(run), as_json=True)
    assert "prompt tokens and --max-new-tokens 12 exceed the model's context of 512" in told[1]
    answered = [json.loads(line)["prompt_id"] for line in capsys.readouterr().out.splitlines()]
    assert answered == ["typed", read_rows(Path(run.config.data.train) / "heldout.jsonl")[0]["id"]]


def test_ctrl_c_while_the_heldout_prompts_are_read_leaves_them_for_the_next_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def interrupted(run: Run) -> list[Prompt]:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation, "heldout_prompts", interrupted)
    talk = Chat(run)
    with pytest.MonkeyPatch.context() as typing:
        typing.setattr(command, "sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
        typing.setattr(command, "_lines", lambda typed: iter(["", ""]))
        command._converse(talk, as_json=True)
    printed = capsys.readouterr()
    assert "stopped; Ctrl-D ends" in printed.err
    assert len(printed.out.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--jd", "job.txt"], "--jd and --candidate belong together"),
        (["--id", "C1"], "give --jd and --candidate too"),
        (["--prompt", " "], "--prompt: is empty"),
        (["--prompt", "a\udcff"], "bytes that are no UTF-8; write it in UTF-8"),
        (["--prompt", "x" * 600], "--max-new-tokens 12 exceed the model's context of 512"),
    ],
)
def test_a_mistake_on_the_command_line_says_what_to_do(run: Run, options: list[str], told: str):
    failed = typed(run, *options)
    assert failed.exit_code == 2
    assert told in failed.stderr


def test_pipe_that_is_no_utf_8_is_refused_after_its_good_lines(run: Run):
    failed = typed(run, "--json", lines=b"say a\n\xff\xfe\n")
    assert failed.exit_code == 2
    assert failed.stderr.splitlines() == ["error: the prompt holds bytes that are no UTF-8; write it in UTF-8"]
    assert [json.loads(line)["prompt"] for line in failed.stdout.splitlines()] == ["say a"]


def test_run_without_an_adapter_is_not_loaded(run: Run, tmp_path: Path):
    bare = copied(run, tmp_path)
    shutil.rmtree(bare.folder / ADAPTER)
    with pytest.raises(UserError, match="has no adapter yet; let `mlx-grpo train` finish first"):
        Chat(bare)
