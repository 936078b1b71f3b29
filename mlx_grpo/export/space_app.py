"""A page that judges one candidate for one job by a trained model and by its base, and marks every reason.

`mlx-grpo export --space` copies this file as app.py beside settings.json and the modules that it imports. It runs
without mlx-grpo and without MLX: `pip install -r requirements.txt && python app.py`.

The models come from the Hub, or from local.json, or from the environment variables MODEL and BASE.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mlx_grpo.data.chat import render as render_chat
from mlx_grpo.data.thinking import OPEN, strip_thinking
from mlx_grpo.ranking.answers import Answer, Mark, Reason, read_answer
from mlx_grpo.tasks.shortlist.facts import facts_of
from mlx_grpo.tasks.shortlist.fit import fit
from mlx_grpo.tasks.shortlist.instruction import messages
from mlx_grpo.tasks.shortlist.prompt import CANDIDATE, JOB, parse
from mlx_grpo.tasks.shortlist.records import Fit
from reward import STRICT
from reward.breakdown import COMPONENTS

if TYPE_CHECKING:  # loaded on first use, so that the rest runs without them
    import gradio as gr
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

HERE = Path(__file__).resolve().parent
LONGEST_INPUT = 8000  # characters
NARROWEST = 320  # pixels of a column
SIGNS = {"confirmed": "✓", "refuted": "✗", "unread": "?"}
LEGEND = {
    "confirmed": "the text of job and candidate says so",
    "refuted": "it says otherwise",
    "unread": "the rules can't read this clause, so it counts for nothing",
}
HINT = {
    "compact": (
        "Data Engineer, 3-6 years. Required: Kafka, SQL. Nice: Airflow.",
        "Data Analyst, 4 years. Skills: SQL (advanced, 30m). Recent: Data Analyst at Larkfield, 42m (SQL).",
    ),
    "full": (
        "Title: Data Engineer / Experience: 3-6 years / Required: Kafka, SQL, each on its own line",
        "Title: ... / Experience: 4 years / Skills: SQL (advanced, 30m) / Career: / - Data Analyst at Larkfield, 42m",
    ),
}
CSS = (HERE / "app.css").read_text(encoding="utf-8") if (HERE / "app.css").is_file() else ""


class Question(NamedTuple):
    """A job and a candidate as the model gets them, and what the rules know of them."""

    message: str
    facts: dict[str, Any]
    gold: Fit


class ChatTokenizer:
    """A tokenizer of transformers with the attributes that `render_chat` reads of mlx-lm's."""

    think_start = think_end = None

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.has_chat_template = bool(tokenizer.chat_template)
        self.chat_template = tokenizer.chat_template
        self.added_tokens_decoder = tokenizer.added_tokens_decoder
        self.apply_chat_template = tokenizer.apply_chat_template


@lru_cache
def settings() -> dict[str, Any]:
    """Return what the export wrote down of the run: its prompts, its rubric and its models."""
    return json.loads((HERE / "settings.json").read_text(encoding="utf-8"))


@lru_cache
def sources() -> dict[str, str]:
    """Return the folder or Hub name of the trained model and, where it has one, of the base."""
    local = json.loads((HERE / "local.json").read_text(encoding="utf-8")) if (HERE / "local.json").is_file() else {}
    here = {name: path for name, path in local.items() if Path(path).is_dir()}
    named = {name: settings()[name] for name in ("model", "base") if settings()[name]}
    given = {name: os.environ[name.upper()] for name in ("model", "base") if os.environ.get(name.upper())}
    found = named | here | given
    if "model" not in found:
        raise SystemExit("no model: set MODEL to the folder that `mlx-grpo export --hf` wrote, or to its Hub name")
    return found


