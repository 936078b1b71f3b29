"""A job description in prose, read by rule: what is asked for, what is a plus, and what is neither."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.command import cli
from support.paths import FIXTURES, REDROB

from mlx_grpo.errors import UserError
from mlx_grpo.tasks.shortlist.jd import MAX_NICE, MAX_REQUIRED, JobReading, read_description, read_job
from mlx_grpo.tasks.shortlist.posting.text import MAX_CHARACTERS

POST = "Job Title: Data Engineer\n3-5 years of experience\n\nRequirements:\n- Python\n- SQL\n"


def reading(tmp_path: Path, text: str, pool: tuple[str, ...] = ()) -> JobReading:
    path = tmp_path / "job.txt"
    path.write_text(text, encoding="utf-8")
    return read_description(path, pool)


def with_item(tmp_path: Path, item: str) -> JobReading:
    return reading(tmp_path, f"{POST}- {item}\n")


def cases() -> Iterator[Any]:
    for line in (FIXTURES / "job_descriptions.jsonl").read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        wanted = {key: case[key] for key in ("title", "years", "required", "nice") if case[key] is not None}
        yield pytest.param(case["text"], wanted, id=f"case {case['text'][:40]!r}")
    for name in ("job_variants", "job_posts"):
        for case in yaml.safe_load((FIXTURES / f"{name}.yaml").read_text(encoding="utf-8")):
            wanted = {key: case[key] for key in ("title", "years", "required", "nice") if key in case}
            yield pytest.param(case["text"], wanted, id=f"{case.get('style', 'variant')} {case['text'][:40]!r}")


@pytest.mark.parametrize(("text", "wanted"), list(cases()))
def test_posting_is_read_as_a_person_reads_it(text: str, wanted: dict[str, Any], tmp_path: Path):
    found = reading(tmp_path, text)
    if "title" in wanted:
        assert (found.title or "").lower() == (wanted["title"] or "").lower()
    if "years" in wanted:
        assert [found.min_years, found.max_years] == wanted["years"]
    for key in {"required", "nice"} & set(wanted):
        assert sorted(map(str.lower, getattr(found, key))) == sorted(map(str.lower, wanted[key])), key


@pytest.mark.parametrize(
    ("opening", "title"),
    [
        ("**Job Title **: Data Engineer", "Data Engineer"),
        ("Job Description for the post of Data Engineer", "Data Engineer"),
        ("We're looking for an experienced, passionate Data Engineer to join us", "Data Engineer"),
        ("Are you a Data Engineer who loves SQL?", "Data Engineer"),
        ("Overview\nThe Data Engineer will build pipelines.", "Data Engineer"),
        ("Job Title: Data Engineer; Location: Pune", "Data Engineer"),
        ("Title\tData Engineer", "Data Engineer"),
        ("Who We Are\nAcme is a team of engineers.\n\nThe Role: Data Engineer", "Data Engineer"),
        ("Data Engineer, Acme Inc.", "Data Engineer"),
        ("Full-time\nRemote\nData Engineer\nAcme", "Data Engineer"),
        ("Data engineers wanted!", "Data engineer"),
        ("Staff Software Engineer, Infrastructure, Berlin", "Staff Software Engineer, Infrastructure"),
        ("We are looking for a Sales and Marketing Manager with drive.", "Sales and Marketing Manager"),
        ("Acme seeks a Head of Customer Success to build the team.", "Head of Customer Success"),
        ("We need two Registered Nurses for our ward.", "Registered Nurse"),
        ("Working Student Data Science (f/m/d)", "Working Student Data Science"),
        ("IT Support", "IT Support"),
    ],
)
def test_title_is_found_behind_labels_in_lines_and_in_sentences(opening: str, title: str, tmp_path: Path):
    assert reading(tmp_path, f"{opening}\n\nRequirements:\n- Python\n- SQL\n").title == title


@pytest.mark.parametrize(
    ("line", "years"),
    [
        ("5+ yrs. exp.", (5, None)),
        ("five or more years of experience", (5, None)),
        ("no less than 5 years", (5, None)),
        ("YOE: 2-4", (2, 4)),
        ("between two and four years", (2, 4)),
        ("2 years to 4 years", (2, 4)),
        ("Experience (yrs): 2-4", (2, 4)),
        ("Fresher to 2 years", (0, 2)),
        ("Experience: Minimum 5 years, maximum 8 years", (5, 8)),
        ("6-8 years total experience, of which 4-5 are in ML", (6, 8)),
        ("5+ years building data pipelines", (5, None)),
        ("5 y.o.e.", (5, None)),
        ("no experience required", (0, None)),
        ("Acme has over 30 years of experience in rockets", (0, None)),
        ("With 20+ years in business, Acme leads.", (0, None)),
        ("You are at least 18 years old", (0, None)),
        ("a four-year college degree", (0, None)),
        ("Contract: 2 years", (0, None)),
        ("Python for 3 years", (0, None)),
        ("3 years of SQL and Python", (0, None)),
    ],
)
def test_years_are_the_jobs_and_not_those_of_a_firm_or_a_skill(
    line: str, years: tuple[int, int | None], tmp_path: Path
):
    found = reading(tmp_path, f"Data Engineer\n\n{line}\nRequired: Python, SQL\n")
    assert (found.min_years, found.max_years) == years


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        *((heading, "nice") for heading in (
            "Preferred", "NICE TO HAVE", "Nice-to-haves", "Bonus Points For:", "It's a plus if you have", "Optional",
            "What will set you apart", "Would be a plus:", "Good to know", "Desirable skills", "Assets", "Wish list",
            "Ideally, you also have", "Added advantage", "Not required, but nice", "Secondary Skills", "Plus points",
            "You'll stand out if you have", "Helpful but not required", "Great if you have",
        )),
        *((heading, "required") for heading in (
            "REQUIRED", "Must-haves:", "Minimum Qualifications", "Key Skills", "What you bring to the table",
            "You have", "Who you are", "Your profile", "What we're looking for", "Our expectations", "Essential",
            "We ask for", "Desired Candidate Profile", "To succeed you will need:", "You're a great fit if you have",
            "That's you", "✅ Requirements", "**Requirements**", "1. Requirements", "=== Requirements ===",
            "Skills Required",
        )),
        *((heading, "neither") for heading in (
            "What we don’t want", "Not a fit if", "Please don't apply if", "Deal-breakers", "Not for you if:",
            "Red flags", "What you don't need", "Who this is not for", "Benefits", "What we offer", "About Acme",
            "How to apply", "Interview process", "Life at Acme", "Responsibilities", "Our tech stack", "A typical day",
        )),
    ],
)  # fmt: skip
@pytest.mark.parametrize("bullet", ["- ", ""])
def test_heading_decides_for_the_lines_below_it(heading: str, kind: str, bullet: str, tmp_path: Path):
    found = reading(tmp_path, f"{POST}\nAbout us\nWe sell tea.\n\n{heading}\n{bullet}Docker\n{bullet}Terraform\n")
    below = ("Docker", "Terraform")
    assert found.title == "Data Engineer"
    assert found.required == ("Python", "SQL", *(below if kind == "required" else ()))
    assert found.nice == (below if kind == "nice" else ())


@pytest.mark.parametrize(
    "item",
    [
        "Docker a plus", "Docker [optional]", "(nice to have) Docker", "Docker, optional", "Preferably Docker",
        "Experience with Docker preferred", "Bonus if you know Docker", "Familiarity with Docker is appreciated",
        "We'd love it if you knew Docker", "It is a plus if you have worked with Docker", "Docker (bonus)",
        "Docker is not mandatory but good to have", "Docker or a willingness to learn it", "Even better: Docker",
        "Ideally you have seen Docker in production", "Some Docker would help",
    ],
)  # fmt: skip
def test_item_that_its_sentence_softens_is_nice_to_have(item: str, tmp_path: Path):
    found = with_item(tmp_path, item)
    assert (found.required, found.nice) == (("Python", "SQL"), ("Docker",))


@pytest.mark.parametrize(
    "item",
    [
        "No Docker", "Docker not needed", "You do not need Docker", "We don't use Docker", "Docker (not required)",
        "No experience in Docker or Kubernetes required", "Never used Docker? No problem", "Neither Docker nor Java",
        "Excel at what you do", "Go-to person for data", "Spark new ideas", "C-suite presence", "Series C startup",
        "Plan B and C", "R&D mindset", "Work with sales", "Networking events", "At the helm of projects",
        "Access to production", "Ready to go", "A bright outlook", "Agile environment", "Team workshops",
    ],
)  # fmt: skip
def test_denied_names_and_ordinary_words_are_asked_of_nobody(item: str, tmp_path: Path):
    found = with_item(tmp_path, item)
    assert (found.required, found.nice) == (("Python", "SQL"), ())


@pytest.mark.parametrize(
    ("item", "name"),
    [
        ("excel", "Excel"), ("Proficiency in Excel", "Excel"), ("Golang", "Go"), ("Services in Go", "Go"),
        ("Statistics in R", "R"), ("Spark jobs", "Spark"), ("Systems programming in Rust", "Rust"),
        ("Negotiation skills", "Negotiation"), ("Experience in negotiation", "Negotiation"), ("Node", "Node.js"),
        ("Experience with machine learning", "Machine Learning"), ("RESTful APIs", "REST APIs"), (".NET", ".NET"),
        ("k8s", "Kubernetes"), ("C#", "C#"), ("no-SQL databases", "NoSQL"),
    ],
)  # fmt: skip
def test_name_like_a_word_counts_where_the_text_asks_for_it(item: str, name: str, tmp_path: Path):
    assert with_item(tmp_path, item).required == ("Python", "SQL", name)


@pytest.mark.parametrize(
    ("text", "required"),
    [
        ("Python, SQL, and Tableau or Power BI", ("Python", "SQL", "Tableau or Power BI")),
        ("Python, SQL, Tableau or Power BI", ("Python", "SQL", "Tableau or Power BI")),
        ("Java, Go, Rust, or something similar", ("Java or Go or Rust",)),
        ("Java or similar, plus SQL", ("Java", "SQL")),
        ("Redis, Celery, or similar", ("Redis or Celery",)),
        ("Python, R or SQL", ("Python or R or SQL",)),
        ("Python or Java, SQL", ("Python or Java", "SQL")),
        ("(Python or Java)", ("Python or Java",)),
        ("AWS/GCP and HTML/CSS", ("AWS or GCP", "HTML", "CSS")),
        ("one of AWS, GCP and Azure; Python", ("AWS or GCP or Azure", "Python")),
        ("a cloud platform (AWS, GCP), Python", ("AWS or GCP", "Python")),
        ("CI/CD (Jenkins, GitHub Actions)", ("CI/CD or Jenkins or GitHub Actions",)),
        ("Python (Django), SQL", ("Python", "SQL")),
        ("web technologies (HTML, CSS)", ("HTML", "CSS")),
    ],
)
def test_names_joined_by_or_are_one_requirement(text: str, required: tuple[str, ...], tmp_path: Path):
    assert reading(tmp_path, f"Title: Analyst\nRequirements:\n{text}\n").required == required


def test_skill_counts_where_it_is_required_however_early_the_prose_names_it(tmp_path: Path):
    found = reading(
        tmp_path, "Clerk\nWe use SQL and like Go.\nNice to have\nSQL, Docker\nRequirements\nPython, SQL, Java"
    )
    assert (found.required, found.nice) == (("Python", "SQL", "Java"), ("Docker",))


def test_prose_is_required_only_where_no_section_names_a_skill(tmp_path: Path):
    prose = "Analyst\nYou need Tableau. We work with Snowflake.\n"
    alone = reading(tmp_path, prose)
    assert (alone.required, alone.nice) == (("Tableau",), ("Snowflake",))
    beside = reading(tmp_path, f"{prose}Requirements\n- SQL\n- Python\n")
    assert (beside.required, beside.nice) == (("SQL", "Python"), ())


def test_skills_of_the_work_alone_are_required_with_a_doubt(tmp_path: Path):
    found = reading(tmp_path, "Analyst\nWhat you'll do\n- Build reports in Tableau\n- Query with SQL\n")
    assert found.required == ("Tableau", "SQL")
    assert any("no line says what is required" in doubt for doubt in found.doubts)


def test_unknown_heading_makes_its_list_nice_to_have(tmp_path: Path):
    found = reading(tmp_path, f"{POST}\nPlatform guild:\n- Terraform\n\nRequirements, continued:\n- Kafka\n")
    assert (found.required, found.nice) == (("Python", "SQL", "Kafka"), ("Terraform",))


def test_names_are_spelled_as_in_the_pool_and_its_own_names_are_known(tmp_path: Path):
    found = reading(tmp_path, f"{POST}- Postgres\n- sourdough\n- Golang\n", ("PostgreSQL 15", "Sourdough", "Golang"))
    assert found.required == ("Python", "SQL", "PostgreSQL", "Sourdough", "Golang")
    assert reading(tmp_path, f"{POST}- k8s", ("kubernetes",)).required[-1] == "kubernetes"


def test_sources_are_the_lines_of_the_text(tmp_path: Path):
    found = reading(tmp_path, f"{POST}- AWS or GCP\n- Docker is a plus\n")
    assert found.sources == {
        "Python": "Python", "SQL": "SQL", "AWS or GCP": "AWS or GCP", "Docker": "Docker is a plus"
    }  # fmt: skip
    assert found.doubts == ()


@pytest.mark.parametrize(
    ("text", "doubt"),
    [
        ("We bake bread.\nRequired: Python, SQL\n5+ years of experience", "no title found"),
        ("Acme Rockets\nRequired: Python, SQL\n5+ years of experience", "names no occupation: 'Acme Rockets'"),
        ("Analyst\nRequired: Python, SQL", "no years of experience found"),
        ("Analyst\nRequired: Python", "1 required skill found"),
        ("Analyst\nWe bake bread.", "no required skill found"),
        ("Analyst\nRequired: Python, SQL\n- 4 years of SQL", "years of single skills are not read as the job's: SQL 4"),
        (f"{POST}- Dagstore\n", "no list knows them as skills: Dagstore"),
        (f"{POST}- Travel for workshops\n- Roadmaps of others\n", "as ordinary words: Roadmaps"),
        ("Baker\nRequired: Sourdough, bread of the day with rye", "no list knows them as skills: bread of the day"),
    ],
)
def test_doubt_is_told(text: str, doubt: str, tmp_path: Path):
    assert any(doubt in told for told in reading(tmp_path, text).doubts)


def test_name_of_more_than_four_words_is_a_doubt(tmp_path: Path):
    name = "AWS Certified Solutions Architect Associate"
    found = reading(tmp_path, f"{POST}- {name}\n", (name,))
    assert found.required[-1] == name
    assert found.doubts == (f"a skill name of more than 4 words: {name!r}",)


def test_most_named_skills_are_kept_and_the_others_told(tmp_path: Path):
    names = ["Python", "SQL", "Tableau", "Spark", "Java", "Docker", "Go", "Rust", "Kafka", "Redis", "Power BI", "dbt"]
    found = reading(tmp_path, "Clerk\nRequired: " + ", ".join(names) + "\nWhat you do\nUse dbt. Use Redis.\n")
    assert len(found.required) == MAX_REQUIRED == 8
    assert {"dbt", "Redis"} < set(found.required)
    told = next(doubt for doubt in found.doubts if "more than 8 required" in doubt)
    assert all(name in told for name in names if name not in found.required)


def test_description_without_title_or_skills_cannot_be_ranked_for(tmp_path: Path):
    path = tmp_path / "job.txt"
    path.write_text("\n \n")
    with pytest.raises(UserError) as caught:
        read_job(path, [])
    assert len(caught.value.problems) == 2
    assert "add a line like `Required: Python, SQL`" in str(caught.value)


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"{\\rtf1\\ansi Data Engineer}", "RTF"),
        (b"%PDF-1.7\n%\xe2\xe3", "PDF"),
        (b"PK\x03\x04\x14\x00", "DOCX"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "DOC"),
    ],
)
def test_document_that_is_no_text_is_refused_in_one_line(start: bytes, name: str, tmp_path: Path):
    (tmp_path / "job.doc").write_bytes(start)
    with pytest.raises(UserError, match=f"{name}.*save it as plain text") as caught:
        read_description(tmp_path / "job.doc")
    assert len(str(caught.value).splitlines()) == 1


def test_utf_16_and_windows_line_ends_are_read(tmp_path: Path):
    path = tmp_path / "job.txt"
    path.write_bytes(POST.replace("\n", "\r\n").encode("utf-16"))
    assert read_description(path).required == ("Python", "SQL")


def test_script_style_and_comment_of_a_page_are_no_text(tmp_path: Path):
    page = "<script>var a = '<b>Java</b>'</script><!-- <li>PHP</li> --><h1>Data Engineer</h1><h2>Skills</h2>"
    found = reading(tmp_path, f"{page}<ul><li>Python<li>SQL &amp; R</ul><style>go {{}}</style><script>Rust")
    assert (found.title, found.required, found.nice) == ("Data Engineer", ("Python", "SQL", "R"), ())
    assert found.text == "Data Engineer. Skills. Python. SQL & R."


@pytest.mark.parametrize(
    "text",
    [
        "Required: " + "Python, " * 40_000, "Required: " + "(" * 300_000, "(Python) " * 40_000, "<p>" + "<" * 300_000,
        "<p>" + "<![" * 100_000, "<div>" * 60_000, "<!--" * 80_000, "5 years " * 40_000, "a\n" * 150_000,
        " " * 300_000 + "x", "no " * 100_000, "Python/" * 40_000,
    ],
    ids=lambda text: repr(text[:12]),
)  # fmt: skip
def test_large_text_is_read_in_bounded_time(text: str, tmp_path: Path):
    began = time.process_time()
    found = reading(tmp_path, text)
    assert time.process_time() - began < 10  # under 2 s each on a free core
    assert len(found.title or "") < 200


def test_long_text_is_read_to_a_limit_and_a_doubt_says_so(tmp_path: Path):
    found = reading(tmp_path, POST + "We bake bread. " * (MAX_CHARACTERS // 10))
    assert found.required == ("Python", "SQL")
    assert found.doubts == (f"only the first {MAX_CHARACTERS} characters are read; give the text of one job",)


fragment = st.sampled_from(
    [
        "Requirements", "Nice to have:", "What we don’t want", "- ", "* ", "Python", "Go", "Excel", "CI/CD", "C++", "R",
        " or ", " and ", ", ", " / ", "(", ")", " is a plus", "no ", "not required", "5+ years", "3-5 years of ", "\n",
        ": ", ". ", "Job Title", "Data Engineer", "<li>", "</p>", "**", "#", "\t", "&amp;", "\u200d", "é", "such as ",
    ]
)  # fmt: skip


@settings(max_examples=100, deadline=10_000, derandomize=True)
@given(text=st.lists(fragment | st.text(max_size=5), max_size=40).map("".join))
def test_any_text_gives_a_reading_that_holds_together(text: str, tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_text(text, encoding="utf-8", errors="replace")
    found = read_description(path)
    names = [name for entry in (*found.required, *found.nice) for name in entry.split(" or ")]
    assert len(names) == len(set(names)), "a skill counts once"
    assert set(found.sources) == {*found.required, *found.nice}
    assert len(found.required) <= MAX_REQUIRED
    assert len(found.nice) <= MAX_NICE
    assert found.max_years is None or found.min_years <= found.max_years
    json.dumps(found.as_dict(), ensure_ascii=False).encode("utf-8")
    "\n".join(found.lines()).encode("utf-8")


def test_job_file_gives_the_same_job_as_its_description(tmp_path: Path):
    text = f"{POST}- Tableau or Power BI\n- R: nice to have\n\nAbout us\nWe like “quotes”, #hashes and: colons.\n"
    whole = reading(tmp_path, text)
    whole.write(tmp_path / "job.yaml", source="job.txt")
    assert read_job(tmp_path / "job.yaml", ["SQL"]) == whole.job(tmp_path / "job.txt")
    written = (tmp_path / "job.yaml").read_text()
    assert written.startswith("# The job as it was read from job.txt. Correct it, then give this file")
    assert yaml.safe_load(written)["required"] == ["Python", "SQL", "Tableau or Power BI"]


def test_job_file_holds_the_doubts_and_is_not_written_over(tmp_path: Path):
    found = reading(tmp_path, "Analyst\nRequired: Python\n")
    found.write(tmp_path / "job.yaml", source="job.txt")
    assert "# Doubtful: no years of experience found: read as 0+\n" in (tmp_path / "job.yaml").read_text()
    with pytest.raises(UserError, match="exists already, perhaps corrected"):
        found.write(tmp_path / "job.yaml", source="job.txt")
    with pytest.raises(UserError, match=r"ends in \.yaml"):
        found.write(tmp_path / "job.json", source="job.txt")


def test_every_mistake_in_a_job_file_is_named(tmp_path: Path):
    path = tmp_path / "job.yaml"
    path.write_text("title: ''\nmin_years: 3.5\nrequired: [SQL, no]\nnise: []\n")
    with pytest.raises(UserError) as caught:
        read_job(path, [])
    assert len(caught.value.problems) == 4
    told = str(caught.value)
    for words in ("title: is empty", "min_years: 3.5", "required[1]: False is not accepted", "nise: unknown key"):
        assert f"{path}: {words}" in told
    path.write_text("title: A\nmin_years: 5\nmax_years: 3\nrequired: [SQL]\n")
    with pytest.raises(UserError, match="max_years 3 is below min_years 5"):
        read_job(path, [])
    path.write_text("- SQL\n")
    with pytest.raises(UserError, match="holds no keys of a job"):
        read_job(path, [])


def test_data_job_prints_what_was_read_as_lines_or_json(tmp_path: Path):
    (tmp_path / "job.txt").write_text("Analyst\nRequired: Python\nNice to have: dbt\n")
    printed = cli("data", "job", "job.txt", "--out", "job.yaml", folder=tmp_path)
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout.splitlines() == [
        "job       Analyst, 0+ years",
        "required  Python  < Required: Python",
        "nice      dbt     < Nice to have: dbt",
        "doubt     no years of experience found: read as 0+",
        "doubt     1 required skill found: add a line like `Required: Python, SQL`",
        "job.yaml",
    ]
    for name in ("job.txt", "job.yaml"):
        as_json = cli("data", "job", name, "--json", folder=tmp_path)
        assert as_json.returncode == 0, as_json.stderr
        found = json.loads(as_json.stdout)
        assert list(found) == ["title", "min_years", "max_years", "required", "nice", "sources", "doubts"]
        assert (found["title"], found["required"], found["nice"]) == ("Analyst", ["Python"], ["dbt"])


def test_data_job_ends_with_2_where_the_file_is_no_text(tmp_path: Path):
    (tmp_path / "job.pdf").write_bytes(b"%PDF-1.7")
    failed = cli("data", "job", "job.pdf", folder=tmp_path)
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: job.pdf: is a PDF")


def test_data_job_knows_the_names_of_a_pool(tmp_path: Path):
    skills = [{"name": "Sourdough", "proficiency": "expert", "duration_months": 30}]
    person = {"candidate_id": "C1", "profile": {"current_title": "Baker", "years_of_experience": 5}, "skills": skills}
    (tmp_path / "pool.jsonl").write_text(json.dumps({**person, "career_history": []}) + "\n")
    (tmp_path / "job.txt").write_text("Baker\nRequirements:\n- sourdough\n")
    found = cli("data", "job", "job.txt", "--candidates", "pool.jsonl", "--json", folder=tmp_path)
    assert json.loads(found.stdout)["required"] == ["Sourdough"]


def test_redrob_description_asks_for_embeddings_a_vector_database_and_python():
    if not REDROB.exists():
        pytest.skip(f"no sample at {REDROB}")
    found = read_description(REDROB / "job_description.txt", ["FAISS", "Marketing", "Sales"])
    assert (found.title, found.min_years, found.max_years) == ("Senior AI Engineer", 5, 9)
    assert found.required == (
        "Embeddings or Sentence Transformers",
        "Vector Databases or Pinecone or Weaviate or Qdrant or Milvus or OpenSearch or Elasticsearch or FAISS",
        "Python",
    )
    assert "Fine-tuning LLMs or LoRA or QLoRA or PEFT" in found.nice
    assert "LangChain" not in str(found.as_dict())
