"""Make train and held-out rows from a user's job description and candidate pool: `mlx-grpo data build`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, get_args

from mlx_grpo.errors import UserError
from mlx_grpo.json_files import write_jsonl
from mlx_grpo.tasks.shortlist.condense import compact_view, condense, condense_job
from mlx_grpo.tasks.shortlist.instruction import Wording
from mlx_grpo.tasks.shortlist.jd import read_job
from mlx_grpo.tasks.shortlist.labels import Labels, labels_of
from mlx_grpo.tasks.shortlist.pool import load_pool
from mlx_grpo.tasks.shortlist.prompt import range_text, render
from mlx_grpo.tasks.shortlist.records import Candidate, Form, Job
from mlx_grpo.tasks.shortlist.rows import Row, make_row
from mlx_grpo.tasks.shortlist.vocabulary import VOCABULARY

DEFAULT_BUDGET: dict[Form, int] = {"compact": 200, "full": 1000}
# The job's prose gets a quarter of what its skills leave of the default budget, most of which is for the candidate,
# and all that a larger budget has beyond: a step runs the job once for all its candidates.
JOB_SHARE = 4

CountTokens = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Spread:
    """Least, mean and most of a number of tokens."""

    least: int
    mean: float
    most: int


@dataclass(frozen=True, slots=True)
class BuildSummary:
    """The result of `build_dataset`, for printing or as JSON (`dataclasses.asdict`)."""

    train_path: Path
    heldout_path: Path
    job: Job
    """As every prompt contains it."""
    train: int
    heldout: int
    train_shortlist: int
    heldout_shortlist: int
    token_budget: int
    prompt_tokens: Spread
    """System and user text; a chat template adds about fifteen."""
    completion_tokens: Spread
    condensed: tuple[str, ...]
    """The cuts made to meet the budget, one line per job or candidate; no cut changed a fit."""
    notes: tuple[str, ...]
    """Facts that are allowed but worth knowing before training."""
    problems: tuple[str, ...]
    """Faults of rows left out under `skip_bad`; empty otherwise."""

    def lines(self) -> list[str]:
        """Return the summary as lines to print."""
        job, prompt, completion = self.job, self.prompt_tokens, self.completion_tokens
        return [
            f"job: {job.title}; required: {', '.join(job.required)}; nice: {', '.join(job.nice) or 'none found'}",
            f"{self.train_path}: {self.train} rows, {self.train_shortlist} shortlist",
            f"{self.heldout_path}: {self.heldout} rows, {self.heldout_shortlist} shortlist",
            f"tokens of user messages: {prompt.least} to {prompt.most}, mean {prompt.mean:.0f}, "
            f"budget {self.token_budget}; completions of the warm start: mean {completion.mean:.0f}",
            *(f"condensed: {line}" for line in self.condensed[:3]),
            *([f"condensed: and {len(self.condensed) - 3} more"] if len(self.condensed) > 3 else []),
            *(f"note: {line}" for line in self.notes),
            *(f"left out: {line}" for line in self.problems),
        ]


def build_dataset(
    jd_path: Path,
    candidates_path: Path,
    out_dir: Path,
    *,
    count_tokens: CountTokens,
    form: Form = "compact",
    token_budget: int | None = None,
    heldout_fraction: float = 0.2,
    seed: int = 0,
    skip_bad: bool = False,
    labels: Labels = "rule",
    wording: Wording = "example",
) -> BuildSummary:
    """Write `out_dir`/train.jsonl and heldout.jsonl from one job description and one pool.

    The same input gives the same bytes. `token_budget` limits the user message (default 200 compact, 1000 full).
    Prompts are cut at sentence and field boundaries, and no cut changes the fit. Raises UserError with
    every fault of every row. With `skip_bad`, bad rows are left out and the summary lists their faults.
    `labels` are the rule's, or each candidate's rank in this pool; `wording` is that of the prompt.
    """
    budget = DEFAULT_BUDGET.get(form, 1) if token_budget is None else token_budget
    job, pool, faults = _load(jd_path, candidates_path, _bad_options(form, budget, heldout_fraction))
    count = message_counter(count_tokens, form)
    job, cuts = job_for_prompt(job, form, budget, count)
    kept, candidate_cuts, too_long = _candidates_for_prompts(job, pool, form, budget, count, candidates_path.name)
    faults += too_long
    if faults and not skip_bad:
        raise UserError(*faults)
    if len(kept) < 2:
        raise UserError(f"{candidates_path}: {len(kept)} usable candidates: two sets need at least 2", *faults)
    labelled = zip(kept, labels_of(job, kept, labels), strict=True)
    rows = [make_row(job, one, form, kind="pool", label=label, wording=wording) for one, label in labelled]
    return BuildSummary(
        **_write_split(out_dir, *split(rows, heldout_fraction, seed)),
        job=job,
        token_budget=budget,
        prompt_tokens=_spread([count(job, candidate) for candidate in kept]),
        completion_tokens=_spread([count_tokens(row["completion"]) for row in rows]),
        condensed=tuple(cuts + candidate_cuts),
        notes=tuple(_notes(job, rows, labels)),
        problems=tuple(faults),
    )


def _write_split(out_dir: Path, train: list[Row], heldout: list[Row]) -> dict[str, Any]:
    """Write both files; return their fields of the summary."""
    fields: dict[str, Any] = {}
    for name, rows in (("train", train), ("heldout", heldout)):
        try:
            out_dir.mkdir(parents=True, exist_ok=True)
            write_jsonl(out_dir / f"{name}.jsonl", rows)
        except OSError as error:
            raise UserError(f"{out_dir}: can't be written ({error.strerror}); choose another folder") from None
        fields[f"{name}_path"] = out_dir / f"{name}.jsonl"
        fields[name] = len(rows)
        fields[f"{name}_shortlist"] = _shortlists(rows)
    return fields


def split(rows: list[Row], heldout_fraction: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Split rows into train and held-out rows, with the same share of each label in both.

    Held-out rows alternate between the labels as long as both last.
    """
    rng = Random(f"split {seed}")
    train: list[Row] = []
    held: list[list[Row]] = []
    for decision in ("shortlist", "reject"):
        group = [row for row in rows if row["decision"] == decision]
        rng.shuffle(group)
        # A label's only row is for training: held out alone it would teach nothing and prove little.
        count = min(round(heldout_fraction * len(group)), max(len(group) - 1, 0))
        held.append(group[:count])
        train += group[count:]
    if not any(held):
        held[1].append(train.pop())
    rng.shuffle(train)
    longest = max(map(len, held))
    return train, [group[at] for at in range(longest) for group in held if at < len(group)]


