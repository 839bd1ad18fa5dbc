import contextlib
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teachers.arithmetic import (
    CLOSE,
    NUMBER,
    OPEN,
    OPERATOR,
    NotArithmetic,
    evaluate,
    number,
    show,
)


def tokens(text):
    kinds = {"(": OPEN, ")": CLOSE}
    return [(kinds.get(t, OPERATOR if t in "+-*/^" else NUMBER), t) for t in text.split()]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3", 7),
        ("( 1 + 2 ) * 3", 9),
        ("8 / 4 / 2", 1),
        ("8 - 4 - 2", 2),
        ("- 2 ^ 2", -4),
        ("2 ^ 3 ^ 2", 512),
        ("2 ^ - 1", Fraction(1, 2)),
        ("2 ( 3 + 4 )", 14),
        ("( 2 ) ( 3 )", 6),
        ("3 - - 4", 7),
        ("3 * - 4", -12),
        ("1,000.5 + .5", 1001),
        ("0 ^ 0", 1),
    ],
)
def test_values(text, value):
    assert evaluate(tokens(text)) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1 +",
        "* 1",
        "( 1",
        "1 )",
        "1 2",
        "1 / 0",
        "1 / ( 2 - 2 )",
        "0 ^ - 1",
        "2 ^ 65",
        "2 ^ ( 1 / 2 )",
        "9 ^ 64 ^ 64",
        "( 9 ^ 64 ) ^ 64",
        " * ".join(["9999999999"] * 80),
        "1" * 41,
        "( " * 31 + "1" + " )" * 31,
        " ^ ".join(["1"] * 100),
    ],
)
def test_not_arithmetic(text):
    with pytest.raises(NotArithmetic):
        evaluate(tokens(text))


expressions = st.recursive(
    st.integers(0, 999).map(str),
    lambda inner: st.builds("( {} {} {} )".format, inner, st.sampled_from("+-*"), inner),
    max_leaves=12,
)


@given(expressions)
def test_agrees_with_python(text):
    assert evaluate(tokens(text)) == eval(text)


@given(st.lists(st.sampled_from(["1", "2.5", "+", "-", "*", "/", "^", "(", ")"]), max_size=30))
def test_any_tokens_give_a_value_or_not_arithmetic(parts):
    with contextlib.suppress(NotArithmetic):
        assert isinstance(evaluate(tokens(" ".join(parts))), Fraction)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Fraction(15), "15"),
        (Fraction(-3), "-3"),
        (Fraction(3, 4), "0.75"),
        (Fraction(-1, 8), "-0.125"),
        (Fraction(20003, 10), "2000.3"),
        (Fraction(10, 3), "10/3"),
        (Fraction(10**30), "1000000000...0000000000"),
    ],
)
def test_shown_for_a_person(value, text):
    assert show(value) == text


@given(st.fractions(max_denominator=5000))
def test_what_is_shown_is_the_value(value):
    text = show(value)
    if "..." not in text:
        assert Fraction(text) == value


def test_thousands():
    assert number("12,345,678.9") == Fraction("12345678.9")
