"""Rank a whole pool of candidates for one job: `mlx-grpo rank`, and as a library `Ranker`.

Prompts are completed greedily, as one stream in the pool's order. All prompts begin with the same instruction and job,
which are run once for the whole pool. A completion that is no valid answer is sampled once more, at a low temperature.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import tee
from pathlib import Path
from typing import Any

from mlx_grpo.data.batch import batched
from mlx_grpo.data.dataset import make_prompt
from mlx_grpo.data.thinking import ends_in_thought
from mlx_grpo.data.types import LengthLimit, Prompt, Rollout
from mlx_grpo.distributed.ranks import Ranks
from mlx_grpo.errors import UserError
from mlx_grpo.generation.nodes import Nodes, shared_start
from mlx_grpo.generation.rollout import complete, generate
from mlx_grpo.generation.sampling import Sampling
from mlx_grpo.models.folder import ModelFolder
from mlx_grpo.models.policy import Policy, load_for_inference
from mlx_grpo.planning.rows import rows_that_fit
from mlx_grpo.ranking.answers import Answer, read_answer
from mlx_grpo.ranking.batches import LOGGED_TOGETHER, Batch, batches_held, pool_batches
from mlx_grpo.ranking.files import ScoreLog, outputs, write_ranked
from mlx_grpo.ranking.model import find_ranking_model
from mlx_grpo.ranking.summary import LISTED, RankSummary, Tally
from mlx_grpo.tasks.shortlist.build import candidate_for_prompt, job_for_prompt, message_counter
from mlx_grpo.tasks.shortlist.facts import facts_of
from mlx_grpo.tasks.shortlist.instruction import messages
from mlx_grpo.tasks.shortlist.jd import JobReading, read_description
from mlx_grpo.tasks.shortlist.pool import stream_pool
from mlx_grpo.tasks.shortlist.records import Candidate, Form, Job

RETRY_TEMPERATURE = 0.3
"""High enough to leave the greedy completion that was no valid answer, and little more."""

Progress = Callable[[int, int], None]
"""(candidates done, candidates in the pool)."""


@dataclass(frozen=True, slots=True)
class _JobPrompt:
    """A job as every prompt of its pool contains it."""

    job: Job
    start: Nodes
    """The tokens that all prompts begin with."""
    count_tokens: Callable[[Job, Candidate], int]


class Ranker:
    """A model that ranks candidates.

        Ranker("runs/latest").rank("job.txt", "pool.jsonl", "ranked.csv", top_k=20)

    `model` is a run folder, a model folder or a Hub id. Options that are left out come from the run's config. The
    weights are loaded on first use. Raises UserError where there is no such model.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        form: Form | None = None,
        token_budget: int | None = None,
        max_new_tokens: int | None = None,
        batch_size: int | None = None,
        seed: int = 0,
        ranks: Ranks | None = None,
    ):
        self.ranks = ranks or Ranks()
        found = find_ranking_model(str(model), form)
        settings = replace(
            found.settings,
            token_budget=token_budget or found.settings.token_budget,
            max_new_tokens=max_new_tokens or found.settings.max_new_tokens,
            seed=seed,
        )
        self.model = replace(found, settings=settings, batch_size=batch_size or found.batch_size)

    @cached_property
    def policy(self) -> Policy:
        """Load the model."""
        policy = load_for_inference(self.model.base, self.model.adapter, self.model.dtype)
        if not policy.tokenizer.has_chat_template:
            raise UserError(f"model: {self.model.base} has no chat template; rank with a model tuned to follow chats")
        return policy

    def rank(
        self,
        jd: str | Path,
        candidates: str | Path,
        out: str | Path,
        *,
        top_k: int | None = None,
        progress: Progress = lambda done, total: None,
        show_job: Callable[[JobReading], None] = lambda reading: None,
    ) -> RankSummary | None:
        """Rank the candidates of a pool's file for a job's file, and write `out`.csv and .jsonl.

        `jd` is a description or a job.yaml; `show_job` gets the job as it was read, before the first candidate.
        Continues an earlier call that was interrupted. Returns None on all ranks but the first, which writes. Raises
        UserError where a file cannot be read or written, or `out` holds scores of another job or model.
        """
        began = time.monotonic()
        jd, pool = Path(jd), Path(candidates)
        files = outputs(Path(out), jd, pool)
        reading, total = survey(jd, pool)
        job = reading.job(jd)
        if not self.ranks.leads:
            self._score_pool(None, job, pool, lambda done: None)
            return None
        show_job(reading)
        # The job's id and field come from its file's name, and no prompt contains them.
        in_prompts = asdict(replace(job, id="", field=""))
        header = {"job": in_prompts, "model": self.model.fingerprint(), "settings": asdict(self.model.settings)}
        with ScoreLog(files.scores, header, {"job_as_read": reading.as_dict()}) as log:
            tally = self._score_pool(log, job, pool, lambda done: progress(done, total))
            write_ranked(files, log, tally.places, self.model.rubric.limits.max_reasons, top_k)
            best = tuple(log.read(place.key) for place in tally.places[:LISTED] if not place.invalid)
        return tally.summary(files, best, time.monotonic() - began, reading.as_dict())

    def score(self, job: Job, candidates: Iterable[Candidate]) -> Iterator[Answer]:
        """Yield an answer for each candidate, in order, a batch at a time."""
        for answers in self._answer_batches(job, enumerate(batched(candidates, self._logged_together))):
            yield from answers

    @property
    def _logged_together(self) -> int:
        return self.model.batch_size or LOGGED_TOGETHER

    def _score_pool(self, log: ScoreLog | None, job: Job, pool: Path, progress: Callable[[int], None]) -> Tally:
        """Add an answer for every entry of the pool to rank 0's log; the ranks take a batch each in turn.

        `log` is None on all other ranks, whose tally stays empty.
        """
        tally, ranks, size = Tally(), self.ranks, self._logged_together
        progress(0)
        held = set(ranks.from_leader(lambda: batches_held(log, pool, size)))
        batches, ahead = tee(pool_batches(pool, size))
        own = (batch for batch in ahead if batch.number % ranks.size == ranks.rank and batch.number not in held)
        new_answers = self._answer_batches(job, ((batch.number, batch.candidates()) for batch in own))
        for together in batched(batches, ranks.size):
            mine: list[dict[str, Any]] = []
            if ranks.rank < len(together) and together[ranks.rank].number not in held:
                mine = [asdict(answer) for answer in next(new_answers)]
            gathered = ranks.gather(mine)[: len(together)]
            if log is None:
                continue
            for batch, answers in zip(together, gathered, strict=True):
                _record(log, tally, batch, [Answer.from_dict(fields) for fields in answers])
                progress(len(tally.places))
        return tally

    def _prepare(self, job: Job) -> _JobPrompt:
        settings = self.model.settings
        count = message_counter(self._count_tokens, settings.form)
        job, _ = job_for_prompt(job, settings.form, settings.token_budget, count)
        # Two made-up candidates, so that what their prompts share is the instruction and the job.
        made_up = [Candidate(title, 0, (), ()) for title in ("Nobody", "Anybody")]
        token_ids = [self._prompt(job, candidate).token_ids for candidate in made_up]
        return _JobPrompt(job, shared_start(self.policy.model, token_ids), count)

    def _count_tokens(self, text: str) -> int:
        return len(self.policy.tokenizer.encode(text, add_special_tokens=False))

    def _prompt(self, job: Job, candidate: Candidate) -> Prompt:
        settings = self.model.settings
        chat = messages(job, candidate, settings.form, settings.instruction)
        row = {"id": candidate.id, "prompt": chat, "facts": facts_of(job, candidate)}
        return make_prompt(row, self.policy.tokenizer, settings.enable_thinking, settings.today)

    def _answer_batches(
        self, job: Job, batches: Iterable[tuple[int, Sequence[Candidate | Answer]]]
    ) -> Iterator[list[Answer]]:
        """Yield the answers of numbered batches of candidates, in order; an answer among them is yielded unchanged.

        The candidates of later batches are decoded beside those of earlier ones.
        """
        job_prompt = self._prepare(job)
        asked, ahead = tee((number, [self._ask(job_prompt, item) for item in items]) for number, items in batches)
        prompts = (item for _, items in ahead for item in items if isinstance(item, Prompt))
        settings = self.model.settings
        longest = settings.token_budget + settings.max_new_tokens
        max_rows = rows_that_fit(self.policy.model, longest, self.model.batch_size, self.ranks.size)
        rollouts = complete(self.policy, prompts, settings.max_new_tokens, max_rows, job_prompt.start)
        for number, items in asked:
            tried = [(item, None) if isinstance(item, Answer) else self._first_try(next(rollouts)) for item in items]
            again = iter(self._retry(job_prompt, [prompt for answer, prompt in tried if prompt], number))
            yield [next(again) if prompt else answer for answer, prompt in tried]

    def _first_try(self, rollout: Rollout) -> tuple[Answer, Prompt | None]:
        """Return a greedy completion's answer, and the prompt if it has to be tried again."""
        answer = self._read(rollout)
        return answer, None if answer.valid else rollout.prompt

    def _ask(self, job_prompt: _JobPrompt, item: Candidate | Answer) -> Prompt | Answer:
        """Return the prompt for a candidate, or an answer with the reason why there is none."""
        if isinstance(item, Answer):
            return item
        prompt, fault = self._fitting_prompt(job_prompt, item)
        return Answer(item.id, note=fault) if fault else prompt

    def _retry(self, job_prompt: _JobPrompt, prompts: Sequence[Prompt], number: int) -> list[Answer]:
        """Return answers that are sampled, for prompts of a batch whose greedy completions are no valid answers."""
        if not prompts:
            return []
        settings = self.model.settings
        sampling = Sampling(settings.max_new_tokens, temperature=RETRY_TEMPERATURE)
        rollouts = generate(self.policy, prompts, 1, sampling, seed=settings.seed, step=number, start=job_prompt.start)
        return [replace(self._read(rollout), retried=True) for rollout in rollouts]

    def _fitting_prompt(self, job_prompt: _JobPrompt, candidate: Candidate) -> tuple[Prompt, str]:
        """Return a candidate's prompt, and why it does not fit the budget or the model's context ("" if it does)."""
        settings = self.model.settings
        shortened, _, fault = candidate_for_prompt(
            job_prompt.job, candidate, settings.form, settings.token_budget, job_prompt.count_tokens
        )
        prompt = self._prompt(job_prompt.job, shortened)
        needed = len(prompt.token_ids) + settings.max_new_tokens
        if not fault and self._length_limit.tokens and needed > self._length_limit.tokens:
            fault = f"prompt and answer of up to {needed} tokens exceed {self._length_limit}"
        return prompt, fault

    @cached_property
    def _length_limit(self) -> LengthLimit:
        return ModelFolder.read(self.model.base).length_limit

    def _read(self, rollout: Rollout) -> Answer:
        prompt = rollout.prompt
        opened, facts = prompt.opens_thought, prompt.columns["facts"]
        answer = read_answer(prompt.id, rollout.completion, facts, self.model.rubric, opened)
        if answer.valid or rollout.finish_reason == "stop":
            return answer
        where = ", inside its thought" if ends_in_thought(rollout.completion, opened) else ""
        return replace(answer, note=f"{answer.note}; cut off after {len(rollout.completion_ids)} tokens{where}")


