"""Judges and demonstrators by name, those of installed packages among them.

Entry points: "ovd.judges" and "ovd.demonstrators".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ovd_envs
from ovd_envs.errors import OVDError
from ovd_envs.options import check_options
from ovd_envs.registry import Registry
from teachers.protocol import Demonstrator, Judge

#: A name stands for a class or function that returns a judge; its keyword arguments are the
#: judge's options.
judges: Registry[Callable[..., Judge]] = Registry("ovd.judges", "judge")

judges.register(
    "steps",
    "teachers.step_judge:StepJudge",
    "mathematics: checks the episode's equations and its answer; needs no model",
)
judges.register(
    "path",
    "teachers.path_judge:PathJudge",
    "search and answer: was the support found, is the answer right; needs no model",
)
judges.register(
    "outcome",
    "teachers.outcome_judge:OutcomeJudge",
    "9 x the environment's reward",
)
judges.register(
    "llm",
    "teachers.judge_loading:load_llm_judge",
    "a language model with a rubric (options model, backend, rubric, reduce, reply, ...)",
)
judges.register(
    "rubric",
    "teachers.rubric_judge:load_rubric_judge",
    "criteria that a model writes for each task, from a demonstration (options model, "
    "demonstrations or demonstrator, rubrics, ...)",
)
judges.register(
    "program",
    "teachers.program_judge:ProgramJudge",
    "a Python function: episode -> score, (score, reason) or Verdict (option function)",
)
judges.register(
    "ensemble",
    "teachers.ensemble:EnsembleJudge",
    "several judges together: mean, median or min (options judges, reduce, weights, on_error)",
)
judges.register(
    "cascade",
    "teachers.cascade:CascadeJudge",
    "a cheap judge, and a dear one near theta (options cheap, dear, theta, margin)",
)
judges.register(
    "human",
    "teachers.human_judge:HumanJudge",
    "a person at the terminal (option show_gold)",
)
judges.register(
    "replay",
    "teachers.replay_judge:ReplayJudge",
    "verdicts that were saved before (option file)",
)

#: The same for demonstrators.
demonstrators: Registry[Callable[..., Demonstrator]] = Registry("ovd.demonstrators", "demonstrator")

demonstrators.register(
    "scripted",
    "teachers.demonstrators:scripted_demonstrator",
    "writes the solution that a task carries, in varied wording; needs no model",
)
demonstrators.register(
    "path",
    "teachers.path_demonstrator:PathDemonstrator",
    "web question answering: searches each page of the gold path, then answers; needs no model",
)
demonstrators.register(
    "saved",
    "teachers.saved_demonstrator:SavedDemonstrator",
    "shows saved episodes, matched by task (option episodes: a JSONL file)",
)
demonstrators.register(
    "judging",
    "teachers.judging_demonstrator:judging_demonstrator",
    "for ovd/Judging-v0: the reference verdict as a judge model should reply (option working)",
)
demonstrators.register(
    "model",
    "teachers.demonstrators:model_demonstrator",
    "a language model that acts in the same environment, best of n (options model, backend, ...)",
)

ovd_envs.register(
    "ovd/Judging-v0",
    "teachers.judging_env:JudgingEnv",
    "Saved episodes to judge, as the judge llm is asked; graded by reference verdicts.",
    source="ovd",
)


def make_judge(name: str, **options: Any) -> Judge:
    """The judge registered as ``name``, made with ``options``.

    Raises ``RegistrationError`` for an unknown name and ``OVDError`` for an option that the judge
    does not have.
    """
    judge = _make(judges, name, options)
    if not isinstance(judge, Judge):
        raise OVDError(
            f"judge {name!r}: expected an object with 'name' and 'judge(episodes)', "
            f"got {type(judge).__name__}"
        )
    return judge


def make_demonstrator(name: str, **options: Any) -> Demonstrator:
    """The demonstrator registered as ``name``, made with ``options``. Raises as ``make_judge``."""
    demonstrator = _make(demonstrators, name, options)
    if not isinstance(demonstrator, Demonstrator):
        raise OVDError(
            f"demonstrator {name!r}: expected an object with 'name' and 'demonstrate(...)', "
            f"got {type(demonstrator).__name__}"
        )
    return demonstrator


def _make(registry: Registry[Callable[..., Any]], name: str, options: dict[str, Any]) -> Any:
    factory = registry.get(name)
    check_options(f"{registry.kind} {name!r}", factory, options)
    return factory(**options)
