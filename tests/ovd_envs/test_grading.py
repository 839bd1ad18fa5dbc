from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovd_envs import TaskError
from ovd_envs.grading import extract_answer, grade_math, grade_message, grade_number
from ovd_envs.grading.math import Equality
from ovd_envs.grading.pool import Expired, WorkerPool, shared_pool
from ovd_envs.jsonl import read_jsonl

#: Pairs of the shared data on which we differ from "expected", with the mathematical reason.
DISAGREEMENTS = {
    ("hendrycks_is_equiv_pairs.jsonl", "4, .1, 2", "0.1, 4, 2"): (
        "the expectation is a string rule; a list of values is a set, and these two hold the same"
    ),
    ("math_verify_pairs.jsonl", "$9$", "Answer $ \n 9 \n $"): (
        "the expectation is about line breaks between dollar signs; 9 is 9"
    ),
    ("qwen_math_cot_pairs.jsonl", "10{,}000", "10000"): (
        "the braces only keep TeX from setting a space after the comma; both are ten thousand"
    ),
}

#: And those on which pure mathematics differs, without the "settings" that the row comes with.
WITHOUT_SETTINGS = {
    73: "1/3 is not 0.33 (the row compares two digits)",
    99: "-2 <= x <= 7 says the same as x in [-2, 7] (the row forbids the comparison)",
    129: "f(x) and f(y) are different expressions (the row takes names for equal)",
}


def pairs(folder: Path):
    for path in sorted((folder / "grading").glob("*_pairs.jsonl")):
        for number, row in enumerate(read_jsonl(path), start=1):
            yield path.name, number, row


def equality(row):
    settings = row.get("settings") or {}
    return Equality(
        decimals=settings.get("precision", 6),
        strict=settings.get("strict", True),
        relations_as_sets=settings.get("allow_set_relation_comp", True),
    )


def test_agreement_on_the_shared_pairs(shared_data):
    count, different = 0, set()
    for name, _, row in pairs(shared_data):
        count += 1
        grade = grade_math(row["gold"], row["answer"], equality=equality(row))
        if grade.correct != row["expected"]:
            different.add((name, row["gold"], row["answer"]))
    assert different == set(DISAGREEMENTS)
    assert count == 189
    assert len(different) / count < 0.02


def test_what_the_settings_of_the_rows_change(shared_data):
    different = {
        number
        for name, number, row in pairs(shared_data)
        if name == "math_verify_pairs.jsonl"
        and equality(row) != Equality()
        and grade_math(row["gold"], row["answer"]).correct != row["expected"]
    }
    assert different == set(WITHOUT_SETTINGS)


def test_agreement_on_real_solutions(shared_data):
    count = 0
    for row in read_jsonl(shared_data / "grading" / "gsm8k_model_solutions.jsonl"):
        gold = extract_answer(row["ground_truth"])
        for name, solution in row.items():
            if not isinstance(solution, dict):
                continue
            count += 1
            text, expected = solution["solution"], solution["is_correct"]
            assert grade_message((gold,), text, kind="number").correct == expected, (name, text)
            assert grade_math(row["ground_truth"], text).correct == expected, (name, text)
    assert count == 4 * 659


def test_every_gold_answer_of_math_is_right_however_it_is_written(shared_data):
    for row in read_jsonl(shared_data / "math" / "math500_first250.jsonl"):
        gold = row["answer"]
        for text in (
            gold,
            f"${gold}$",
            gold.replace("\\frac", "\\dfrac"),
            f"The answer is $\\boxed{{{gold}}}$.",
            extract_answer(row["solution"]),
        ):
            assert grade_math(gold, text).correct, (gold, text)


def test_no_gold_answer_of_math_is_taken_for_the_next_one(shared_data):
    golds = [row["answer"] for row in read_jsonl(shared_data / "math" / "math500_first250.jsonl")]
    for gold, other in pairwise(golds):
        if gold != other and (gold, other) != ("5", "x=5"):
            assert not grade_math(gold, other).correct, (gold, other)


