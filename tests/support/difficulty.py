"""How hard the benchmark is without a language model: baselines that a trained policy has to beat.

Run in tests/:

    python -m support.difficulty                          # the bundle
    python -m support.difficulty --data ../data/shortlist-60 --episodes 208
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from pathlib import Path

import numpy as np

from mlx_grpo.data.dataset import context_of
from mlx_grpo.evaluation.statistics import roc_auc
from mlx_grpo.json_files import read_jsonl
from mlx_grpo.tasks.shortlist.gold import dump_answer
from mlx_grpo.tasks.shortlist.prompt import parse
from mlx_grpo.tasks.shortlist.rows import Row
from mlx_grpo.tasks.shortlist.synthetic import DATA, balance_table
from mlx_grpo.tasks.shortlist.text import fold
from reward import STRICT
from reward.strict import SHORTLIST_FROM


def majority_accuracy(rows: list[Row]) -> float:
    """Accuracy of the better of always-shortlist and always-reject."""
    share = sum(row["decision"] == "shortlist" for row in rows) / len(rows)
    return max(share, 1 - share)


def overlap_accuracy(train: list[Row], heldout: list[Row]) -> float:
    """Shortlist from the share of required skills that is listed at all, at the cut that is best on `train`."""

    def listed(row: Row) -> float:
        job, candidate = parse(context_of(row), "compact")
        names = {fold(skill.name) for skill in candidate.skills}
        return sum(fold(name) in names for name in job.required) / len(job.required)

    def accuracy(rows: list[Row], cut: float) -> float:
        return sum((listed(row) >= cut) == (row["decision"] == "shortlist") for row in rows) / len(rows)

    return accuracy(heldout, max(sorted({listed(row) for row in train}), key=lambda cut: accuracy(train, cut)))


def constant_reward(train: list[Row], heldout: list[Row]) -> float:
    """Mean strict reward of one verdict for all, its score the best on `train`, with two levels copied as reasons."""

    def reward(row: Row, score: float) -> float:
        _, candidate = parse(context_of(row), "compact")
        first, last = candidate.skills[0], candidate.skills[-1]
        reasons = [f"{first.name}: {first.level}", f"{last.name}: {last.level}"]
        decision = "shortlist" if score >= SHORTLIST_FROM else "reject"
        completion = dump_answer({"reasons": reasons, "score": score, "decision": decision})
        return STRICT(completion, decision=row["decision"], score=row["score"], facts=row["facts"]).total

    def mean(rows: list[Row], score: float) -> float:
        return float(np.mean([reward(row, score) for row in rows]))

    return mean(heldout, max((n / 20 for n in range(21)), key=lambda score: mean(train[::10], score)))


def bag_of_words(train: list[Row], heldout: list[Row], steps: int = 150) -> tuple[float, float]:
    """Held-out accuracy and ROC AUC of a logistic regression on the words of the user message, trained on `train`."""
    counts = Counter(word for row in train for word in set(_words(row)))
    index = {word: at for at, word in enumerate(sorted(word for word, n in counts.items() if n >= 3))}
    x, y = _matrix(train, index)
    weights, bias = np.zeros(len(index)), 0.0
    for _ in range(steps):
        error = 1 / (1 + np.exp(-(x @ weights + bias))) - y
        weights -= 0.5 * (x.T @ error / len(y) * 10 + 1e-3 * weights)
        bias -= 0.5 * error.mean()
    tested, labels = _matrix(heldout, index)
    scores, positive = tested @ weights + bias, labels > 0.5
    return float(((scores > 0) == positive).mean()), float(roc_auc(positive, scores, np.ones((1, len(scores))))[0])


def _words(row: Row) -> list[str]:
    return re.findall(r"[a-z+#.]+|\d+", context_of(row).lower())


def _matrix(rows: list[Row], index: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    x = np.zeros((len(rows), len(index)))  # [R, V]
    for at, row in enumerate(rows):
        for word in _words(row):
            if word in index:
                x[at, index[word]] += 1
        x[at] /= np.linalg.norm(x[at]) or 1.0
    return x, np.array([row["decision"] == "shortlist" for row in rows], dtype=float)


def _file(folder: Path, split: str) -> Path:
    return next(folder.glob(f"{split}.jsonl*"))


def main() -> None:
    """Print label balance and the baselines' held-out accuracy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="a folder with train.jsonl and heldout.jsonl")
    parser.add_argument("--episodes", type=int, default=None, help="how many of the held-out rows; all by default")
    chosen = parser.parse_args()
    train = read_jsonl(_file(chosen.data, "train"))
    heldout = read_jsonl(_file(chosen.data, "heldout"))[: chosen.episodes]
    print(f"train\n{balance_table(train)}\nheldout\n{balance_table(heldout)}")
    print(f"always one label        {majority_accuracy(heldout):.3f}")
    print(f"keyword overlap         {overlap_accuracy(train, heldout):.3f}")
    accuracy, area = bag_of_words(train, heldout)
    print(f"bag of words, logistic  {accuracy:.3f}, ROC AUC {area:.3f}")
    print(f"one answer for all, its strict reward  {constant_reward(train, heldout):.3f}")


if __name__ == "__main__":
    main()
