"""What an answer's facts are worth by the fit rule, as the documents report it."""

from __future__ import annotations

import pytest
from support.stated import stated_auc, stated_score

from mlx_grpo.data.dataset import read_rows
from mlx_grpo.tasks.lookup import BUNDLED


def test_facts_of_gold_answers_give_the_gold_score():
    rows = [row for row in read_rows(BUNDLED["shortlist"][0]) if not row["facts"].get("nice")]
    assert len(rows) > 900
    stated = [stated_score(row["completion"]) for row in rows]
    assert stated == pytest.approx([row["score"] for row in rows], abs=0.0051)  # the rows round to two digits


@pytest.mark.parametrize("completion", ["", "[]", '{"reasons": "SQL: missing"}', '{"reasons": ["a good fit"]}'])
def test_answer_without_a_skill_has_no_stated_score(completion: str):
    assert stated_score(completion) is None


def test_stated_scores_order_good_candidates_before_bad_ones_and_no_score_last():
    good = {"completion": '{"reasons": ["SQL: expert, 30 months"]}', "positive": 1.0}
    bad = {"completion": '{"reasons": ["SQL: missing"]}', "positive": 0.0}
    none = {"completion": "", "positive": 1.0}
    assert stated_auc([good, bad]) == 1.0
    assert stated_auc([none, bad]) == 0.0


def test_skill_in_parentheses_is_the_same_fact():
    forms = ("SQL: expert, 20 months", "SQL (expert, 20m)")
    first, second = (stated_score(f'{{"reasons": ["{form}"]}}') for form in forms)
    assert first == second < 1
