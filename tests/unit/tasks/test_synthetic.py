"""The bundled benchmark: rebuilt byte for byte, balanced, disjoint, and harder than counting keywords."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from support.difficulty import bag_of_words, constant_reward, majority_accuracy, overlap_accuracy
from support.paths import ROOT, SHARED

from mlx_grpo.data.dataset import context_of
from mlx_grpo.json_files import read_jsonl, write_jsonl
from mlx_grpo.tasks.shortlist import candidates
from mlx_grpo.tasks.shortlist.candidates import draw
from mlx_grpo.tasks.shortlist.fit import fit
from mlx_grpo.tasks.shortlist.prompt import parse
from mlx_grpo.tasks.shortlist.synthetic import DATA, UNSEEN_FIELDS, make_bundle, make_jobs, make_pairs
from mlx_grpo.tasks.shortlist.vocabulary import VOCABULARY

FILES = ("train.jsonl.gz", "heldout.jsonl.gz", "train-full.jsonl.gz", "heldout-full.jsonl.gz")


@pytest.fixture(scope="module")
def rows():
    return {name: read_jsonl(DATA / name) for name in FILES}


def test_the_bundle_is_what_the_generator_writes():
    bundle = make_bundle()
    assert tuple(bundle) == FILES
    for name, made in bundle.items():
        assert made == read_jsonl(DATA / name), name


def test_another_seed_writes_another_bundle():
    assert make_bundle(1, 2, 2)["train.jsonl.gz"] != make_bundle(2, 2, 2)["train.jsonl.gz"]


@pytest.mark.parametrize("name", FILES)
def test_the_label_is_the_fit_of_what_the_prompt_shows(rows, name):
    form = "full" if "full" in name else "compact"
    for row in rows[name]:
        gold = fit(*parse(context_of(row), form))
        assert (gold.score, gold.decision) == (row["score"], row["decision"]), row["id"]
        assert "context" not in row


def test_both_forms_give_one_candidate_one_label(rows):
    compact = {row["id"]: (row["score"], row["decision"]) for name in FILES[:2] for row in rows[name]}
    full = {row["id"]: (row["score"], row["decision"]) for name in FILES[2:] for row in rows[name]}
    assert len(full) == 396
    assert all(compact[key] == label for key, label in full.items())


def test_train_and_heldout_share_neither_job_nor_candidate_nor_prompt(rows):
    train = [row for name in ("train.jsonl.gz", "train-full.jsonl.gz") for row in rows[name]]
    held = [row for name in ("heldout.jsonl.gz", "heldout-full.jsonl.gz") for row in rows[name]]
    for key in ("job_id", "candidate_id", "id"):
        assert {row[key] for row in train}.isdisjoint(row[key] for row in held), key
    assert {context_of(row) for row in train}.isdisjoint(map(context_of, held))


def test_jobs_of_one_title_in_train_and_heldout_ask_for_different_skills():
    train, held = make_jobs()
    assert {(job.title, job.required) for job in train}.isdisjoint((job.title, job.required) for job in held)


def test_no_candidate_stands_twice(rows):
    ids = [row["candidate_id"] for name in FILES[:2] for row in rows[name]]
    assert len(ids) == len(set(ids)) == 1560


def test_there_are_66_training_jobs_and_15_held_out_six_from_unseen_fields():
    train, held = make_jobs()
    assert (len(train), len(held)) == (66, 15)
    assert sum(job.field in UNSEEN_FIELDS for job in held) == 6
    assert {job.field for job in train} == set(VOCABULARY.fields) - set(UNSEEN_FIELDS)
    assert all(3 <= len(job.required) <= 6 for job in train + held)


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_balanced_and_holds_every_kind(rows, name):
    share = sum(row["decision"] == "shortlist" for row in rows[name]) / len(rows[name])
    assert 0.4 <= share <= 0.6
    assert set(Counter(row["kind"] for row in rows[name])) == {
        "strong",
        "partial",
        "near_miss",
        "stuffed",
        "impossible",
    }


def test_every_impossible_or_stuffed_candidate_is_rejected_and_strong_ones_are_not(rows):
    for row in rows["train.jsonl.gz"] + rows["heldout.jsonl.gz"]:
        if row["kind"] in ("impossible", "stuffed", "near_miss"):
            assert row["decision"] == "reject"
        assert bool(fit(*parse(context_of(row), "compact")).impossible) == (row["kind"] == "impossible")
        if row["kind"] == "strong":
            assert row["decision"] == "shortlist"


@pytest.mark.parametrize("count", [8, 16, 32, 64, 120])
def test_the_first_heldout_rows_are_balanced_and_from_many_jobs(rows, count):
    first = rows["heldout.jsonl.gz"][:count]
    assert sum(row["decision"] == "shortlist" for row in first) == count / 2
    assert len({row["job_id"] for row in first}) == min(count, 15)


def test_the_bundle_stays_under_600_kilobytes():
    assert sum((DATA / name).stat().st_size for name in FILES) < 600_000


def test_the_same_rows_are_written_as_the_same_bytes_whatever_the_files_name(rows, tmp_path):
    some = rows["heldout.jsonl.gz"][:5]
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        write_jsonl(tmp_path / name, some)
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()
    assert read_jsonl(tmp_path / "a.jsonl.gz") == some


def test_a_compact_prompt_stays_short(rows):
    lengths = [len(context_of(row)) for row in rows["train.jsonl.gz"] + rows["heldout.jsonl.gz"]]
    assert max(lengths) <= 600
    assert sum(lengths) / len(lengths) <= 370


@pytest.mark.parametrize(
    ("model", "mean", "most"),
    [(ROOT / "models/SmolLM2-135M-Instruct", 120, 175), (SHARED / "models/qwen3-0.6b", 110, 165)],
)
def test_prompts_and_completions_keep_to_their_token_budgets(rows, model, mean, most):
    transformers = pytest.importorskip("transformers")
    if not (model / "tokenizer.json").exists():
        pytest.skip(f"no tokenizer at {model}")
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)

    def count(row):
        return [len(tokenizer.encode(message["content"])) for message in row["prompt"]]

    compact = [count(row) for row in rows["heldout.jsonl.gz"]]
    assert sum(compact[0][:-1]) <= 310
    users = [counts[-1] for counts in compact]
    assert sum(users) / len(users) <= mean
    assert max(users) <= most
    assert max(sum(count(row)) for row in rows["heldout-full.jsonl.gz"]) < 1000
    golds = [len(tokenizer.encode(row["completion"])) for row in rows["train.jsonl.gz"] + rows["train-full.jsonl.gz"]]
    assert 75 <= sum(golds) / len(golds) <= 90
    assert max(golds) <= 127  # with its end it has to fit into the configs' 128


def test_counting_keywords_does_not_solve_it_and_words_alone_do_not_either(rows):
    train, held = rows["train.jsonl.gz"], rows["heldout.jsonl.gz"]
    assert majority_accuracy(held) == 0.5
    assert overlap_accuracy(train, held) < 0.65
    accuracy, area = bag_of_words(train, held)
    assert accuracy < 0.85 and area < 0.88


def test_one_verdict_for_all_with_two_copied_levels_earns_half(rows):
    # Half of the decisions, and two levels copied from the profile, which may be none that decides.
    assert constant_reward(rows["train.jsonl.gz"], rows["heldout.jsonl.gz"]) == pytest.approx(0.543, abs=5e-4)


def test_more_candidates_per_job_can_be_drawn_without_touching_the_heldout_jobs():
    train, held = make_jobs(3)
    pairs = make_pairs(train[:2], 40, 1, 3)
    assert len(pairs) == 80
    assert sum(fit(job, candidate).decision == "shortlist" for job, candidate, _ in pairs) == 40
    assert not {job.id for job, _, _ in pairs} & {job.id for job in held}


def test_more_candidates_are_all_written_in_the_full_form_too(rows):
    assert len(rows["train-full.jsonl.gz"]) == 300
    more = make_bundle(0, 21, 1)
    assert [row["id"] for row in more["train-full.jsonl.gz"]] == [row["id"] for row in more["train.jsonl.gz"]]


def test_a_kind_that_cannot_be_drawn_is_an_error(monkeypatch):
    monkeypatch.setitem(candidates._BANDS, "strong", (2.0, 3.0))
    with pytest.raises(RuntimeError, match="no strong candidate"):
        draw(make_jobs()[0][0], "strong", "CAND_1", Random(0))
