"""The child process of the judge ``program`` with a deadline: a user's function, one at a time.

Started by ``ovd_envs.grading.pool``, whose lines of JSON it speaks: ``{"phase": "start"}`` once the
function is loaded (from here its deadline runs), ``{"phase": "done", ...}`` with its verdict.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

from agents.episode import Episode

#: Seconds beyond the deadline after which it ends itself, should nobody be left to kill it.
_GRACE = 5.0


def serve() -> None:
    """Answer requests from standard input until it ends."""
    from teachers.program_judge import ProgramJudge

    # Ctrl-C reaches every process of the terminal; the parent decides when this one ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What the function prints is for people, and must not get between the lines of the protocol.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def say(phase: str, **more: Any) -> None:
        out.write(json.dumps({"phase": phase, **more}) + "\n")
        out.flush()

    say("ready")
    judges: dict[str, ProgramJudge] = {}
    for line in sys.stdin:
        request = json.loads(line)
        name = request["function"]
        if name not in judges:
            sys.path[:] = request["path"]
            judges[name] = ProgramJudge(name)
        episode = Episode.from_dict(request["episode"])
        say("start")
        signal.setitimer(signal.ITIMER_REAL, request["deadline"] + _GRACE)
        [verdict] = judges[name].judge([episode])
        signal.setitimer(signal.ITIMER_REAL, 0)
        say("done", verdict=verdict.to_dict())
