"""The equations that a text states, each with its exact truth where that can be told.

A judge that calls right working wrong teaches the wrong thing, so whatever is in doubt (a
variable, a percentage, units that differ, a mixed number) is passed over rather than judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from teachers import lexer
from teachers.arithmetic import (
    CLOSE,
    NUMBER,
    OPEN,
    OPERATOR,
    ExpressionToken,
    NotArithmetic,
    evaluate,
    show,
)
from teachers.lexer import BREAK, EQUALS, UNKNOWN, VERB, WORD, Token
from teachers.unit_words import ACTING_WORDS, FUNCTION_WORDS, MEASURES, SCALES

#: Tokens on one side of an equal sign; a longer formula is not judged.
MAX_SIDE = 120
#: Words in a row that can stand between a number and an operator ("legs per sheep").
MAX_UNIT_WORDS = 3


@dataclass(frozen=True, slots=True)
class Equation:
    """One statement "left = right" with both values exact."""

    text: str
    left: Fraction
    right: Fraction
    right_text: str
    right_is_number: bool
    correct: bool

    @property
    def complaint(self) -> str:
        """What is wrong with it, for a person: "7 + 8 = 16 is wrong (it is 15)"."""
        if self.right_is_number:
            return f"{self.text} is wrong (it is {show(self.left)})"
        return f"{self.text} is wrong (left {show(self.left)}, right {show(self.right)})"


@dataclass(slots=True)
class _Side:
    """One side of an equal sign: its expression, the span of tokens that it took, its units."""

    expression: list[ExpressionToken]
    first: int
    last: int
    units: list[str]
    doubtful: bool = False

    @property
    def bare(self) -> bool:
        return sum(1 for kind, _ in self.expression if kind == NUMBER) < 2


def equations(text: str) -> list[Equation]:
    """The equations in ``text`` that can be checked, in order.

    Linear in the length of ``text``. In a chain "a = b = c" each equal sign is one equation.
    """
    found: list[Equation] = []
    tokens = lexer.tokens(text)
    chained: _Side | None = None  # the side on the right of the equal sign before
    for i, token in enumerate(tokens):
        if token.kind == EQUALS or token.kind == VERB:
            equation, chained = _equation(tokens, i, chained)
            if equation is not None:
                found.append(equation)
    return found


def _equation(
    tokens: Sequence[Token], at: int, chained: _Side | None
) -> tuple[Equation | None, _Side | None]:
    right = _right_side(tokens, at)
    left = _left_side(tokens, at)
    if left is None or right is None:
        return None, right
    verb = tokens[at].kind == VERB
    in_chain = chained is not None and chained.first == left.first and not chained.doubtful
    # "Box 3 = 15": a number with a word before it is a name, not arithmetic.
    named = right.bare or _word_before(tokens, left.first)
    if left.bare and not in_chain and named and left.expression[0][1] != "-":
        return None, right
    if verb and (left.bare or not right.bare or not _ends(tokens, right.last + 1)):
        return None, right
    if left.doubtful or right.doubtful:
        return None, right
    try:
        right_value = evaluate(right.expression)
        left_value = evaluate(left.expression)
        correct = left_value == right_value or _rounded(left, left_value, right, right_value)
        if not correct and _after_bullet(tokens, left.first):
            minus = evaluate([(OPERATOR, "-"), *left.expression])
            if minus == right_value:
                left_value, correct = minus, True
    except NotArithmetic:
        return None, right
    if not correct and _means_otherwise(tokens, at, left, right):
        return None, right
    right_text = _written(right.expression)
    equation = Equation(
        text=f"{_written(left.expression)} = {right_text}",
        left=left_value,
        right=right_value,
        right_text=right_text,
        right_is_number=right.bare,
        correct=correct,
    )
    return equation, right


def _means_otherwise(tokens: Sequence[Token], at: int, left: _Side, right: _Side) -> bool:
    """Whether words around a false equation tell that more is meant than its numbers say."""
    before = [token.text.lower() for token in tokens[max(left.first - 2, 0) : left.first]]
    if tokens[at].kind == VERB and before[-1:] == ["of"]:
        return True  # "the last digit of 3^3 is 7"
    part = len(left.expression) == 3 and left.expression[1][1] == "/"
    if part and tokens[at].text != "=":
        return True  # "4/7 is equal to 24 dollars"
    if part and before[-1:] == ["and"] and evaluate(left.expression) < 1:
        return True  # "12 x 1 and 1/4"
    return _units_differ(left.units + right.units)


def _left_side(tokens: Sequence[Token], at: int) -> _Side | None:
    """The longest expression that ends just before the equal sign ``at``."""
    taken: list[Token] = []
    units: list[str] = []
    depth = words = 0
    i = at - 1
    following = tokens[at]
    while i >= 0 and at - i <= MAX_SIDE:
        token = tokens[i]
        kind = token.kind
        if kind == WORD:
            if following.kind in (NUMBER, OPEN):
                # A word before an operand: the expression begins after it.
                if depth:
                    return None
                if following.kind == OPEN and token.end == following.start:
                    return None  # a function, "sin(0)"
                break
            words += 1
            unit = token.text.lower()
            if words > MAX_UNIT_WORDS or len(unit) == 1 or unit in FUNCTION_WORDS:
                return None
            if _attached(tokens, i):
                return None  # "8xyz"
            units.append(_singular(unit))
        elif kind == NUMBER:
            if following.kind == NUMBER:
                return None  # "3 1/2"
            if following.kind == OPEN and token.end != following.start:
                return None  # "5 (3 + 4)": a product or a remark
            words = 0
            taken.append(token)
        elif kind == OPERATOR:
            if following.kind == WORD:
                if token.text != "/" or i == 0 or tokens[i - 1].kind not in (WORD, NUMBER):
                    return None
                # "miles/hour": part of the unit.
            elif following.kind in (NUMBER, OPEN) or (
                following.kind == OPERATOR and following.text in "+-"
            ):
                taken.append(token)
                words = 0
            else:
                return None
        elif kind == CLOSE:
            if following.kind == NUMBER:
                return None
            depth += 1
            words = 0
            taken.append(token)
        elif kind == OPEN:
            if depth == 0:
                break
            depth -= 1
            taken.append(token)
        elif kind == UNKNOWN:
            return None
        else:
            break
        following = token
        i -= 1
    else:
        if i >= 0:
            return None
    if not taken or depth or following.kind == WORD:
        return None
    taken.reverse()
    if taken[0].kind == OPERATOR and taken[0].text not in "+-":
        return None
    first = i + 1
    side = _Side([(t.kind, t.text) for t in taken], first, at - 1, units)
    side.doubtful = _acted_upon(tokens, first) or not _units_are_plain(units)
    return side


def _right_side(tokens: Sequence[Token], at: int) -> _Side | None:
    """The longest expression that begins just after the equal sign ``at``."""
    taken: list[Token] = []
    units: list[str] = []
    depth = 0
    i, end = at + 1, len(tokens)
    last = at
    wants_operand = True
    while i < end:
        if i - at > MAX_SIDE:
            return None
        token = tokens[i]
        kind = token.kind
        if wants_operand:
            if kind == NUMBER:
                wants_operand = False
            elif kind == OPEN:
                depth += 1
            elif not (kind == OPERATOR and token.text in "+-"):
                return None
            taken.append(token)
        elif kind == CLOSE:
            if depth == 0:
                break
            depth -= 1
            taken.append(token)
        elif kind == OPERATOR:
            if not _operand_follows(tokens, i + 1):
                if token.text == "/" and i + 1 < end and tokens[i + 1].kind == WORD:
                    i += 1  # "60 miles/hour", "$5/hour": part of the unit
                    units.append(_singular(tokens[i].text.lower()))
                    i += 1
                    continue
                if i + 1 < end and tokens[i + 1].kind in (WORD, UNKNOWN):
                    return None  # "(3/4) * number of novels", "(1/2) * |x|"
                break
            taken.append(token)
            wants_operand = True
        elif kind == OPEN:
            if tokens[i - 1].end != token.start:
                break
            if not _operand_follows(tokens, i + 1):
                return None  # "(1/2)(height)"
            taken.append(token)
            depth += 1
            wants_operand = True
        elif kind == WORD:
            run = i
            while run < end and tokens[run].kind == WORD and run - i <= MAX_UNIT_WORDS:
                run += 1
            names = [t.text.lower() for t in tokens[i:run]]
            if _attached(tokens, i) or (len(names[0]) == 1 and names[0] not in "ai"):
                return None  # a variable
            plain = len(names) <= MAX_UNIT_WORDS and not any(
                n in FUNCTION_WORDS or len(n) == 1 for n in names
            )
            continues = run < end and (
                (tokens[run].kind == OPERATOR and _operand_follows(tokens, run + 1))
                or (tokens[run].kind == CLOSE and depth > 0)
            )
            if names[0] not in FUNCTION_WORDS:
                units.extend(_singular(n) for n in (names if plain else names[:1]))
            if not continues:
                break
            if not plain:
                return None
            i = run
            continue
        elif kind in (UNKNOWN, NUMBER):
            return None
        else:
            break
        last = i
        i += 1
    if depth or not taken or wants_operand:
        return None
    side = _Side([(t.kind, t.text) for t in taken], at + 1, last, units)
    side.doubtful = not _units_are_plain(units)
    return side


def _operand_follows(tokens: Sequence[Token], i: int) -> bool:
    if i < len(tokens) and tokens[i].kind == OPERATOR and tokens[i].text in "+-":
        i += 1
    return i < len(tokens) and tokens[i].kind in (NUMBER, OPEN)


def _attached(tokens: Sequence[Token], i: int) -> bool:
    """Whether the word ``i`` is written to a number or bracket, and is no unit of measure."""
    if i == 0 or tokens[i - 1].end != tokens[i].start:
        return False
    return tokens[i - 1].kind in (NUMBER, CLOSE) and _singular(tokens[i].text) not in MEASURES


def _acted_upon(tokens: Sequence[Token], first: int) -> bool:
    """Whether the words before a formula change its first number ("half of", "twice")."""
    for i in range(first - 1, max(first - 4, -1), -1):
        if tokens[i].kind == UNKNOWN:
            return True
        if tokens[i].kind != WORD:
            return False
        text = tokens[i].text.lower()
        if text in ACTING_WORDS or (i == first - 1 and len(text) == 1 and text not in "ai"):
            return True
    return False


def _word_before(tokens: Sequence[Token], first: int) -> bool:
    return first > 0 and tokens[first - 1].kind not in (BREAK, OPEN, CLOSE)


def _after_bullet(tokens: Sequence[Token], first: int) -> bool:
    return first > 0 and tokens[first - 1].text == lexer.BULLET


def _ends(tokens: Sequence[Token], i: int) -> bool:
    return i >= len(tokens) or tokens[i].kind in (BREAK, CLOSE)


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") else word


def _units_are_plain(units: Sequence[str]) -> bool:
    """Whether the words can be dropped without changing a number ("3 dozen" cannot)."""
    return not units or SCALES.isdisjoint(units)


def _units_differ(units: Sequence[str]) -> bool:
    """Whether units of measure are mixed, so that a conversion may stand behind the numbers."""
    different = set(units)
    return len(different) > 1 and not MEASURES.isdisjoint(different)


def _rounded(left: _Side, left_value: Fraction, right: _Side, right_value: Fraction) -> bool:
    """Whether the two sides agree to the decimals shown ("10/3 = 3.33", "0.1 * 7 = 0.7000001").

    Only where the right side shows two decimals or more and the exact value has yet more of
    them, or where a side has so many that a machine's rounding wrote them.
    """
    difference = abs(left_value - right_value)
    longest = max(_decimals(text) for _, text in (*left.expression, *right.expression))
    if longest >= 9:
        return difference <= max(Fraction(1), abs(left_value)) / 10**8
    shown = _decimals(right.expression[-1][1])
    if not right.bare or shown < 2 or (left_value * 10**shown).denominator == 1:
        return False
    return difference < Fraction(1, 10**shown)


def _decimals(text: str) -> int:
    return len(text.partition(".")[2])


def _without_needless_brackets(expression: Sequence[ExpressionToken]) -> list[ExpressionToken]:
    """The expression with no brackets around a single number ("{96}", a fraction's parts)."""
    kept: list[ExpressionToken] = []
    for token in expression:
        kept.append(token)
        alone = len(kept) >= 3 and [kind for kind, _ in kept[-3:]] == [OPEN, NUMBER, CLOSE]
        factor = len(kept) >= 4 and (kept[-4][0] in (NUMBER, CLOSE) or kept[-4][1] == "^")
        if alone and not factor:
            kept[-3:] = [kept[-2]]
    return kept


def _written(expression: Sequence[ExpressionToken]) -> str:
    """An expression for a person to read, shortened where it is long."""
    expression = _without_needless_brackets(expression)
    text = ""
    glued = True  # no blank before the next token
    after_operand = False
    for kind, value in expression:
        binary = kind == OPERATOR and after_operand
        tight = value == "^"
        blank = not (glued or kind == CLOSE or tight or (kind == OPEN and after_operand))
        text += (" " if blank else "") + value
        glued = kind == OPEN or tight or (kind == OPERATOR and not binary)
        after_operand = kind in (NUMBER, CLOSE)
    return text if len(text) <= 80 else f"{text[:50]} ... {text[-25:]}"
