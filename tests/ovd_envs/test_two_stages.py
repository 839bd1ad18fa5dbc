from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latex2sympy2_extended.latex2sympy2 import PSParser, _Latex2Sympy

from ovd_envs.grading.two_stages import parse_in_two_stages

IN_ONE = _Latex2Sympy.create_parser

TEXTS = [
    r"\frac{\sqrt{3}}{2}",
    r"(3, \frac{\pi}{2})",
    r"x^2 + 2 \cdot 3 x + 9",
    r"\left[2, 5\right) \cup \{7\}",
    r"26ab^2",  # takes the second stage
    r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
    r"x = 3 \pm \sqrt{2}",
    r"1 < x \leq 5",
    r"\frac{1",  # no mathematics at all
    r"2 ? 3",
    "",
]
PARTS = [
    *"xyabi0123(),[]{}|+-=<^_! ",
    *(r"\frac{", "}{", r"\sqrt{", r"\cdot ", r"\pi ", r"\sin ", r"\log_", r"\left(", r"\right)"),
    *(r"\{", r"\}", r"\cup ", r"\infty ", r"\text{", r"\pm ", r"\leq ", r"\in ", "13", "?"),
]


@pytest.fixture
def in_two():
    """How a parser is made that parses in two stages."""
    parse_in_two_stages()
    yield _Latex2Sympy.create_parser
    _Latex2Sympy.create_parser = IN_ONE


def tree(create_parser, text):
    """The tree of ``text``, or the message of the error."""
    parser = create_parser(_Latex2Sympy(), text)
    try:
        return parser.math().toStringTree(recog=parser)
    except Exception as error:  # noqa: BLE001 - what its error listener raises
        return error.args


def test_the_trees_are_the_same(in_two):
    for text in TEXTS:
        assert tree(in_two, text) == tree(IN_ONE, text)
    assert isinstance(tree(in_two, TEXTS[0]), str)


def test_of_whatever_is_written(in_two):
    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.sampled_from(PARTS), max_size=10).map("".join))
    def alike(text):
        assert tree(in_two, text) == tree(IN_ONE, text)

    alike()


@pytest.mark.parametrize(("text", "stages"), [(TEXTS[0], 1), ("26ab^2", 2)])
def test_the_second_stage_is_the_exception(in_two, monkeypatch, text, stages):
    parsers = []
    math = PSParser.math
    monkeypatch.setattr(PSParser, "math", lambda parser: parsers.append(parser) or math(parser))
    assert tree(in_two, text) == tree(IN_ONE, text)
    assert len(parsers) == stages + 1


def test_what_runs_out_of_memory_is_not_tried_again(in_two, monkeypatch):
    parser = in_two(_Latex2Sympy(), "x + 1")
    asked = []

    def full(*_):
        asked.append(1)
        raise MemoryError

    monkeypatch.setattr(type(parser._interp), "adaptivePredict", full)
    with pytest.raises(MemoryError):
        parser.math()
    assert len(asked) == 1
