"""Ask a model with each wording of the instruction in docs/results/prompt.json, and write what comes of it there.

`python -m support.wordings MODEL [WORDING]`, run in tests/: the 32 bundled prompts that a run is validated on, which no
evaluation reports, greedy and sampled at temperature 1. The document docs/prompt.md shows the figures.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import mlx_grpo  # noqa: F401  (before mlx.core: it loads the BLAS)

# isort: split
import mlx.core as mx
from support.paths import ROOT

from mlx_grpo.config.schema import EvalConfig
from mlx_grpo.data.dataset import make_prompt, read_rows
from mlx_grpo.generation.rollout import generate
from mlx_grpo.generation.sampling import Sampling
from mlx_grpo.models.policy import load_for_inference, model_name
from mlx_grpo.tasks.lookup import BUNDLED
from reward import PUBLISHED, STRICT
from reward.evidence import Evidence, weigh
from reward.facts import read_facts
from reward.parsing import read_strict

FILE = ROOT / "docs" / "results" / "prompt.json"
PROMPTS = EvalConfig().validation
"""The prompts at the file's end that validate a run."""
TOKENS = 160
MODES = {"greedy": 0.0, "sampled": 1.0}


def figures_of(row: dict[str, Any], completion: str) -> dict[str, float]:
    """Return the figures of one completion; those of clauses are counts."""
    found = read_strict(completion)
    fields = found.fields if found else {}
    reasons = fields.get("reasons")
    evidence: Evidence = weigh(reasons[:5] if isinstance(reasons, list) else [], read_facts(row["facts"]))
    gold = {name: row[name] for name in ("decision", "score")}
    return {
        "parses": found is not None,
        "alone": found is not None and found.alone,
        "inside": re.search(r"years?,? (is )?(inside|within)", completion) is not None,
        "confirmed": evidence.count("confirmed"),
        "clauses": sum(evidence.count(status) for status in ("confirmed", "unread", "refuted")),
        "coverage": evidence.coverage,
        "decisions": fields.get("decision") == row["decision"],
        "strict": STRICT(completion, **gold, facts=row["facts"]).total,
        "published": PUBLISHED(completion, **gold, context=row["prompt"][-1]["content"]).total,
    }


def means(every: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each figure, and the confirmed share of all clauses."""
    total = {name: float(sum(figures[name] for figures in every)) for name in every[0]}
    clauses, confirmed = total.pop("clauses"), total.pop("confirmed")
    shares = {name: round(value / len(every), 3) for name, value in total.items()}
    return shares | {"confirmed": round(confirmed / clauses, 3) if clauses else 0.0}


def ask(model: str, wordings: dict[str, list[dict[str, str]]]) -> dict[str, dict[str, dict[str, float]]]:
    """Return the figures of each wording in each mode."""
    policy = load_for_inference(Path(model), None, "float32")
    rows = read_rows(BUNDLED["shortlist"][1])[-PROMPTS:]
    results: dict[str, dict[str, dict[str, float]]] = {}
    for name, instruction in wordings.items():
        prompts = [make_prompt({**row, "prompt": [*instruction, row["prompt"][-1]]}, policy.tokenizer) for row in rows]
        for mode, temperature in MODES.items():
            mx.random.seed(0)
            rollouts = generate(policy, prompts, 1, Sampling(TOKENS, temperature=temperature))
            every = [figures_of(row, rollout.completion) for row, rollout in zip(rows, rollouts, strict=True)]
            results.setdefault(name, {})[mode] = means(every)
            print(name, mode, results[name][mode], flush=True)
    return results


if __name__ == "__main__":
    record = json.loads(FILE.read_text(encoding="utf-8"))
    asked = {name: record["wordings"][name] for name in sys.argv[2:] or record["wordings"]}
    record["models"].setdefault(model_name(sys.argv[1]), {}).update(ask(sys.argv[1], asked))
    FILE.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
