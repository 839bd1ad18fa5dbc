"""Who judges and who shows: verdicts, judges, demonstrators and the cache of verdicts."""

from __future__ import annotations

from teachers.demonstrators import AgentDemonstrator, ScriptedSolver
from teachers.outcome_judge import OutcomeJudge
from teachers.protocol import Demonstrator, Judge
from teachers.score import score
from teachers.step_judge import StepJudge
from teachers.verdict import MAX_SCORE, Verdict, VerdictError

__all__ = [
    "MAX_SCORE",
    "AgentDemonstrator",
    "Demonstrator",
    "Judge",
    "OutcomeJudge",
    "ScriptedSolver",
    "StepJudge",
    "Verdict",
    "VerdictError",
    "score",
]
