"""Titles are near by the words that name their field, and half by words that many fields have."""

from __future__ import annotations

from mlx_grpo.tasks.shortlist.titles import kinship


def test_kinship_is_1_for_a_field_word_and_half_for_a_role_word():
    assert kinship("Senior Data Engineer", "Lead data analyst") == 1
    assert kinship("Data Engineer", "Sales Engineer II") == 0.5
    assert kinship("Senior Baker", "Senior Nurse") == 0
