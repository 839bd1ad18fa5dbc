from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovd_envs.grading.number import parse_decimal_comma, parse_number, parse_quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("95", 95),
        ("-5", -5),
        ("\u22125", -5),
        ("+5", 5),
        ("007", 7),
        ("1,000,000", 10**6),
        ("10{,}000", 10**4),
        (r"16,\!386.20", Fraction("16386.2")),
        (r"1\,234", 1234),
        ("1 234", 1234),
        (".5", Fraction(1, 2)),
        ("5.", 5),
        ("0.50", Fraction(1, 2)),
        ("3/4", Fraction(3, 4)),
        ("-3/4", Fraction(-3, 4)),
        (r"\frac{3}{4}", Fraction(3, 4)),
        (r"-\dfrac34", Fraction(-3, 4)),
        (r"\frac{-3}{4}", Fraction(-3, 4)),
        (r"1\frac{3}{4}", Fraction(7, 4)),
        (r"-1\frac{3}{4}", Fraction(-7, 4)),
        ("1.5e3", 1500),
        ("$95$", 95),
        (r"\$95", 95),
        ("-$95", -95),
        ("\u20ac1,000.99", Fraction("1000.99")),
        (r"\(95\)", 95),
        (" **95**. ", 95),
    ],
)
def test_numbers(text, value):
    assert parse_number(text) == value
    assert parse_quantity(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "37 + 58",
        "1,2",
        "12,34",
        "0,111",
        "1,0000",
        "3/0",
        r"\frac{1}{0}",
        "1.2.3",
        "--5",
        "x",
        "5x",
        "ninety",
        "\u0669\u0665",
        "\u00b2",
        "95%",
        "1e9999",
        "9" * 201,
        "9\x005",
        "1 2",
    ],
)
def test_what_is_not_just_a_number(text):
    assert parse_number(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18 apples", 18),
        ("18 dollars.", 18),
        (r"18\%", 18),
        ("18%", 18),
        (r"15\text{ cm}^2", 15),
        ("1,000.99 m\u00b2", Fraction("1000.99")),
        ("5 kg", 5),
        ("5kg", 5),
        (r"\frac{1}{2} meters", Fraction(1, 2)),
        ("18 brown eggs", 18),
        ("5 million", 5 * 10**6),
        (r"$2.5\text{ billion}", 25 * 10**8),
        ("3 Hundred Thousand people", 300_000),
        ("10 times", 10),
        ("2 dozen", 2),
        ("18 million plus x", None),
        ("5 squared", None),
        ("5 divided by x", None),
        ("5 times ten", None),
        ("5 less than x", None),
        ("5 sin x", None),
        ("5x", None),
        ("5 x", None),
        ("5xy", None),
        ("5i", None),
        ("5e", None),
        (r"90^\circ", None),
        ("18 + 1 apples", None),
        ("x18", None),
        ("18x + y", None),
        ("two apples", None),
        ("9" * 1000 + " apples", None),
    ],
)
def test_quantities(text, value):
    assert parse_quantity(text) == value


def test_decimal_commas():
    assert parse_decimal_comma("1000,99") == Fraction("1000.99")
    assert parse_decimal_comma("0,111") == Fraction("0.111")
    assert parse_decimal_comma("1,2,3") is None
    assert parse_decimal_comma("1.2") is None


@given(st.integers())
def test_every_short_integer_with_and_without_separators(number):
    if len(f"{number:,}") <= 200:
        assert parse_number(str(number)) == number
        assert parse_number(f"{number:,}") == number


@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, places=4, min_value=-(10**9), max_value=10**9
    )
)
def test_every_decimal(number):
    assert parse_number(str(number)) == Fraction(number)


@given(st.integers(-(10**9), 10**9), st.integers(1, 10**9))
def test_every_fraction(top, bottom):
    assert parse_number(f"{top}/{bottom}") == Fraction(top, bottom)
    assert parse_number(rf"\frac{{{top}}}{{{bottom}}}") == Fraction(top, bottom)


@given(st.text(alphabet=st.characters()))
def test_any_text_is_read_without_an_error(text):
    parse_number(text)
    parse_quantity(text)
    parse_decimal_comma(text)