def ask(job: str, candidate: str) -> Question:
    """Return the question for two texts in the form of the prompts; raise ValueError where they are in another one."""
    form, instruction = settings()["form"], settings()["instruction"]
    read_job, profile = parse(f"{JOB}\n{job.strip()}\n{CANDIDATE}\n{candidate.strip()}", form)
    chat = messages(read_job, profile, form, instruction)
    return Question(chat[-1]["content"], facts_of(read_job, profile), fit(read_job, profile))


def prompt_text(question: Question, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the whole prompt, as the model was trained on it."""
    messages = [*settings()["instruction"], {"role": "user", "content": question.message}]
    return render_chat(messages, ChatTokenizer(tokenizer), settings()["enable_thinking"], settings()["today"])


@lru_cache
def tokenizer() -> PreTrainedTokenizerBase:
    """Return the trained model's tokenizer, which is the base's too."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(sources()["model"])


@lru_cache
def load(name: str) -> PreTrainedModel:
    """Return the model of a folder or of the Hub."""
    import torch
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.float32 if device == "cpu" else "auto"  # many CPUs are slow in half precision
    return AutoModelForCausalLM.from_pretrained(name, dtype=dtype, use_safetensors=True).to(device).eval()


def complete(name: str, prompt: str) -> str:
    """Return a model's greedy completion of a prompt."""
    import torch

    model, stops = load(name), settings()["stop_ids"]
    ids = tokenizer()(prompt, add_special_tokens=False, return_tensors="pt").to(model.device)
    with torch.inference_mode():
        output = model.generate(
            **ids,
            max_new_tokens=settings()["max_new_tokens"],
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            eos_token_id=stops,
            pad_token_id=stops[0],
        )
    return tokenizer().decode(output[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)


def judge(job: str, candidate: str) -> Iterator[tuple[str, str, str]]:
    """Yield the rules' verdict, the base's answer and the trained model's as HTML, each as soon as it is there."""
    import gradio as gr

    try:
        question = ask(job, candidate)
    except (ValueError, KeyError):
        job_hint, candidate_hint = HINT[settings()["form"]]
        raise gr.Error(f"Write the job as: {job_hint} And the candidate as: {candidate_hint}", duration=None) from None
    prompt, found = prompt_text(question, tokenizer()), sources()
    rules, waiting = verdict_of_rules(question), box("Trained", '<p class="quiet">writes ...</p>')
    yield rules, "", waiting
    opened = prompt.rstrip().endswith(OPEN)
    trained = answer_box("Trained", complete(found["model"], prompt), question, opened)
    if "base" not in found:
        yield rules, "", trained
        return
    yield rules, box("Base", '<p class="quiet">writes ...</p>'), trained
    yield rules, answer_box("Base", complete(found["base"], prompt), question, opened), trained


def verdict_of_rules(question: Question) -> str:
    """Return the score and decision that the rules compute from the two texts, as HTML."""
    gold = question.gold
    return f'<p class="rules">By the rules: <b>{gold.decision}</b>, fit {gold.score:.2f}</p>'


def answer_box(title: str, completion: str, question: Question, opened: bool = False) -> str:
    """Return a completion as HTML: decision and score, its reasons with each clause marked, and its grade."""
    rubric = STRICT.with_(**settings()["reward"])
    answer = read_answer("", completion, question.facts, rubric, opened)
    gold = question.gold
    text = strip_thinking(completion, opened)
    graded = rubric(text, decision=gold.decision, score=gold.score, facts=question.facts)
    rows = []
    for component in COMPONENTS:
        why = "; ".join(finding.text for finding in graded.findings if finding.component == component)
        mark = getattr(graded, component)
        name = component.replace("_", " ")
        rows.append(f"<dt><b>{mark:.2f}</b> {name}</dt><dd>{escape(why)}</dd>")
    parts = [
        headline(answer, gold),
        *reasons(answer),
        f"<details><summary>Reward <b>{graded.total:.2f}</b></summary><dl>{''.join(rows)}</dl></details>",
        f"<details><summary>What the model wrote</summary><pre>{escape(completion)}</pre></details>",
    ]
    return box(title, "".join(parts))


def box(title: str, inner: str) -> str:
    """Return a frame with a title around HTML."""
    return f'<section class="answer"><h3>{title}</h3>{inner}</section>'


def headline(answer: Answer, gold: Fit) -> str:
    """Return decision and score, or why the completion is no answer, as HTML."""
    if answer.score is None:
        return f'<p class="verdict invalid">no valid answer</p><p class="quiet">{escape(answer.note)}</p>'
    right = answer.decision == gold.decision
    note = f'<p class="quiet">{escape(answer.note)}</p>' if answer.note else ""
    return (
        f'<p class="verdict {"right" if right else "wrong"}">{answer.decision} <span>{answer.score:.2f}</span>'
        f"<small>{'agrees with' if right else 'contradicts'} the rules</small></p>{note}"
    )


def reasons(answer: Answer) -> list[str]:
    """Return the reasons as an HTML list, each clause marked; nothing where there is no valid answer."""
    items = [f"<li>{' '.join(map(clause, reason.marks))}{faults(reason)}</li>" for reason in answer.reasons]
    return [f"<ul>{''.join(items)}</ul>"] if items else []


def faults(reason: Reason) -> str:
    """Return what contradicts a reason, as HTML; a phone has no pointer to rest on a clause."""
    whys = [escape(mark.why) for mark in reason.marks if mark.status == "refuted"]
    return f'<small class="quiet">{"<br>".join(whys)}</small>' if whys else ""


def clause(mark: Mark) -> str:
    """Return one clause as HTML, with its mark, and the reason for it where the pointer rests."""
    return f'<span class="{mark.status}" title="{escape(mark.why)}">{SIGNS[mark.status]} {escape(mark.text)}</span>'


def legend() -> str:
    """Return what the marks mean, as HTML."""
    items = (f'<span class="{name}">{SIGNS[name]} {name}</span> {text}' for name, text in LEGEND.items())
    return f'<p class="legend">{"<br>".join(items)}</p>'


def page() -> gr.Blocks:
    """Build the page."""
    import gradio as gr

    told, first = settings(), settings()["examples"][0]
    with gr.Blocks(title=told["title"], analytics_enabled=False) as blocks:
        gr.Markdown(f"# {told['title']}\n{told['intro']}")
        with gr.Row():  # which breaks where two columns do not fit
            with gr.Column(min_width=NARROWEST):
                job = gr.Textbox(first[0], label="Job", lines=5, max_length=LONGEST_INPUT)
            with gr.Column(min_width=NARROWEST):
                candidate = gr.Textbox(first[1], label="Candidate", lines=5, max_length=LONGEST_INPUT)
        button = gr.Button("Judge", variant="primary", elem_id="judge")
        rules = gr.HTML(elem_id="rules")
        with gr.Row():
            with gr.Column(min_width=NARROWEST, visible="base" in sources()):
                base = gr.HTML(elem_id="base")
            with gr.Column(min_width=NARROWEST):
                trained = gr.HTML(elem_id="trained")
        gr.HTML(legend())
        gr.Examples(told["examples"], [job, candidate], label="Made-up candidates")
        gr.Markdown(told["caution"])
        button.click(judge, [job, candidate], [rules, base, trained])
    return blocks


def main() -> None:
    """Load the models and serve the page; end with one line where a package or a model is missing."""
    try:
        import gradio as gr

        for name in sources().values():
            load(name)
    except ImportError as error:
        raise SystemExit(f"{error}: run `pip install -r {HERE / 'requirements.txt'}`") from None
    except OSError as error:
        reason = " ".join(str(error).split())[:300]
        raise SystemExit(f"a model can't be loaded: {reason}; set MODEL and BASE to other ones") from None
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    page().launch(theme=theme, css=CSS, footer_links=["gradio"])


if __name__ == "__main__":
    main()
