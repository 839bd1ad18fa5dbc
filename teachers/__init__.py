"""Who judges and who shows: verdicts, judges, demonstrators and the cache of verdicts."""

from __future__ import annotations

from teachers.api_judge import APIJudge
from teachers.cache import VerdictCache
from teachers.demonstrators import AgentDemonstrator, ScriptedSolver
from teachers.llm_judge import LLMJudge
from teachers.outcome_judge import OutcomeJudge
from teachers.path_judge import PathJudge
from teachers.protocol import Continuing, Demonstrator, Judge, JudgeOutageError, JudgeStopError
from teachers.registry import judges, make_demonstrator, make_judge
from teachers.rubric import load_rubric
from teachers.saved_demonstrator import SavedDemonstrator
from teachers.score import score
from teachers.step_judge import StepJudge
from teachers.verdict import MAX_SCORE, Verdict, VerdictError
from teachers.verdict_log import read_verdicts

__all__ = [
    "MAX_SCORE",
    "APIJudge",
    "AgentDemonstrator",
    "Continuing",
    "Demonstrator",
    "Judge",
    "JudgeOutageError",
    "JudgeStopError",
    "LLMJudge",
    "OutcomeJudge",
    "PathJudge",
    "SavedDemonstrator",
    "ScriptedSolver",
    "StepJudge",
    "Verdict",
    "VerdictCache",
    "VerdictError",
    "judges",
    "load_rubric",
    "make_demonstrator",
    "make_judge",
    "read_verdicts",
    "score",
]
