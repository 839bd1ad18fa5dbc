"""The child process of the slow path: math-verify on one pair at a time.

Started by ``ovd_envs.grading.pool``; speaks lines of JSON. For each pair that it reads it writes
``{"phase": "start"}`` (from here its deadline runs), ``{"phase": "gold"}`` (the gold answer has
been read, what follows is due to the student's) and ``{"phase": "done", "correct": ...}``.
"""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import signal
import sys
from functools import lru_cache
from typing import Any

#: Address space that a worker may use, in bytes: a power tower must not take the machine down.
_MEMORY = 3 * 2**30

#: What math-verify finds an answer by; without any of it the text itself is the answer.
_ANCHOR = re.compile(r"(?<!\\)\$|\\\(|\\\[|boxed|\banswer\b", re.IGNORECASE)
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z']{2,}\s+[A-Za-z']{2,}")
_JOINING = re.compile(r"(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])")


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


def same(gold: str, answer: str, rules: dict[str, Any]) -> bool:
    """Whether ``answer`` equals ``gold`` (which comes first: the order matters to math-verify)."""
    from math_verify import verify

    return bool(
        verify(
            list(_read_gold(gold)),
            read(answer),
            float_rounding=rules["decimals"],
            strict=rules["strict"],
            allow_set_relation_comp=rules["relations_as_sets"],
            timeout_seconds=None,  # the parent kills this process at the deadline
        )
    )


def serve() -> None:
    """Grade pairs from standard input until it ends."""
    # Ctrl-C reaches every process of the terminal; the parent decides when this one ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable(logging.CRITICAL)
    # What a library prints must not get between the lines of the protocol.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)

    import math_verify  # noqa: F401 - takes seconds: before the first deadline, not in it

    def say(**message: Any) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    say(phase="ready")
    for line in sys.stdin:
        request = json.loads(line)
        say(phase="start")
        try:
            _read_gold(request["gold"])
            say(phase="gold")
            say(phase="done", correct=same(request["gold"], request["answer"], request["rules"]))
        except MemoryError:
            # The heap may be in pieces: a fresh process is cheaper than a doubtful one.
            os._exit(1)
        except Exception as error:  # math-verify raises anything on odd input; the pair is wrong
            say(phase="done", correct=False, error=f"{type(error).__name__}: {error}"[:200])
