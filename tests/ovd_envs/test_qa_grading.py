"""Exact match, F1 and substring match, against SQuAD's semantics written a second time."""

from __future__ import annotations

import re
import string
import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ovd_envs.errors import TaskError
from ovd_envs.grading import exact_match, f1, grade_qa, normalize_answer, substring_match

# ------------------------------------------------------------------------------- the reference


def squad_words(text: str) -> list[str]:
    """SQuAD v1.1: lower case, without ASCII punctuation and articles, parted at blanks."""
    kept = "".join(c for c in text.lower() if c not in string.punctuation)
    words = re.split(r"(\W)", kept)
    return "".join(" " if word in {"a", "an", "the"} else word for word in words).split()


def squad_f1(gold: str, answer: str) -> float:
    expected, said = squad_words(gold), squad_words(answer)
    left = list(expected)
    same = sum(1 for word in said if word in left and (left.remove(word) or True))
    return 2 * same / (len(expected) + len(said)) if same else 0.0


WORDS = ["a", "An", "THE", "the", "cat", "Cat", "dog", "yes", "No", "1914", "Röntgen", "é", "Theo"]
MARKS = [" ", "  ", ", ", "-", "–", ".", "'", "’", "\n", "\t", "?", "", "\u00a0", "_"]
phrases = st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(MARKS)), max_size=6).map(
    lambda pairs: "".join(word + mark for word, mark in pairs)
)
texts = phrases | st.text(max_size=12)
spoken = texts.filter(str.strip)


@given(texts)
def test_normalization_is_squads(text):
    assert normalize_answer(text).split() == squad_words(text)
    assert normalize_answer(text) == " ".join(squad_words(text))


@given(spoken, texts)
def test_exact_match_and_f1_are_squads(gold, answer):
    assert exact_match([gold], answer) == (squad_words(gold) == squad_words(answer))
    closed = {"yes", "no", "noanswer"}
    assume(squad_words(gold) and " ".join(squad_words(gold)) not in closed)
    assume(" ".join(squad_words(answer)) not in closed)
    assert f1([gold], answer) == pytest.approx(squad_f1(gold, answer))


# ---------------------------------------------------------------------------------- properties


@given(spoken, spoken, st.booleans())
def test_measures_of_a_pair(one, two, mended):
    there, back = grade_qa(one, two, mended=mended), grade_qa(two, one, mended=mended)
    assert there.f1 == back.f1
    assert there.em == back.em
    assert 0 <= there.f1 <= 1
    assert there.em in (0, 1)
    assert there.substring in (0, 1)
    assert grade_qa(one, one, mended=mended) == grade_qa(two, two, mended=mended)
    if there.em:
        assert (there.f1, there.substring) == (1, 1)


@given(st.lists(spoken, min_size=1, max_size=4), texts, st.booleans())
def test_the_best_gold_answer_counts(golds, answer, mended):
    alone = [grade_qa(gold, answer, mended=mended) for gold in golds]
    grade = grade_qa(golds, answer, mended=mended)
    assert grade.em == max(g.em for g in alone)
    assert grade.f1 == f1(golds, answer, mended=mended) == max(g.f1 for g in alone)
    assert grade.substring == max(g.substring for g in alone)
    assert exact_match(golds, answer, mended=mended) == bool(grade.em)
    assert substring_match(golds, answer, mended=mended) == bool(grade.substring)


@given(spoken, phrases, st.sampled_from(["a", "The", "an"]), st.booleans())
def test_case_and_articles_and_blanks_do_not_matter(gold, answer, article, mended):
    assume(normalize_answer(answer))
    same = f"  {article} \n{answer.upper()} {article}.  "
    assume(normalize_answer(answer.upper()) == normalize_answer(answer))  # not so for every letter
    assert grade_qa(gold, same, mended=mended) == grade_qa(gold, answer, mended=mended)


@given(spoken, st.randoms(), st.lists(st.sampled_from(string.punctuation), max_size=4))
def test_mended_takes_no_match_away(gold, random, punctuation):
    assume(normalize_answer(gold))
    written = list(gold.swapcase())
    for mark in punctuation:
        written.insert(random.randint(0, len(written)), mark)
    answer = f"The {''.join(written)}!"
    assume(exact_match(gold, answer))
    assert exact_match(gold, answer, mended=True)


@given(texts | st.text())
def test_mended_settles(text):
    once = normalize_answer(text, mended=True)
    assert normalize_answer(once, mended=True) == once
    assert bool(once) == bool(once.strip())


