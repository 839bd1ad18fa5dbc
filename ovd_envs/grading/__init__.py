"""Graders: does an answer say the same as a gold answer?"""

from ovd_envs.grading.extract import extract_answer
from ovd_envs.grading.math import DEADLINE, Equality, Grade, grade_math, grade_message, grade_number
from ovd_envs.grading.qa import (
    QAGrade,
    exact_match,
    f1,
    grade_qa,
    normalize_answer,
    substring_match,
)

__all__ = [
    "DEADLINE",
    "Equality",
    "Grade",
    "QAGrade",
    "exact_match",
    "extract_answer",
    "f1",
    "grade_math",
    "grade_message",
    "grade_number",
    "grade_qa",
    "normalize_answer",
    "substring_match",
]
