"""LaTeX read in half the time: ANTLR's parsing in two stages, for latex2sympy's parser.

latex2sympy parses with ANTLR's prediction mode LL, which looks at the rules that led to a place; on
its grammar that takes half of the time of grading by algebra. The mode SLL does without and "will
either return a correct parse tree (i.e. the same parse tree that would be returned with the LL
prediction mode), or it will report a syntax error" (``antlr4.atn.PredictionMode``). So SLL comes
first, and LL where it fails.
"""

from __future__ import annotations

from typing import Any


def parse_in_two_stages() -> None:
    """Let every parser that latex2sympy makes in this process parse so; to be called once."""
    from latex2sympy2_extended.latex2sympy2 import _Latex2Sympy

    in_one = _Latex2Sympy.create_parser

    def create_parser(self: Any, text: str) -> Any:
        parser = in_one(self, text)
        parse = parser.math

        def math() -> Any:
            try:
                return parse()
            except MemoryError:
                raise
            except Exception:  # noqa: BLE001 - which kind, its error listener does not tell
                # With a new parser: an error of the lexer leaves its place in the text unknown.
                return in_one(self, text).math()

        interpreter = parser._interp
        interpreter.predictionMode = type(interpreter.predictionMode).SLL
        parser.math = math
        return parser

    _Latex2Sympy.create_parser = create_parser