def _bad_options(form: str, budget: int, heldout_fraction: float) -> list[str]:
    problems = []
    if form not in get_args(Form):
        problems.append(f"form is {form!r}: must be one of {', '.join(get_args(Form))}")
    if budget <= 0:
        problems.append(f"token_budget is {budget}: must be positive")
    if not 0 < heldout_fraction < 1:
        problems.append(f"heldout_fraction is {heldout_fraction}: must lie between 0 and 1, such as 0.2")
    return problems


def _load(jd_path: Path, candidates_path: Path, problems: list[str]) -> tuple[Job, list[Candidate], list[str]]:
    """Return the job, the good candidates and the faults of the others.

    Raises UserError with every problem where a file cannot be used or an option is bad.
    """
    pool, faults, unreadable = _load_pool(candidates_path)
    job, job_faults = _load_job(jd_path, pool)
    if problems or unreadable or job is None:
        raise UserError(*problems, *job_faults, *unreadable, *faults)
    return job, pool, faults


def _load_pool(path: Path) -> tuple[list[Candidate], list[str], list[str]]:
    """Return good candidates, the faults of the others, and why the file as a whole cannot be read."""
    try:
        return *load_pool(path), []
    except UserError as error:
        return [], [], error.problems


def _load_job(path: Path, pool: list[Candidate]) -> tuple[Job | None, list[str]]:
    counts = Counter(skill.name for candidate in pool for skill in candidate.skills)
    try:
        return read_job(path, [name for name, _ in counts.most_common()], VOCABULARY.skill_names), []
    except UserError as error:
        return None, error.problems


