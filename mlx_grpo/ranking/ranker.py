"""Rank a whole pool of candidates for one job: `mlx-grpo rank`, and as a library `Ranker`.

Candidates are asked about in batches of the pool's order, greedily; what all prompts begin with, the instruction and
the job, is run once for the whole pool. An answer that is not valid is asked for once more, at a low temperature.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TypeVar

from mlx_grpo.data.dataset import make_prompt
from mlx_grpo.data.types import Prompt, Rollout
from mlx_grpo.distributed.ranks import Ranks
from mlx_grpo.errors import UserError
from mlx_grpo.generation.decoding import Start, shared_start
from mlx_grpo.generation.rollout import generate
from mlx_grpo.generation.sampling import Sampling
from mlx_grpo.models.checks import read_settings
from mlx_grpo.models.policy import Policy, load_for_inference
from mlx_grpo.ranking.answers import Answer, read_answer
from mlx_grpo.ranking.files import ScoreLog, outputs, write_ranked
from mlx_grpo.ranking.model import find_ranking_model
from mlx_grpo.ranking.summary import LISTED, RankSummary, Tally
from mlx_grpo.tasks.shortlist.build import prompt_counter, show_candidate, show_job
from mlx_grpo.tasks.shortlist.jd import read_job
from mlx_grpo.tasks.shortlist.pool import Entry, stream_pool
from mlx_grpo.tasks.shortlist.prompt import messages
from mlx_grpo.tasks.shortlist.records import Candidate, Form, Job
from mlx_grpo.tasks.shortlist.vocabulary import VOCABULARY

RETRY_TEMPERATURE = 0.3
"""Warm enough to leave the greedy path that led to no valid answer, and little more."""

T = TypeVar("T")
Progress = Callable[[int, int], None]
"""(candidates done, candidates in the pool)."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A job as every prompt shows it."""

    job: Job
    start: Start
    count: Callable[[Job, Candidate], int]


