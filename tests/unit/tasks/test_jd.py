"""A job description in prose, read by rule."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.paths import REDROB

from mlx_grpo.errors import UserError
from mlx_grpo.tasks.shortlist.jd import read_job
from mlx_grpo.tasks.shortlist.vocabulary import VOCABULARY

KNOWN = ["Python", "SQL", "Tableau", "Power BI", "Spark", "Java", "Docker", "Go", "Rust", "Excel"]


def job(tmp_path: Path, text: str):
    path = tmp_path / "job.txt"
    path.write_text(text, encoding="utf-8")
    return read_job(path, [], KNOWN)


def test_title_years_required_and_nice_come_from_their_sections(tmp_path):
    found = job(
        tmp_path,
        "Job Description: Data Engineer - Platform Team\nExperience Required: 5–9 years\nWe like Excel.\n"
        "Requirements\nPython and SQL every day.\nSpark.\nNice to have\nDocker\nBenefits\nFree Java course.\n",
    )
    assert found.title == "Data Engineer"
    assert (found.min_years, found.max_years) == (5, 9)
    assert found.required == ("Python", "SQL", "Spark")
    assert found.nice == ("Docker",)
    assert found.text.startswith("Job Description: Data Engineer - Platform Team.")


def test_what_stands_under_benefits_is_not_asked_for(tmp_path):
    assert job(tmp_path, "Clerk\nPython and SQL.\nBenefits\nA Java course.").required == ("Python", "SQL")


def test_a_skill_counts_where_it_is_required_however_early_the_prose_names_it(tmp_path):
    found = job(tmp_path, "Clerk\nWe use SQL and like Go.\nNice to have\nSQL, Docker\nRequirements\nPython, SQL, Java")
    assert found.required == ("Python", "SQL", "Java")
    assert found.nice == ("Docker",)


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("3 to 6 years", (3, 6)),
        ("5+ years", (5, None)),
        ("at least 4 years", (4, None)),
        ("minimum of 2 yrs", (2, None)),
        ("4—7 yrs", (4, 7)),
        ("for years", (0, None)),
        ("We are 10+ years old.\nExperience: 3-5 years", (3, 5)),
    ],
)
def test_years_are_read_in_the_usual_spellings(tmp_path, text, years):
    found = job(tmp_path, f"Analyst\nPython. {text}")
    assert (found.min_years, found.max_years) == years


@pytest.mark.parametrize(
    ("text", "required"),
    [
        ("Python, SQL, and Tableau or Power BI", ("Python", "SQL", "Tableau or Power BI")),
        ("Java, Go, Rust, or something similar", ("Java or Go or Rust",)),
        ("Java or similar, plus SQL", ("Java", "SQL")),
        ("Go, Rust", ("Go", "Rust")),
        ("(Python or Java)", ("Python or Java",)),
        ("Python. SQL or nothing", ("Python", "SQL")),
        ("we go far in JavaScript with Python", ("Python",)),
    ],
)
def test_a_list_that_runs_into_or_is_one_requirement(tmp_path, text, required):
    assert job(tmp_path, f"Title: Analyst\nRequirements:\n{text}").required == required


def test_a_listed_line_is_taken_at_its_word(tmp_path):
    found = job(tmp_path, "Baker\nRequired: Sourdough, Night shifts\nNice to have: Icing\nPython too.")
    assert (found.required, found.nice) == (("Sourdough", "Night shifts"), ("Icing",))


def test_no_more_than_eight_are_required_the_most_named_first(tmp_path):
    found = job(tmp_path, "Clerk\nPython SQL Tableau. Spark. Java. Docker. Go. Rust. Excel. Power BI. Excel, Power BI.")
    assert len(found.required) == 8
    assert {"Excel", "Power BI"} < set(found.required)


def test_a_text_without_known_skills_says_what_to_add(tmp_path):
    with pytest.raises(UserError, match="add a line like `Required: Python, SQL`"):
        job(tmp_path, "Baker\nWe bake.")


def test_an_empty_file_has_two_problems_told_at_once(tmp_path):
    with pytest.raises(UserError) as caught:
        job(tmp_path, "\n \n")
    assert len(caught.value.problems) == 2


def test_the_redrob_description_asks_for_embeddings_a_vector_database_and_python():
    if not REDROB.exists():
        pytest.skip(f"no sample at {REDROB}")
    found = read_job(REDROB / "job_description.txt", ["FAISS", "Marketing", "Sales"], VOCABULARY.skill_names)
    assert (found.title, found.min_years, found.max_years) == ("Senior AI Engineer", 5, 9)
    assert found.required == (
        "Embeddings or Sentence Transformers",
        "Pinecone or Weaviate or Qdrant or Milvus or OpenSearch or Elasticsearch or FAISS",
        "Python",
    )
    assert "LoRA" in found.nice
    assert "LangChain" not in found.skill_names