def message_counter(count_tokens: CountTokens, form: Form) -> Callable[[Job, Candidate], int]:
    """Return a function that counts the tokens of a user message."""
    return lambda job, candidate: count_tokens(render(job, candidate, form))


def job_for_prompt(job: Job, form: Form, budget: int, count: Callable[[Job, Candidate], int]) -> tuple[Job, list[str]]:
    """Return the job as all prompts contain it, and its cuts in words.

    It is the same for every candidate, so that the prompts share a prefix.
    """
    if form == "compact":
        return replace(job, text=""), [f"job {job.id}: the compact form shows its title, years and skills only"]
    nobody = Candidate("Nobody", 0, (), ())
    bare = count(replace(job, text=""), nobody)
    usual = min(budget, DEFAULT_BUDGET[form])
    limit = bare + (usual - bare) // JOB_SHARE + (budget - usual)
    short = condense_job(job, lambda smaller: count(smaller, nobody) <= limit)
    if short.text == job.text:
        return short, []
    return short, [f"job {job.id}: text cut from {len(job.text)} to {len(short.text)} characters, in whole sentences"]


def candidate_for_prompt(
    job: Job, candidate: Candidate, form: Form, budget: int, count: Callable[[Job, Candidate], int]
) -> tuple[Candidate, tuple[str, ...], str]:
    """Return a candidate as its prompt contains it, the cuts in words, and why it does not fit ("" if it does).

    The cuts that the compact form makes of every candidate are not listed.
    """
    short = compact_view(job, candidate) if form == "compact" else candidate
    short, done = condense(job, short, lambda smaller: count(job, smaller) <= budget)
    tokens = count(job, short)
    fault = (
        f"user message of {tokens} tokens, {tokens - budget} over the budget, nothing left to cut that the fit does "
        f"not depend on: raise token_budget from {budget} to {tokens}"
    )
    return short, done, fault if tokens > budget else ""


def _candidates_for_prompts(
    job: Job, pool: list[Candidate], form: Form, budget: int, count: Callable[[Job, Candidate], int], name: str
) -> tuple[list[Candidate], list[str], list[str]]:
    """Return the candidates as their prompts contain them, the cuts, and a line for each that does not fit."""
    kept: list[Candidate] = []
    cuts: list[str] = []
    faults: list[str] = []
    for candidate in pool:
        short, done, fault = candidate_for_prompt(job, candidate, form, budget, count)
        if fault:
            faults.append(f"{name} ({candidate.id}): {fault}")
            continue
        dropped = _dropped(candidate, short) if form == "compact" else ", ".join(done)
        if dropped:
            cuts.append(f"{candidate.id}: without {dropped}")
        kept.append(short)
    return kept, cuts, faults


def _dropped(whole: Candidate, short: Candidate) -> str:
    pairs = (("skills", len(whole.skills), len(short.skills)), ("jobs", len(whole.roles), len(short.roles)))
    return ", ".join(f"{had - kept} of {had} {name}" for name, had, kept in pairs if kept < had)


def _shortlists(rows: list[Row]) -> int:
    return sum(row["decision"] == "shortlist" for row in rows)


def _spread(values: list[int]) -> Spread:
    return Spread(min(values), round(sum(values) / len(values), 1), max(values))


def _notes(job: Job, rows: list[Row], labels: Labels) -> list[str]:
    notes = [f"read from the description: {job.title}, {range_text(job)}, required {', '.join(job.required)}"]
    share = _shortlists(rows) / len(rows)
    if not 0.2 <= share <= 0.8:
        remedy = {
            "rule": "add candidates of the other label, or take --labels rank",
            "rank": "add candidates that differ, since equal ones share a place",
        }
        notes.append(
            f"{share:.0%} of {len(rows)} candidates are a shortlist: one answer is right nearly always, so little can "
            f"be learned about the decision; {remedy[labels]}"
        )
    return notes
