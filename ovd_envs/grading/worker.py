"""The child process of the slow path: computer algebra on one answer at a time.

Started by ``ovd_envs.grading.pool``; speaks lines of JSON. For each request that it reads it
writes ``{"phase": "start"}`` (from here its deadline runs), ``{"phase": "answer"}`` (what follows
is due to the student's answer and no longer to the gold one) and ``{"phase": "done", ...}``.
"""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import signal
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from ovd_envs.grading.two_stages import parse_in_two_stages

#: Address space that a worker may use, in bytes: a power tower must not take the machine down.
_MEMORY = 3 * 2**30

#: What math-verify finds an answer by; without any of it the text itself is the answer.
_ANCHOR = re.compile(r"(?<!\\)\$|\\\(|\\\[|boxed|\banswer\b", re.IGNORECASE)
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z']{2,}\s+[A-Za-z']{2,}")
_JOINING = re.compile(r"(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])")

_DEFAULT_RULES = {"decimals": 6, "strict": True, "relations_as_sets": True}

Say = Callable[[str], None]


def read(text: str) -> list[Any]:
    """The mathematical readings of ``text``, as math-verify's ``verify`` takes them."""
    from math_verify import parse

    prose = _PROSE.search(_JOINING.sub(",", text))
    if not _ANCHOR.search(text) and not prose:
        found: list[Any] = parse(f"${text}$", parsing_timeout=None)
        if any(not isinstance(item, str) for item in found):
            return found
    return list(parse(text, parsing_timeout=None)) or [text.strip()]


@lru_cache(maxsize=256)
def _read_gold(gold: str) -> tuple[Any, ...]:
    return tuple(read(gold))


def compare(request: dict[str, Any], say: Say) -> dict[str, Any]:
    """Whether ``answer`` equals ``gold`` (which comes first: the order matters to math-verify)."""
    from math_verify import verify

    rules = request["rules"]
    gold = list(_read_gold(request["gold"]))
    say("answer")
    correct = verify(
        gold,
        read(request["answer"]),
        float_rounding=rules["decimals"],
        strict=rules["strict"],
        allow_set_relation_comp=rules["relations_as_sets"],
        timeout_seconds=None,  # the parent kills this process at the deadline
    )
    return {"correct": bool(correct)}


@lru_cache(maxsize=8)
def _dataset(name: str, config: str) -> Any:
    import reasoning_gym

    return reasoning_gym.create_dataset(name, **json.loads(config))


def score(request: dict[str, Any], say: Say) -> dict[str, Any]:
    """The score that a Reasoning Gym dataset gives an answer to one of its items."""
    dataset = _dataset(request["dataset"], request["config"])
    entry = dataset[request["index"]]
    say("answer")
    return {"score": float(dataset.score_answer(answer=request["answer"], entry=entry))}


_KINDS = {"math": compare, "reasoning-gym": score}


def _prepare(request: dict[str, Any]) -> None:
    """What is slow but not the answer's doing, before the deadline runs."""
    if request["kind"] == "reasoning-gym":
        _dataset(request["dataset"], request["config"])


def serve() -> None:
    """Answer requests from standard input until it ends."""
    # Ctrl-C reaches every process of the terminal; the parent decides when this one ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable(logging.CRITICAL)
    # What a library prints must not get between the lines of the protocol.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    def say(phase: str, **more: Any) -> None:
        out.write(json.dumps({"phase": phase, **more}) + "\n")
        out.flush()

    parse_in_two_stages()
    # Imports, and what the libraries build at first use, take seconds: not out of a deadline.
    warm_up = {"gold": "\\frac{1}{x+1}", "answer": "(x+1)^{-1}", "rules": _DEFAULT_RULES}
    compare(warm_up, lambda phase: None)
    say("ready")
    for line in sys.stdin:
        request = json.loads(line)
        try:
            _prepare(request)
            say("start")
            say("done", **_KINDS[request["kind"]](request, say))
        except MemoryError:
            # The heap may be in pieces: a fresh process is cheaper than a doubtful one.
            os._exit(1)
        except Exception as error:  # noqa: BLE001 - on odd input these libraries raise anything
            say("done", error=f"{type(error).__name__}: {error}"[:300])
