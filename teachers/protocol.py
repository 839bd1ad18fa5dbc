"""What a teacher must offer: a judge says how good an episode is, a demonstrator acts itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from agents.episode import Episode
from ovd_envs.errors import OVDError
from ovd_envs.task import Task
from teachers.verdict import Verdict


class JudgeStopError(OVDError):
    """It is no use to ask the judge for more: a bad key, a budget spent, nobody who answers.

    Raised by a judge, it ends the scoring; every other exception is an error of its episode.
    ``answered`` are the verdicts of the same call that are whole all the same.
    """

    def __init__(self, message: str, answered: Sequence[Verdict] = ()) -> None:
        super().__init__(message)
        self.answered = answered


class JudgeOutageError(JudgeStopError):
    """Nobody has answered for longer than the judge's patience."""


@runtime_checkable
class Judge(Protocol):
    """Reads finished episodes and scores each from 0 to 9, with a reason.

    A judge may also have ``fingerprint: str``, which names everything that its verdicts depend on
    (its version, options, model, rubric) beside what is read of an episode, which its id is not:
    only for judges that have one are verdicts cached, and shared among equal episodes. One that
    scores each turn too (``Verdict.turns``) says so by ``score_level``, "turn"; one that reads no
    gold answer, reward or info of an episode, by ``show_gold``, ``False``. One whose verdicts
    depend on the other episodes of a group says so by ``scores_groups``: it gets whole groups, in
    the order of their places (``teachers.whole_groups``), and ``batch_size`` tears none.

    A judge that waits for somebody else may have ``submit(episode)``, which returns a ``Future`` of
    the verdict, and ``concurrency``, how many it asks for at a time: about twice as many are then
    submitted, one more as each comes. For whole groups that is ``submit_group(episodes)``, a
    ``Future`` of their verdicts. It may have ``halt()``: what was not begun is not begun any
    more, its futures raise ``JudgeStopError``, and what is under way comes to its end. One that
    asks a person at this terminal says so by ``interactive``.
    """

    name: str

    def judge(self, episodes: Sequence[Episode]) -> list[Verdict]:
        """One verdict for every episode, in any order: they are matched by episode id.

        Retries, time limits and their bounds are the judge's own. Where it cannot score an
        episode it returns a verdict with ``error``; it never invents a score. Call
        ``teachers.score`` rather than this: it guards against a judge that breaks these rules.
        """
        ...


@runtime_checkable
class Demonstrator(Protocol):
    """Acts in the student's environment to show how a task is done."""

    name: str

    def demonstrate(
        self,
        env: str,
        requests: Sequence[tuple[Task, tuple[int, ...]]],
        env_options: Mapping[str, Any] | None = None,
    ) -> list[Episode]:
        """One finished episode in ``env`` for each (task, seed), in their order.

        An episode depends on its own task and seed alone, never on the requests beside it.
        """
        ...


@runtime_checkable
class Continuing(Demonstrator, Protocol):
    """A demonstrator that can also go on where a student went wrong (``replace: suffix``)."""

    def continue_from(
        self,
        env: str,
        requests: Sequence[tuple[Episode, int]],
        env_options: Mapping[str, Any] | None = None,
    ) -> list[Episode]:
        """For each (student's episode, turns) one that has those turns and then the demonstrator's.

        The student acted as in training (``rollout(training=True)``). ``Episode.kept`` is the
        number of turns, ``begun_by`` the student, and ``segments`` the exact tokens of those turns
        (``agents.kept_turns``). An episode whose environment does not come to the same state
        again ends in an error.
        """
        ...
