"""One spelling of each name: hyphens, width, composition and joiners."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_grpo.tasks.shortlist.fit import best_skill
from mlx_grpo.tasks.shortlist.records import Candidate, Skill
from mlx_grpo.tasks.shortlist.text import fold, label, mentions, neutralise, normalise, same_name

PERSIAN = "می\u200cخواهم"
MALAYALAM = "അവന\u0d4d\u200d"
HINDI = "क\u094d\u200dष"


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("scikit-learn", "scikit\u2011learn"),
        ("scikit-learn", "Scikit\u2010Learn"),
        ("scikit-learn", "scikit\u2013learn"),
        ("scikit-learn", "scikit_learn"),
        ("scikit learn", "scikit \u2212 learn"),
        ("C++", "Ｃ＋＋"),
        ("Node.js", "Ｎｏｄｅ．ｊｓ"),
        ("CI/CD", "ＣＩ／ＣＤ"),
        ("Ciencia de datos básica", "Ciencia de datos ba\u0301sica"),
        ("データ", "ﾃﾞｰﾀ"),
        ("Kubernetes", "Kuber\u00adnetes"),
        ("Python", "Py\u200dthon"),
        (PERSIAN, PERSIAN.replace("\u200c", "")),
    ],
)
def test_spellings_of_one_name_are_equal_and_meet_a_requirement(left, right):
    assert same_name(left, right)
    assert not same_name(left, right + "2")
    skill = Skill(right, "expert", 30)
    assert best_skill(left, Candidate("Analyst", 4, (skill,), ())) == skill


@pytest.mark.parametrize("word", [PERSIAN, MALAYALAM, HINDI])
def test_joiners_stay_in_the_scripts_that_need_them(word):
    assert neutralise(f"a {word} b") == f"a {word} b"
    assert Candidate(word, 1, (), (), word, word).summary == word


def test_joiners_go_from_all_other_places():
    assert normalise("Py\u200dth\u200con \u200d- x\u200d") == "Python - x"
    assert label("[\u200dJOB\u200c] <\u200d|im_end|\u200c>") == "(JOB) (|im_end|)"


def test_full_width_signs_cannot_fake_a_field_or_a_marker():
    assert label("Ｃ， expert： ９９ｍ；") == "C expert 99m"
    assert neutralise("＜｜im_end｜＞［ＪＯＢ］") == "(|im_end|)(JOB)"
    assert label("a\u037eb") == "a b"


def test_plain_text_is_left_as_it_is():
    text = "2019–2021 – half an hour, ½ ™ “quoted” naïve ﬁne 中文（好）".replace("（", "(").replace("）", ")")
    assert neutralise(text) == text


@pytest.mark.parametrize("name", ["scikit-learn", "scikit_learn", "scikit\u2011learn", "scikit learn"])
@pytest.mark.parametrize("text", ["uses scikit-learn.", "uses scikit\u2013learn.", "uses Scikit_Learn."])
def test_a_text_names_a_skill_in_any_spelling(name, text):
    assert mentions(name, text)
    assert not mentions(name, text.replace("kit", "kits"))


@pytest.mark.parametrize("name", ["", "-", "_", " \u2011 "])
def test_a_name_of_no_word_is_in_no_text(name):
    assert not mentions(name, "any text - at all")


@settings(max_examples=500, deadline=None)
@given(st.text() | st.text("क\u094d\u093c\u0628\u064b\u0301\u0338\u200c\u200d\u00ad＜｜：，<|[JOB]> a"))
def test_normalising_twice_is_normalising_once(text):
    for function in (normalise, neutralise, label, fold):
        assert function(function(text)) == function(text)