class Ranker:
    """A model that ranks candidates.

        Ranker("runs/latest").rank("job.txt", "pool.jsonl", "ranked.csv", top_k=20)

    `model` is a run folder, a model folder or a Hub id; what is left out is as the run's config says. The weights
    are loaded when they are first needed. Raises UserError where there is no such model.
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
        """The loaded model."""
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
    ) -> RankSummary | None:
        """Rank a pool's file for a job's file into `out`.csv and .jsonl; goes on where an earlier call was cut off.

        None on all ranks but the first, which writes.
        Raises UserError where a file cannot be read or written, or `out` holds scores of another job or model.
        """
        began, jd, pool = time.monotonic(), Path(jd), Path(candidates)
        files = outputs(Path(out), jd, pool)
        job, total = survey(jd, pool)
        if not self.ranks.leads:
            self._score_pool(None, job, pool, lambda done: None)
            return None
        # The job's handles come of its file's name, which no prompt shows.
        shown = asdict(replace(job, id="", field=""))
        header = {"job": shown, "model": self.model.fingerprint(), "settings": asdict(self.model.settings)}
        with ScoreLog(files.scores, header) as log:
            tally = self._score_pool(log, job, pool, lambda done: progress(done, total))
            write_ranked(files, log, tally.places, self.model.rubric.limits.max_reasons, top_k)
            best = tuple(log.read(place.key) for place in tally.places[:LISTED] if not place.invalid)
        return tally.summary(files, best, time.monotonic() - began)

    def score(self, job: Job, candidates: Iterable[Candidate]) -> Iterator[Answer]:
        """An answer for each candidate, in order, a batch at a time."""
        asked = self._ask(job)
        for number, batch in enumerate(_batches(candidates, self.model.batch_size)):
            yield from self._answers(asked, batch, number)

    def _score_pool(self, log: ScoreLog | None, job: Job, pool: Path, progress: Callable[[int], None]) -> Tally:
        """See to it that rank 0's log has an answer for every entry of the pool; each rank asks for whole batches."""
        tally, asked = Tally(), None
        progress(0)
        # Whole batches only: how a batch is made up moves its logits in their last digits.
        numbered = enumerate(_batches(stream_pool(pool), self.model.batch_size))
        for some in _batches(numbered, self.ranks.size):
            keyed = [[_key(entry) for entry in batch] for _, batch in some]
            held = self.ranks.gather([log.holds(keys) for keys in keyed] if log else None)[0]
            mine = []
            if self.ranks.rank < len(some) and not held[self.ranks.rank]:
                asked = asked or self._ask(job)  # with every answer there already, no model need be loaded
                number, batch = some[self.ranks.rank]
                mine = [asdict(answer) for answer in self._entries(asked, batch, number)]
            everyones = self.ranks.gather(mine)
            for (_, batch), keys, found in zip(some, keyed, everyones[: len(some)], strict=True) if log else ():
                if found:
                    log.append(keys, [Answer.from_dict(answer) for answer in found])
                else:
                    tally.counts["reused"] += len(keys)
                for key, entry in zip(keys, batch, strict=True):
                    tally.add(key, entry, log.read(key))
                progress(len(tally.places))
        return tally

    def _ask(self, job: Job) -> _Asked:
        settings = self.model.settings
        count = prompt_counter(self._count_tokens, settings.form, settings.order)
        shown, _ = show_job(job, settings.form, settings.token_budget, count)
        nobodies = [Candidate(title, 0, (), ()) for title in ("Nobody", "Anybody")]
        token_ids = [self._prompt(shown, nobody).token_ids for nobody in nobodies]
        return _Asked(shown, shared_start(self.policy.model, token_ids), count)

    def _count_tokens(self, text: str) -> int:
        return len(self.policy.tokenizer.encode(text, add_special_tokens=False))

    def _prompt(self, job: Job, shown: Candidate) -> Prompt:
        settings = self.model.settings
        row = {"id": shown.id, "prompt": messages(job, shown, settings.form, settings.order)}
        row["context"] = row["prompt"][-1]["content"]
        return make_prompt(row, self.policy.tokenizer, settings.enable_thinking)

    def _entries(self, asked: _Asked, batch: Sequence[Entry], number: int) -> list[Answer]:
        """The answers of a batch of pool entries, in order; what cannot be read is answered with its problems."""
        scored = iter(self._answers(asked, [entry.candidate for entry in batch if entry.candidate], number))
        return [
            next(scored) if entry.candidate else Answer(entry.candidate_id, note="; ".join(entry.problems))
            for entry in batch
        ]

    def _answers(self, asked: _Asked, batch: Sequence[Candidate], number: int) -> list[Answer]:
        prompts: dict[int, Prompt] = {}
        answers: dict[int, Answer] = {}
        for at, candidate in enumerate(batch):
            prompt, fault = self._shown(asked, candidate)
            if fault:
                answers[at] = Answer(candidate.id, note=fault)
            else:
                prompts[at] = prompt
        answers |= self._complete(asked, prompts, Sampling(self.model.settings.max_new_tokens, temperature=0), number)
        again = {at: prompt for at, prompt in prompts.items() if not answers[at].valid}
        warm = Sampling(self.model.settings.max_new_tokens, temperature=RETRY_TEMPERATURE)
        for at, answer in self._complete(asked, again, warm, number).items():
            answers[at] = replace(answer, retried=True)
        return [answers[at] for at in range(len(batch))]

    def _shown(self, asked: _Asked, candidate: Candidate) -> tuple[Prompt, str]:
        """A candidate's prompt, and why it can't be asked or ""."""
        settings = self.model.settings
        view, _, fault = show_candidate(asked.job, candidate, settings.form, settings.token_budget, asked.count)
        prompt = self._prompt(asked.job, view)
        needed, context = len(prompt.token_ids) + settings.max_new_tokens, self._context
        if not fault and context and needed > context:
            fault = f"prompt and answer of up to {needed} tokens exceed the model's context of {context}"
        return prompt, fault

    @cached_property
    def _context(self) -> int | None:
        return read_settings(self.model.base).get("max_position_embeddings")

    def _complete(
        self, asked: _Asked, prompts: dict[int, Prompt], sampling: Sampling, number: int
    ) -> dict[int, Answer]:
        if not prompts:
            return {}
        seed = self.model.settings.seed
        rollouts = generate(self.policy, list(prompts.values()), 1, sampling, seed=seed, step=number, start=asked.start)
        return {at: self._read(rollout) for at, rollout in zip(prompts, rollouts, strict=True)}

    def _read(self, rollout: Rollout) -> Answer:
        prompt = rollout.prompt
        answer = read_answer(prompt.id, rollout.completion, prompt.columns["context"], self.model.rubric)
        if answer.valid or rollout.finish_reason == "stop":
            return answer
        return replace(answer, note=f"{answer.note}; cut off after {len(rollout.completion_ids)} tokens")


def survey(jd: Path, pool: Path) -> tuple[Job, int]:
    """The job, read with the skills that a first pass over the pool finds, and how many entries the pool has.

    Raises UserError where either can't be read, or nobody in the pool can.
    """
    if pool.exists() and not pool.is_file():
        raise UserError(f"{pool}: is no file, and the pool is read twice; write it to one")
    total, readable, skills = 0, 0, Counter()
    problems: list[str] = []
    for entry in stream_pool(pool):
        total += 1
        problems += entry.problems[: max(0, LISTED - len(problems))]
        if entry.candidate is not None:
            readable += 1
            skills.update(skill.name for skill in entry.candidate.skills)
    if not readable:
        raise UserError(f"{pool}: holds no candidate that can be read ({total} entries)", *problems)
    return read_job(jd, [name for name, _ in skills.most_common()], VOCABULARY.skill_names), total


def _key(entry: Entry) -> str:
    """What an entry's answer is found by: a hash of all that was read of it."""
    return hashlib.sha256(repr(entry).encode("utf-8", "backslashreplace")).hexdigest()[:32]


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    items = iter(items)
    while batch := list(islice(items, size)):
        yield batch