@pytest.mark.parametrize(
    ("gold", "answer", "correct"),
    [
        ("1/2", "0.5", True),
        (r"\frac{1}{2}", "2/4", True),
        ("1/3", "0.333333", True),
        ("1/3", "0.33", False),
        (r"\sqrt{8}", r"2\sqrt{2}", True),
        (r"12\frac{3}{5}", "12.6", True),
        (r"12\frac{3}{5}", r"\frac{36}{5}", False),
        ("x^2 - 4", "(x - 2)(x + 2)", True),
        ("{1, 2}", "2, 1", True),
        ("(1, 2)", "(2, 1)", False),
        ("1", "k = 1", True),
        ("5", "5x", False),
        ("5", "5 apples", True),
        ("95", r"\boxed{94}. No: \boxed{95}", True),
        ("95", r"\boxed{95}. No: \boxed{94}", False),
        ("1000.99", "1000,99", True),
        ("1,234", "1234", True),
        ("12", "1, 2", False),
        ("1,2", "2,1", True),
        (r"\text{Evelyn}", "Evelyn", True),
        (r"\text{Evelyn}", "Carla", False),
        ("28\\%", "28", True),
        (r"\frac{\pi}{2}", "1.570796", True),
        ("5", "5 million", False),
        ("5", r"5\text{ million}", False),
        ("5", "5 squared", False),
        ("5000000", "$5 million", True),
        ("5 million", "5,000,000 people", True),
        (r"5 \text{ million}", "5", True),
        ("2", "2 dozen", True),
    ],
)
def test_mathematics(gold, answer, correct):
    assert grade_math(gold, answer).correct is correct


def test_the_gold_answer_comes_first():
    # math-verify takes "11a + c" for what "7 = 11a + c" assigns, where the equation is the answer.
    assert grade_math("11a+c", "7 = 11a+c").correct
    assert not grade_math("7 = 11a+c", "11a+c").correct


@given(st.text(alphabet=st.characters(), max_size=40))
@settings(max_examples=200, deadline=None)
def test_a_text_is_the_same_as_itself(text):
    assert grade_math(text, text).correct
    assert grade_math(text, f" {text}\n").correct == grade_math(f" {text}\n", text).correct


@given(st.integers(-(10**12), 10**12), st.integers(-(10**12), 10**12))
def test_whole_numbers_are_compared_exactly(a, b):
    for written in (str(b), f"{b:,}", f"${b}$", f"{b}.0", f"\\boxed{{{b}}}"):
        assert grade_math(str(a), written).correct == (a == b)
        assert grade_number(str(a), extract_answer(written) or written).correct == (a == b)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ("95", "right"),
        ("95.00", "right"),
        ("$95", "right"),
        ("95 apples", "right"),
        ("190/2", "right"),
        ("37 + 58", "wrong"),
        ("94 + 1", "wrong"),
        ("x = 95", "wrong"),
        ("94", "wrong"),
        ("", "wrong"),
        ("95 or 96", "wrong"),
        ("95 million", "wrong"),
        ("95 squared", "wrong"),
        ("95 divided by x", "wrong"),
        ("\u0669\u0665", "wrong"),
    ],
)
def test_a_number_is_wanted_and_no_sum(answer, outcome):
    assert grade_number("95", answer).outcome == outcome


@pytest.mark.parametrize(
    ("gold", "message"),
    [
        ("4", "#### 4 cookies left over"),
        ("10", "The answer is 10 more marbles than Tom."),
        ("14", "#### 14 years older than Mia"),
        ("5", "The answer is 5 times as many."),
        ("3", "#### 3 times a week"),
        ("25", "The answer is 25 feet squared."),
        ("25", r"\boxed{25 \text{ cm squared}}"),
        ("9", "The answer is 9 pizzas divided equally."),
        ("18", "**Answer:** $18 plus tip"),
        ("20", "#### 20 hundred-dollar bills"),
    ],
)
def test_what_is_said_of_a_number_beside_it_is_its_unit(gold, message):
    assert grade_message((gold,), message, kind="number").correct


def test_a_gold_answer_that_is_no_number_is_the_tasks_fault():
    with pytest.raises(TaskError, match="'many': expected a number"):
        grade_number("many", "5")


def test_messages():
    grade = grade_message(("94", "95"), r"So it is \boxed{95}.", kind="number")
    assert (grade.correct, grade.outcome, grade.extracted) == (True, "right", "95")
    grade = grade_message(("95",), "I say 95", kind="number")
    assert (grade.correct, grade.outcome, grade.extracted) == (False, "no_answer", None)
    grade = grade_message(("1/2",), r"\boxed{\frac{2}{4}}")
    assert (grade.correct, grade.extracted) == (True, r"\frac{2}{4}")
    assert grade_message((), r"\boxed{5}").outcome == "wrong"
    assert grade_message(("many", "5"), r"\boxed{5}", kind="number").correct
    with pytest.raises(TaskError, match="'many'"):
        grade_message(("many", "5"), r"\boxed{6}", kind="number")