# ------------------------------------------------------------------------------------- by hand


@pytest.mark.parametrize(
    ("gold", "answer", "squad", "mended"),
    [
        ("Wilhelm Conrad Röntgen", "wilhelm conrad rontgen", 0, 1),
        ("Ro\u0308ntgen", "Röntgen", 0, 1),  # the same letter, in two parts
        ("Lech Wałęsa", "Lech Walesa", 0, 1),
        ("Øresund", "oresund", 0, 1),
        ("Straße", "strasse", 0, 1),
        ("1914–1918", "1914-1918", 0, 1),
        ("−5", "-5", 0, 1),
        ("Jean‐Paul Sartre", "Jean-Paul Sartre", 0, 1),
        ("the “Titan” IIIE", "Titan IIIE", 0, 1),
        ("Schindler’s List", "Schindler's list", 0, 1),
        ("Hawaiʻi", "Hawai'i", 0, 1),
        ("May 18,\u00a02018", "May 18, 2018", 1, 1),
        ("co\u00adoperation", "cooperation", 0, 1),
        ("\u200bRush", "Rush", 0, 1),
        ("１２３", "123", 0, 1),
        ("١٩٨٤", "1984", 0, 1),
        ("ﬁnland", "Finland", 0, 1),
        ("Ｒｕｓｈ", "Rush", 0, 1),
        ("5 m²", "5 m2", 0, 1),
        ("Lego™", "Lego", 0, 1),
        ("€5", "$5", 0, 1),
        ("が", "か", 0, 0),  # another syllable, not an accent
        ("की", "का", 0, 0),
        ("가", "간", 0, 0),
        ("世界", "世界。", 0, 1),
        # Of these SQuAD's leaves nothing, so all of them are the same.
        ("The", "the.", 1, 1),
        ("The", "A", 1, 0),
        ("The", "", 1, 0),
        ("A", "a", 1, 1),
        ("?", "!", 1, 0),
        ("?", "?", 1, 1),
        ("+", "The", 1, 0),
        ("÷", "×", 0, 0),
        ("The Who", "who", 1, 1),
        ("5", "six", 0, 0),
    ],
)
def test_what_is_mended(gold, answer, squad, mended):
    assert grade_qa(gold, answer).em == squad
    found = grade_qa(gold, answer, mended=True)
    assert found.em == mended
    if mended:
        assert (found.f1, found.substring) == (1, 1)


def test_yes_and_no_get_all_or_nothing():
    assert f1("yes", "Yes!") == 1
    assert f1("yes", "yes it is") == 0
    assert f1("yes it is", "yes") == 0
    assert f1(["noanswer"], "no answer") == 0
    assert f1(["yes", "yes it is"], "it is") == pytest.approx(0.8)


def test_f1_counts_words_as_often_as_both_have_them():
    assert f1("New York New York", "new york") == pytest.approx(2 / 3)
    assert f1("New York New York", "new york york") == pytest.approx(6 / 7)
    assert f1("Titan IIIE", "IIIE Titan") == 1
    assert not exact_match("Titan IIIE", "IIIE Titan")


def test_substrings_are_of_characters():
    """As Search-R1's subem_check, with its dangers."""
    assert substring_match("no", "Nobody knows")
    assert substring_match(["Paris"], "It is London, Paris or Rome")
    assert not substring_match("It is Paris", "Paris")
    assert substring_match("The", "anything")
    assert not substring_match("The", "anything", mended=True)
    assert substring_match("New York", "the New, York")
    assert not substring_match("가", "간", mended=True)  # a syllable is one character


@pytest.mark.parametrize("golds", [[], "", [" ", "\n"]])
def test_no_gold_answer_is_an_error(golds):
    with pytest.raises(TaskError, match="gold answers: expected at least one text, got"):
        grade_qa(golds, "5")


def test_a_blank_gold_answer_is_no_answer():
    assert grade_qa(["", "Rush"], "").em == 0
    assert not substring_match(["", "Rush"], "anything")


def test_a_single_text_is_one_gold_answer_and_not_its_letters():
    assert not exact_match("Rush", "R")


@pytest.mark.parametrize(
    "text", ["a" + "\u05b0\u0591" * 100_000, "\ufdfa" * 50_000, "the " * 10**5]
)
def test_hostile_texts_take_no_time(text):
    began = time.process_time()
    grade_qa("Rush", text, mended=True)
    assert time.process_time() - began < 5  # in sorting alone, the first took 30 seconds
