from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovd_envs.grading import extract_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        # boxes
        (r"so \boxed{95}.", "95"),
        (r"first \boxed{94}, no: \boxed{95}", "95"),
        (r"\boxed{\frac{1}{2}} and so on", r"\frac{1}{2}"),
        (r"\boxed{ \{1, 2\} }", r"\{1, 2\}"),
        (r"\boxed{\text{a } b} c}", r"\text{a } b"),
        (r"\boxed{5} then \boxed{unclosed", "5"),
        (r"\boxed{outer \boxed{inner}}", "inner"),
        (r"\fbox{7}", None),
        (r"\fboxed{7}", "7"),
        (r"\\boxed{7}", "7"),
        (r"\boxed {7}", "7"),
        (r"$\boxed 7$", "7"),
        (r"\boxed{}", None),
        (r"the answer in \boxed{}. The answer is 4.", "4"),
        (r"{ unbalanced \boxed{3} }}} {", "3"),
        # a box beats the rest
        (r"\boxed{1} #### 2", "1"),
        (r"The answer is 3. \boxed{1}. The answer is 2.", "1"),
        # hashes
        ("16 - 3 - 4 = 9\n#### 18", "18"),
        ("#### 17\n#### 18\nmore", "18"),
        ("####", None),
        ("#### 110 ####", "110"),
        ("#### 110\n####", "110"),
        ("#### Answer: 110", "110"),
        ("#### Final Answer\nThe answer is 110.", "110"),
        ("#### **Final Answer:**\n\n18\n\nDone.", "18"),
        ("#### 18\n#### Explanation\nWe add.", "18"),
        ("#### 18\nThe answer is checked by adding.", "18"),
        ("#### red", "red"),
        # what a base model rambles after it
        ("#### \\pi\n\nQuestion: What is 3+4?\nAnswer: 7", "\\pi"),
        ("#### x+y\n\nQ: foo?\nA: 7", "x+y"),
        ("#### east\nThe answer is correct because", "east"),
        # phrases
        ("The answer is 42.", "42"),
        ("The answer is 3.5.", "3.5"),
        ("the final answer is: $42$. I hope so.", "$42$"),
        ("**Answer:** 42", "42"),
        ("**Final Answer**: 42 apples", "42 apples"),
        ("Answer = 42", "42"),
        ("The answer to the question is 42", "42"),
        ("The answer is 41. No, the answer is 42.", "42"),
        ("The answer is 42, because 6 * 7 = 42.", "42"),
        ("The answer is $42$, since it is.", "$42$"),
        ("The answer is 1, 2 and 3.", "1, 2 and 3"),
        ("The answer is 1, or 2.", "1, or 2"),
        ("The answer is red, blue and green.", "red, blue and green"),
        ("The answer is 110.\n\nAnswer:", "110"),
        ("(The answer is 110)", "110"),
        ("The answer is (1, 2)", "(1, 2)"),
        ("The answer is [0, 5).", "[0, 5)"),
        ("Answer: [3, \\infty)", "[3, \\infty)"),
        (r"The answer is [1,2)\cup[3,4).", r"[1,2)\cup[3,4)"),
        ("A: 15", "15"),
        ("some working\nA: 22.5", "22.5"),
        ("The answer is:\n42\nindeed", "42"),
        # nothing
        ("", None),
        ("37 + 58 = 95", None),
        ("I have no answers to give", None),
        ("An answering machine", None),
    ],
)
def test_examples(text, answer):
    assert extract_answer(text) == answer


def braces(inner):
    return st.builds("{{{}}}".format, inner) | st.builds("{}{}".format, inner, inner)


BALANCED = st.recursive(
    st.text(alphabet=r"abc 12+\frac", max_size=5).filter(lambda text: not text.endswith("\\")),
    braces,
    max_leaves=12,
)


@given(before=st.text(max_size=20), content=BALANCED, after=st.text(max_size=20))
def test_a_box_holds_what_its_braces_hold(before, content, after):
    if not content.strip() or before.endswith("\\"):
        return
    text = before + "\\boxed{" + content + "}" + after
    assert extract_answer(text) == content.strip()


@given(st.text(alphabet=st.characters()))
def test_any_text_is_read_without_an_error(text):
    answer = extract_answer(text)
    assert answer is None or (answer and answer in text)


@given(
    st.lists(
        st.sampled_from(["\\boxed{", "}", "{", "\\{", "\\\\", "5", "answer is ", "#### ", "\n"])
    )
)
def test_any_mixture_of_marks_is_read_without_an_error(parts):
    text = "".join(parts)
    answer = extract_answer(text)
    assert answer is None or answer in text


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{" * 150_000,
        "\\boxed{" * 100_000 + "5" + "}" * 100_000,
        "{" * 1_000_000,
        "answer is " * 100_000,
        "answer" + " " * 1_000_000,
        "A:" + "\n*" * 500_000,
        "#" * 1_000_000,
        "\\" * 1_000_000,
        "\\boxed " + " " * 1_000_000,
        ("\\boxed" + " " * 1000) * 1000,
    ],
    ids=lambda text: repr(text[:12]),
)
def test_a_megabyte_is_read_in_time(text):
    start = time.process_time()
    extract_answer(text)
    assert time.process_time() - start < 2