def _record(log: ScoreLog, tally: Tally, batch: Batch, answers: Sequence[Answer]) -> None:
    """Log a batch's new answers, if it has any, and count all its answers."""
    if answers:
        log.append(batch.keys, answers)
    else:
        tally.counts["reused"] += len(batch.entries)
    for key, entry in zip(batch.keys, batch.entries, strict=True):
        tally.add(key, entry, log.read(key))


def survey(jd: Path, pool: Path) -> tuple[JobReading, int]:
    """Read the job, with the skills that a first pass over the pool collects, and count the pool's entries.

    Raises UserError where either file can't be read, or no candidate in the pool can.
    """
    if pool.exists() and not pool.is_file():
        raise UserError(f"{pool}: is no file, and the pool is read twice; write it to one")
    total, readable = 0, 0
    skills: Counter[str] = Counter()
    problems: list[str] = []
    for entry in stream_pool(pool):
        total += 1
        problems += entry.problems[: max(0, LISTED - len(problems))]
        if entry.candidate is not None:
            readable += 1
            skills.update(skill.name for skill in entry.candidate.skills)
    if not readable:
        raise UserError(f"{pool}: holds no candidate that can be read ({total} entries)", *problems)
    return read_description(jd, [name for name, _ in skills.most_common()]), total
