"""Graders: does an answer say the same as a gold answer?"""

from ovd_envs.grading.extract import extract_answer
from ovd_envs.grading.math import DEADLINE, Equality, Grade, grade_math, grade_message, grade_number

__all__ = [
    "DEADLINE",
    "Equality",
    "Grade",
    "extract_answer",
    "grade_math",
    "grade_message",
    "grade_number",
]
