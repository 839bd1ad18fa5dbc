"""The probabilities of the ten digits, and how they become one score."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from teachers.verdict import MAX_SCORE

REDUCTIONS = ("expected", "argmax")

#: Where less of the probability stands on the ten digits, the model did not mean to score.
MIN_MASS = 0.01

DIGITS = "".join(str(digit) for digit in range(MAX_SCORE + 1))


def reduced(written: int, distribution: Sequence[float] | None, reduce: str) -> float:
    """The score: of the distribution where there is one with mass, else what was written."""
    if distribution is None or sum(distribution) < MIN_MASS:
        return float(written)
    if reduce == "argmax":
        return float(likeliest(distribution))
    expected = sum(d * p for d, p in enumerate(distribution)) / sum(distribution)
    return min(max(expected, 0.0), float(MAX_SCORE))


def probabilities(logprobs: Sequence[float]) -> tuple[float, ...]:
    """Probabilities of the ten digits from their logarithms."""
    return _at_most_one([math.exp(value) for value in logprobs])


def likeliest(distribution: Sequence[float]) -> int:
    """The digit of the highest probability."""
    return max(range(len(distribution)), key=lambda digit: distribution[digit])


def digits_among(alternatives: Sequence[tuple[str, float]]) -> tuple[float, ...] | None:
    """The ten probabilities from some tokens and their log-probabilities at the score's place.

    A digit that is not among them counts as 0: what is missing to a sum of 1 went to other tokens.
    A token may hold the blank before the digit and the brace after it. ``None`` where none of
    them is a digit.
    """
    values = [0.0] * len(DIGITS)
    for token, logprob in alternatives:
        digit = token.lstrip('": \n\t').rstrip("}, \n\t")
        if len(digit) == 1 and digit in DIGITS:
            values[int(digit)] += math.exp(logprob)
    return _at_most_one(values) if any(values) else None


def digit_tokens(
    encode: Callable[[str], Sequence[int]], text: str
) -> tuple[list[int], tuple[int, ...]] | None:
    """Ids of ``text`` and, after it, the one token of each digit; ``None`` where there are none.

    Some tokenizers join a digit with the blank before it: the digits are encoded in their place.
    """
    if not text:
        return None
    rows = [list(encode(text + digit)) for digit in DIGITS]
    begun = rows[0][:-1]
    if not begun or any(row[:-1] != begun for row in rows):
        return None
    choices = tuple(row[-1] for row in rows)
    return (begun, choices) if len(set(choices)) == len(choices) else None


def mean_of(distributions: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """The mean of some distributions (at least one), digit by digit."""
    return tuple(
        math.fsum(column) / len(distributions) for column in zip(*distributions, strict=True)
    )


def _at_most_one(values: Sequence[float]) -> tuple[float, ...]:
    total = sum(values)
    # Rounding can lift the sum of ten float32 probabilities a hair above 1.
    return tuple(v / total for v in values) if total > 1 else tuple(values)
