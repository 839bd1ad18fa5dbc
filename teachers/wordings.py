"""The words of the scripted solver: many ways to write down the same working.

Everything is kept short: a student that splits numbers into digits learns from these tokens.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

_ONE_EQUATION = (
    "{step}, so the answer is {box}",
    "{step}. The answer is {box}",
    "{step}.\n{box}",
    "We get {step}. {box}",
    "I work it out: {step}. {box}",
    "Since {step}, the final answer is {box}",
    "Let me see: {step}. So {box}",
    "Step by step: {step}. Final answer: {box}",
)

#: Terse, and most begin with the equation: what varies costs a small student steps in which it
#: learns words instead of sums.
_SUM_OF_TWO = (
    "{step}. {box}",
    "{step}.\n{box}",
    "{step}, so {box}",
    "{step}; {box}",
    "{step}. Answer: {box}",
    "{step}. So {box}",
    "Sum: {step}. {box}",
    "So {step}. {box}",
)

_FIRST = (
    "First, {step}.",
    "We start with {step}.",
    "To begin, {step}.",
    "Start: {step}.",
    "We have {step}.",
    "Step 1: {step}.",
    "{step}.",
    "Let us see: {step}.",
)
_MIDDLE = (
    "Then {step}.",
    "Next, {step}.",
    "After that, {step}.",
    "This gives {step}.",
    "Now {step}.",
    "{step}.",
    "Also, {step}.",
    "Going on, {step}.",
)
_LAST = (
    "So {step}.",
    "Finally, {step}.",
    "Therefore {step}.",
    "In the end, {step}.",
    "Last, {step}.",
    "Thus {step}.",
    "That makes {step}.",
    "{step}.",
)
_ANSWER = (
    "The answer is {box}",
    "Answer: {box}",
    "The final answer is {box}",
    "So the answer is {box}",
    "{box}",
    "That gives {box}",
    "The result is {box}",
    "My answer: {box}",
)


def one_equation(step: str, answer: str, rng: random.Random) -> str:
    """One equation and the answer."""
    return rng.choice(_ONE_EQUATION).format(step=step, box=boxed(answer))


def sum_of_two(step: str, answer: str, rng: random.Random) -> str:
    """The equation of a sum of two numbers, and the answer."""
    return rng.choice(_SUM_OF_TWO).format(step=step, box=boxed(answer))


def split_sum(a: int, b: int) -> str:
    """``a + b`` by tens and ones, in one chain: 37 + 58 = 80 + 15 = 95.

    What a model that writes from left to right finds hard is to know the carry before the ones
    are added; here no digit depends on a carry that is not written yet.
    """
    tens, ones = a - a % 10 + b - b % 10, a % 10 + b % 10
    return f"{a} + {b} = {tens} + {ones} = {a + b}"


def equations(steps: Sequence[str], answer: str, rng: random.Random) -> str:
    """A sentence for each equation, and the answer."""
    sentences = []
    for number, step in enumerate(steps):
        if number == 0:
            choices = _FIRST
        else:
            choices = _LAST if number == len(steps) - 1 else _MIDDLE
        sentences.append(rng.choice(choices).format(step=step))
    sentences.append(rng.choice(_ANSWER).format(box=boxed(answer)))
    return " ".join(sentences)


def prose(rationale: str, answer: str, rng: random.Random) -> str:
    """A solution in prose, and the answer where the prose does not end with it in a box."""
    rationale = rationale.strip()
    if "\\boxed" in rationale:
        return rationale
    return f"{rationale}\n{answer_alone(answer, rng)}"


def answer_alone(answer: str, rng: random.Random) -> str:
    """The answer without any working."""
    return rng.choice(_ANSWER).format(box=boxed(answer))


def boxed(answer: str) -> str:
    """The answer in the box that graders look for."""
    return f"\\boxed{{{answer}}}"