PATHOLOGICAL = {
    "power tower": "10^{10^{10}}",
    "taller tower": "9^{9^{9^{9}}}",
    "factorial": "(10^{9})!",
    "open braces": "{" * 100_000,
    "closed braces": "{" * 50_000 + "}" * 50_000,
    "open boxes": "\\boxed{" * 20_000,
    "nested boxes": "\\boxed{" * 20_000 + "5" + "}" * 20_000,
    "nested fractions": "\\frac{1}{" * 500 + "2" + "}" * 500,
    "half fractions": "\\frac{" * 3000,
    "brackets": "(" * 5000 + "1" + ")" * 5000,
    "NUL": "9\x005",
    "right to left": "\u202e59\u202c",
    "other digits": "\u0669\u0665",
    "megabyte of letters": "x" * 1_000_000,
    "megabyte of digits": "9" * 1_000_000,
    "megabyte of sums": "\\boxed{" + "1+" * 400_000 + "1}",
    "huge exponent": "1e999999999",
    "long sum": r"\sum_{k=1}^{10^{12}} \frac{1}{k^2+\sin k}",
    "integral": r"\int_0^{\infty} e^{-x^x} \sin(x^{x^x}) dx",
    "polynomial": "(x+y+z+w+1)^{200}",
    "dollars": "$" * 100_000,
    "half a surrogate": "\ud800 5",
    "division by zero": r"\frac{1}{0}",
    "matrix": r"\begin{pmatrix}" + "1&" * 5000 + r"1\end{pmatrix}",
    "code": "__import__('os').system('touch pwned')",
}


@pytest.mark.parametrize("name", PATHOLOGICAL)
def test_pathological_answers_are_answered_within_the_deadline(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grade_math("x + 1", "1 + x")  # a worker is there: its start is not under test
    deadline = 0.5
    start = time.monotonic()
    grade = grade_math("95", PATHOLOGICAL[name], deadline=deadline)
    # Beside the deadline: the end of the worker, and one for the question whether 95 is to blame.
    assert time.monotonic() - start < deadline + 5
    assert not grade.correct
    assert grade.outcome in ("wrong", "too_long", "timeout")
    assert not (tmp_path / "pwned").exists()


def test_a_timeout_tells_the_students_fault_from_the_tasks():
    assert grade_math("95", "10^{10^{10}}", deadline=0.5).outcome == "timeout"
    with pytest.raises(TaskError, match="gold answer '10"):
        grade_math("10^{10^{10}}", "95", deadline=0.5)
    with pytest.raises(TaskError, match="cannot be read"):
        grade_math("\\frac{1}{" * 500 + "2" + "}" * 500, "x + 1", deadline=0.5)
    assert grade_math("x + 1", "1 + x").correct, "the next pair is graded as ever"


def test_a_gold_answer_is_not_to_blame_where_the_machine_stood_still(monkeypatch):
    """Once it takes too long, or its worker is killed; the second time it is read."""
    pool, asked = shared_pool(), []

    def ask(request, *, deadline):
        asked.append(request)
        if len(asked) == 1:
            raise Expired("gold", ended=True)
        return WorkerPool.ask(pool, request, deadline=deadline)

    monkeypatch.setattr(pool, "ask", ask)
    assert grade_math("x + 1", "1 + x").correct
    assert len(asked) == 2


def test_empty_answers():
    for answer in ("", "  \n"):
        assert grade_math("95", answer).outcome == "no_answer"


def test_easy_pairs_need_no_worker(monkeypatch):
    def refuse():
        raise AssertionError("the slow path was taken")

    monkeypatch.setattr("ovd_envs.grading.math.shared_pool", refuse)
    easy = [("95", "95"), ("95", "94"), ("1,000", "$1000$"), (r"\frac12", "0.5"), ("x+1", "x+1")]
    for gold, answer in easy:
        grade_math(gold, answer)
    grade_message(("95",), r"\boxed{37 + 58}", kind="number")
    with pytest.raises(AssertionError, match="slow path"):
        grade_math("x + 1", "1 + x")
