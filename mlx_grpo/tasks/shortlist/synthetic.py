"""The bundled benchmark: made-up jobs and candidates from 24 lines of work, written by `mlx-grpo data synthetic`.

81 jobs, 15 of them held out, six of those from lines of work that the training set lacks. No job and no candidate is
in both sets. Half of each set is a shortlist. Held-out rows are ordered so that the first N have both labels in equal
parts, and as many jobs as possible.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

from mlx_grpo.json_files import write_jsonl
from mlx_grpo.tasks.shortlist.candidates import draw
from mlx_grpo.tasks.shortlist.condense import compact_view
from mlx_grpo.tasks.shortlist.records import Candidate, Job
from mlx_grpo.tasks.shortlist.rows import Row, make_row
from mlx_grpo.tasks.shortlist.vocabulary import VOCABULARY

DATA = Path(__file__).parents[1] / "data"
"""The folder of the bundled rows; `mlx-grpo data synthetic --out mlx_grpo/tasks/data` writes them again."""
SEED = 0
TRAIN_PER_JOB = 20
HELDOUT_PER_JOB = 16
FULL_TRAIN_ROWS = 300
"""The number of training rows bundled in the full form; with more candidates for each job, all rows are written."""
FULL_HELDOUT_ROWS = 96

JOBS_PER_FIELD = 3
UNSEEN_FIELDS = ("aviation", "pharmacy")
HELDOUT_SEEN_FIELDS = 9
# The 20 candidates of one job, half of them a shortlist; other sizes keep the proportions.
_SHORTLIST_KINDS = {"strong": 7, "partial_yes": 3}
_REJECT_KINDS = {"partial_no": 2, "near_miss": 3, "stuffed": 3, "impossible": 2}

Pair = tuple[Job, Candidate, str]
"""A job, a whole profile, and the kind of candidate."""


def make_jobs(seed: int = SEED) -> tuple[list[Job], list[Job]]:
    """Make the training jobs and the held-out ones, each with the fields of the full form."""
    rng = Random(f"jobs {seed}")
    train: list[Job] = []
    heldout: list[Job] = []
    seen = [name for name in VOCABULARY.fields if name not in UNSEEN_FIELDS]
    with_heldout = rng.sample(seen, HELDOUT_SEEN_FIELDS)
    for name in VOCABULARY.fields:
        count = JOBS_PER_FIELD + (name in with_heldout)
        jobs = [_job(name, number, title, rng) for number, title in enumerate(_titles(name, count, rng))]
        if name in UNSEEN_FIELDS:
            heldout += jobs
        else:
            train += jobs[:JOBS_PER_FIELD]
            heldout += jobs[JOBS_PER_FIELD:]
    rng.shuffle(heldout)
    return train, heldout


def make_pairs(jobs: list[Job], per_job: int, first_id: int, seed: int = SEED) -> list[Pair]:
    """Make `per_job` candidates for each job; ids count from `first_id`, and every candidate belongs to one job."""
    pairs: list[Pair] = []
    for job in jobs:
        rng = Random(f"candidates {seed} {job.id}")
        for kind in _kinds(per_job):
            _, candidate = draw(job, kind, f"CAND_{first_id + len(pairs):07d}", rng)
            pairs.append((job, candidate, kind.removesuffix("_yes").removesuffix("_no")))
    return pairs


def make_bundle(
    seed: int = SEED, train_per_job: int = TRAIN_PER_JOB, heldout_per_job: int = HELDOUT_PER_JOB
) -> dict[str, list[Row]]:
    """Make the rows of each file name, for both forms; a function of its arguments alone."""
    train_jobs, heldout_jobs = make_jobs(seed)
    train = make_pairs(train_jobs, train_per_job, 1, seed)
    Random(f"order {seed}").shuffle(train)
    heldout = _balanced(make_pairs(heldout_jobs, heldout_per_job, 1 + len(train), seed), seed)
    whole = train if train_per_job > TRAIN_PER_JOB else train[:FULL_TRAIN_ROWS]
    return {
        "train.jsonl.gz": [_compact_row(pair) for pair in train],
        "heldout.jsonl.gz": [_compact_row(pair) for pair in heldout],
        "train-full.jsonl.gz": [_full_row(pair) for pair in whole],
        "heldout-full.jsonl.gz": [_full_row(pair) for pair in heldout[:FULL_HELDOUT_ROWS]],
    }


def balance_table(rows: list[Row]) -> str:
    """Count rows and shortlists of each kind, as lines to print."""
    total = Counter(row["kind"] for row in rows)
    yes = Counter(row["kind"] for row in rows if row["decision"] == "shortlist")
    lines = [f"  {kind:<11}{yes[kind]:5d} shortlist {total[kind] - yes[kind]:5d} reject" for kind in sorted(total)]
    share = sum(yes.values()) / len(rows)
    return "\n".join([*lines, f"  {'all':<11}{share:9.1%} shortlist of {len(rows)}"])


def _titles(name: str, count: int, rng: Random) -> list[str]:
    return rng.sample(VOCABULARY.fields[name].titles, count)


def _job(name: str, number: int, title: str, rng: Random) -> Job:
    # Mostly three to five: every skill costs ten tokens in each prompt.
    count = rng.choices((3, 4, 5, 6), (35, 35, 22, 8))[0]
    skills = rng.sample(VOCABULARY.fields[name].skills, count + 1)
    low = rng.randint(1, 6)
    texts = rng.sample(VOCABULARY.job_texts, 4)
    return Job(
        title=f"Senior {title}" if low >= 5 and rng.random() < 0.5 else title,
        required=tuple(skills[:-1]),
        nice=(skills[-1],) if rng.random() < 0.3 else (),
        min_years=low,
        max_years=low + rng.randint(2, 5) if rng.random() < 0.8 else None,
        text=" ".join(text.format(title=title, a=skills[0]) for text in texts),
        id=f"{name.replace(' ', '-')}-{number + 1}",
        field=name,
    )


def _kinds(count: int) -> list[str]:
    """Return `count` kinds in the proportions of the tables, a shortlist and a reject in turn."""
    shortlist = [kind for kind, share in _SHORTLIST_KINDS.items() for _ in range(share)]
    reject = [kind for kind, share in _REJECT_KINDS.items() for _ in range(share)]
    kinds = []
    for index in range(count):
        group = reject if index % 2 else shortlist
        # A stride of three, coprime to ten, visits every kind early, so that small counts keep the proportions.
        kinds.append(group[index // 2 * 3 % len(group)])
    return kinds


def _balanced(pairs: list[Pair], seed: int) -> list[Pair]:
    """Order pairs: one candidate of each job in turn, with alternating labels along the jobs and between rounds."""
    rng = Random(f"heldout {seed}")
    left: dict[str, dict[bool, list[Pair]]] = {}
    for job, candidate, kind in pairs:
        yes = _compact_row((job, candidate, kind))["decision"] == "shortlist"
        left.setdefault(job.id, {True: [], False: []})[yes].append((job, candidate, kind))
    for groups in left.values():
        rng.shuffle(groups[True])
        rng.shuffle(groups[False])
    ordered: list[Pair] = []
    turn = 0
    while len(ordered) < len(pairs):
        for at, groups in enumerate(left.values()):
            wanted = (turn + at) % 2 == 0
            group = groups[wanted] or groups[not wanted]
            if group:
                ordered.append(group.pop())
        turn += 1
    return ordered


def _compact_row(pair: Pair) -> Row:
    job, candidate, kind = pair
    short = replace(job, text="")
    return make_row(short, compact_view(short, candidate), "compact", kind=kind)


def _full_row(pair: Pair) -> Row:
    job, candidate, kind = pair
    return make_row(job, candidate, "full", kind=kind)


def write_bundle(out: Path, seed: int = SEED, per_job: int = TRAIN_PER_JOB) -> list[str]:
    """Write the four files of the benchmark into `out`, and return lines with their size and label balance."""
    out.mkdir(parents=True, exist_ok=True)
    lines = []
    for name, rows in make_bundle(seed, per_job).items():
        write_jsonl(out / name, rows)
        lines += [f"{out / name}: {(out / name).stat().st_size / 1e6:.2f} MB", balance_table(rows)]
    return lines
