"""Exact arithmetic over a short list of tokens, with limits: nothing a student writes hangs it."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

#: A number with more digits than this is not arithmetic that a person would check.
MAX_DIGITS = 40
#: Bits of a numerator or denominator on the way.
MAX_BITS = 2_000
MAX_EXPONENT = 64
#: Brackets within brackets.
MAX_DEPTH = 30

NUMBER, OPERATOR, OPEN, CLOSE = "number", "operator", "open", "close"

#: A token of an expression: its kind and its text ("+", "-", "*", "/", "^", "1,000", "(").
ExpressionToken = tuple[str, str]


class NotArithmetic(ValueError):
    """Not an expression that can be evaluated exactly within the limits."""


def evaluate(tokens: Sequence[ExpressionToken]) -> Fraction:
    """The exact value of an expression of numbers, ``+ - * / ^`` and brackets.

    A bracket next to a number or another bracket multiplies. Raises ``NotArithmetic`` for
    anything else, for a division by zero and for values beyond the limits above.
    """
    parser = _Parser(tokens)
    value = parser.sum(0)
    if parser.position != len(tokens):
        raise NotArithmetic("something is left over")
    return value


def number(text: str) -> Fraction:
    """The value of a decimal number, thousands commas allowed. Raises ``NotArithmetic``."""
    if len(text) > MAX_DIGITS:
        raise NotArithmetic("a number is too long")
    whole, _, decimals = text.replace(",", "").partition(".")
    if not decimals:
        return Fraction(int(whole or "0"))
    return Fraction(int(whole + decimals), 10 ** len(decimals))


class _Parser:
    """Recursive descent; the depth is bounded by ``MAX_DEPTH``."""

    def __init__(self, tokens: Sequence[ExpressionToken]) -> None:
        self.tokens = tokens
        self.position = 0

    def _operator(self, among: str) -> str | None:
        if self.position < len(self.tokens):
            kind, text = self.tokens[self.position]
            if kind == OPERATOR and text in among:
                self.position += 1
                return text
        return None

    def sum(self, depth: int) -> Fraction:
        value = self._product(depth)
        while operator := self._operator("+-"):
            other = self._product(depth)
            value = _bounded(value + other if operator == "+" else value - other)
        return value

    def _product(self, depth: int) -> Fraction:
        value = self._signed(depth)
        while True:
            operator = self._operator("*/")
            if operator is None:
                if not self._at_implicit_factor():
                    return value
                operator = "*"
            other = self._signed(depth)
            if operator == "/" and other == 0:
                raise NotArithmetic("a division by zero")
            value = _bounded(value * other if operator == "*" else value / other)

    def _at_implicit_factor(self) -> bool:
        return self.position < len(self.tokens) and self.tokens[self.position][0] == OPEN

    def _signed(self, depth: int) -> Fraction:
        negative = False
        while sign := self._operator("+-"):
            negative ^= sign == "-"
        value = self._power(depth)
        return -value if negative else value

    def _power(self, depth: int) -> Fraction:
        base = self._operand(depth)
        if self._operator("^") is None:
            return base
        if depth >= MAX_DEPTH:
            raise NotArithmetic("too deep")
        sign = self._operator("-")
        exponent = self._power(depth + 1)
        if sign:
            exponent = -exponent
        if exponent.denominator != 1 or abs(exponent) > MAX_EXPONENT:
            raise NotArithmetic("not a small whole exponent")
        if base == 0 and exponent < 0:
            raise NotArithmetic("a division by zero")
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if bits * abs(int(exponent)) > MAX_BITS:
            raise NotArithmetic("too large")
        return base ** int(exponent)

    def _operand(self, depth: int) -> Fraction:
        if self.position >= len(self.tokens):
            raise NotArithmetic("an operand is missing")
        kind, text = self.tokens[self.position]
        self.position += 1
        if kind == NUMBER:
            return number(text)
        if kind != OPEN or depth >= MAX_DEPTH:
            raise NotArithmetic("no operand" if kind != OPEN else "too deep")
        value = self.sum(depth + 1)
        if self.position >= len(self.tokens) or self.tokens[self.position][0] != CLOSE:
            raise NotArithmetic("a bracket is not closed")
        self.position += 1
        return value


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise NotArithmetic("too large")
    return value


def show(value: Fraction) -> str:
    """A value for a person: a whole number, a decimal where it ends soon, or a fraction."""
    if value.denominator == 1:
        text = str(value.numerator)
    else:
        scaled = value * 10_000
        if scaled.denominator == 1:
            digits = f"{abs(scaled.numerator):05d}"
            sign = "-" if value < 0 else ""
            text = f"{sign}{digits[:-4]}.{digits[-4:]}".rstrip("0")
        else:
            text = f"{value.numerator}/{value.denominator}"
    return text if len(text) <= 24 else f"{text[:10]}...{text[-10:]}"
