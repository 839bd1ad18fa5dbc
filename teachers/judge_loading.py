"""The judge ``llm`` by its options: a model by name, on the backend that runs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ovd_envs.errors import OVDError
from teachers.api_judge import APIJudge
from teachers.judge_options import check_number, check_size
from teachers.llm_judge import LLMJudge
from teachers.rubric import load_rubric
from teachers.shortening import MAX_EPISODE_TOKENS
from teachers.spending import Spending, read_prices

#: Calls of a chat API under way at a time.
CONCURRENCY = 16


def load_llm_judge(
    model: str = "",
    *,
    backend: str = "transformers",
    rubric: str = "general",
    reduce: str = "expected",
    reply: str = "json",
    show_gold: bool = True,
    score_level: str = "episode",
    samples: int = 1,
    group: bool = False,
    temperature: float | None = 0.0,
    max_tokens: int = 256,
    max_episode_tokens: int = MAX_EPISODE_TOKENS,
    batch_size: int | None = None,
    key_variable: str | None = None,
    concurrency: int | None = None,
    deadline: float | None = None,
    tries: int | None = None,
    base_wait: float | None = None,
    patience: float | None = None,
    prices: Mapping[str, float] | None = None,
    budget: float | None = None,
    budget_tokens: int | None = None,
) -> LLMJudge | APIJudge:
    """A judge by the name of its model, of its backend and of its rubric (or the rubric's file).

    ``backend`` is a name or NAME:ADDRESS, as elsewhere. The options up to ``max_episode_tokens``
    are those of ``LLMJudge`` and ``JudgeOptions``. Of the other options ``batch_size``
    (default 16, or 64 where the backend takes requests one by one) is ``LLMJudge``'s. Those from
    ``key_variable`` on are for the backend "openai": they are those of ``agents.chat_api.ChatAPI``
    and of ``Spending`` (``prices`` as ``{input: ..., output: ...}``, money for a million tokens;
    ``budget`` in money, ``budget_tokens`` in tokens).

    Raises ``OVDError`` for a model, a backend or a rubric that does not exist and for an option
    that is out of range or of another backend.
    """
    if not model:
        raise OVDError("judge 'llm': expected a model (--model), e.g. smollm2-135m")
    common: dict[str, Any] = {
        "rubric": load_rubric(rubric),
        "reduce": reduce,
        "show_gold": show_gold,
        "score_level": score_level,
        "samples": samples,
        "group": group,
        "max_tokens": max_tokens,
        "max_episode_tokens": max_episode_tokens,
    }
    calls = {
        "key_variable": key_variable,
        "concurrency": concurrency,
        "deadline": deadline,
        "tries": tries,
        "base_wait": base_wait,
        "patience": patience,
    }
    limits = {"prices": prices, "budget": budget, "budget_tokens": budget_tokens}
    kind, _, address = backend.partition(":")
    if kind == "openai":
        if reply != "json" or batch_size is not None:
            wrong = "reply" if reply != "json" else "batch_size"
            raise OVDError(f"judge 'llm': option {wrong!r} is not for the backend 'openai'")
        api_options = {name: value for name, value in calls.items() if value is not None}
        return _load_api_judge(model, address, api_options, limits, temperature, common)
    given = [name for name, value in {**calls, **limits}.items() if value is not None]
    if given:
        raise OVDError(
            f"judge 'llm': option {given[0]!r} is for the backend 'openai', not {kind!r}"
        )
    if temperature is None:
        raise OVDError("temperature: expected a number of at least 0, got None")
    return _load_backend_judge(
        model, backend, reply=reply, temperature=temperature, batch_size=batch_size, common=common
    )


def _load_api_judge(
    model: str,
    address: str,
    calls: dict[str, Any],
    limits: dict[str, Any],
    temperature: float | None,
    common: dict[str, Any],
) -> APIJudge:
    from agents.chat_api import ChatAPI
    from agents.openai_backend import OPENAI_ADDRESS

    calls = {"concurrency": CONCURRENCY, **calls}
    for name in ("concurrency", "tries"):
        if name in calls:
            check_size(name, calls[name])
    for name in ("deadline", "base_wait", "patience"):
        if name in calls:
            check_number(name, calls[name], above=name == "deadline")
    if limits["budget"] is not None:
        check_number("budget", limits["budget"])
    if limits["budget_tokens"] is not None:
        check_size("budget_tokens", limits["budget_tokens"])
    spending = Spending(
        read_prices(limits["prices"]), money=limits["budget"], tokens=limits["budget_tokens"]
    )
    return APIJudge(
        ChatAPI(address or OPENAI_ADDRESS, model, **calls),
        concurrency=calls["concurrency"],
        temperature=temperature,
        spending=spending,
        **common,
    )


def _load_backend_judge(
    model: str,
    backend: str,
    *,
    reply: str,
    temperature: float,
    batch_size: int | None,
    common: dict[str, Any],
) -> LLMJudge:
    from agents import backends, load_backend
    from agents.models import resolve_model
    from agents.protocol import capabilities_of
    from agents.student_source import find_source

    model = find_source(model).model  # a run's folder is a model too: a judge that was trained
    able = capabilities_of(backends.get(backend.partition(":")[0]))
    resolve_model(model)  # a wrong name is told before torch is loaded, which takes seconds
    return LLMJudge(
        load_backend(model, backend=backend),
        reply=reply,
        temperature=temperature,
        batch_size=(64 if able.submit else 16) if batch_size is None else batch_size,
        **common,
    )
