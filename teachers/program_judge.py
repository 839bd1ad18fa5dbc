"""Any Python function as a judge."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import inspect
import numbers
import sys
import time
import traceback
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agents.episode import Episode
from ovd_envs.errors import OVDError
from ovd_envs.grading.pool import Expired, WorkerPool
from teachers.judge_options import check_number
from teachers.verdict import Verdict

#: What a function may say of an episode: a score, a score and a reason, or a whole verdict.
Answer = float | tuple[float, str] | Verdict


class ProgramJudge:
    """Scores an episode by a function: episode -> score, (score, reason) or ``Verdict``.

    An exception of the function, and an answer that is none of these, are error verdicts of that
    episode. Verdicts are cached under the function's name and the text of the file that it stands
    in: what that file imports is not looked at, and a function without a file is not cached.

    Args:
        function: "module:function", or the function itself.
        deadline: seconds that it may take for one episode. It then runs in a process of its own,
            which is killed when they are over; that, and a process that ends, is an error verdict.

    Raises ``OVDError`` for a function that cannot be imported, and for a ``deadline`` that is none
    or that a function without a name is given.
    """

    name = "program"

    def __init__(
        self, function: str | Callable[[Episode], Answer] = "", *, deadline: float | None = None
    ) -> None:
        self._deadline = deadline
        if deadline is not None:
            check_number("deadline", deadline, above=True)
            if not isinstance(function, str):
                raise OVDError(
                    "deadline: expected the function as module:function beside it, for another "
                    f"process to load, got {function!r}"
                )
            self._workers = WorkerPool(1, module="teachers.program_worker", quiet=False)
            weakref.finalize(self, self._workers.close)
        self._function = _load(function) if isinstance(function, str) else function
        if not callable(self._function):
            raise OVDError(f"function: expected a function, got {self._function!r}")
        module = getattr(self._function, "__module__", "")
        qualified = getattr(self._function, "__qualname__", "")
        #: "module:function", for messages.
        self.shown = function if isinstance(function, str) else f"{module}:{qualified}"
        self.fingerprint = _fingerprint(self.shown, self._function)

    def judge(self, episodes: Sequence[Episode]) -> list[Verdict]:
        """One verdict for every episode."""
        return [self._verdict(episode) for episode in episodes]

    def _verdict(self, episode: Episode) -> Verdict:
        if self._deadline is not None:
            return self._elsewhere(episode, self._deadline)
        began = time.perf_counter()
        try:
            answer: object = self._function(episode)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it becomes an error verdict
            return self._error(episode, f"{self.shown}{_place(error)}: {_last_line(error)}")
        seconds = time.perf_counter() - began
        if isinstance(answer, Verdict):
            if answer.episode == episode.id:
                return answer
            return self._error(episode, f"{self.shown} gave a verdict on {answer.episode!r}")
        reason = ""
        if isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], str):
            answer, reason = answer
        if isinstance(answer, bool) or not isinstance(answer, numbers.Real):
            return self._error(
                episode,
                f"{self.shown}: expected a score, (score, reason) or a Verdict, got {answer!r}",
            )
        try:
            return Verdict(episode.id, self.name, float(answer), reason, seconds=seconds)
        except OVDError as error:
            return self._error(episode, f"{self.shown}: {error}")

    def _elsewhere(self, episode: Episode, deadline: float) -> Verdict:
        """The verdict of a process that does not outlive the deadline."""
        request = {
            "function": self.shown,
            "path": sys.path,
            "deadline": deadline,
            "episode": episode.to_dict(),
        }
        try:
            answer = self._workers.ask(request, deadline=deadline)
        except Expired as expired:
            why = "its process ended" if expired.ended else f"no answer within {deadline:g} s"
            return self._error(episode, f"{self.shown}: {why}")
        return Verdict.from_dict(answer["verdict"])

    def _error(self, episode: Episode, error: str) -> Verdict:
        return Verdict(episode.id, self.name, None, error=" ".join(error.split())[:500])


def _load(name: str) -> Any:
    module, colon, attribute = name.partition(":")
    if not module or not colon or not attribute:
        raise OVDError(f"function: expected module:function, got {name!r}")
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:  # somebody else's module can fail in any way
        hint = ""
        if isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]:
            hint = "; is its folder on PYTHONPATH?"
        raise OVDError(f"function {name!r}: {type(error).__name__}: {error}{hint}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise OVDError(f"function {name!r}: {module} has no {attribute!r}")
        found = getattr(found, part)
    return found


def _fingerprint(shown: str, function: Any) -> str:
    # An object with __call__ has its text where its class has.
    located: Any = function if inspect.isroutine(function) else type(function)
    with contextlib.suppress(TypeError, OSError):
        source = inspect.getsourcefile(inspect.unwrap(located))
        if source is not None and "<" not in shown:  # a lambda's name says nothing
            digest = hashlib.sha256(Path(source).read_bytes()).hexdigest()
            return f"program/1 {shown} {digest}"
    return ""


def _place(error: BaseException) -> str:
    """Where the function raised: " (rules.py, line 12)"."""
    frames = traceback.extract_tb(error.__traceback__)[1:]  # the first is this module's call
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""


def _last_line(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
