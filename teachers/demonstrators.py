"""Teachers that act: a script that knows the solution, and any agent as a demonstrator."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from agents.episode import Episode
from agents.kept_turns import keep_turns
from agents.protocol import Act, Agent
from agents.rollout import Start, run_seeded
from ovd_envs.errors import OVDError, TaskError
from ovd_envs.registry import make
from ovd_envs.task import Task
from teachers import wordings
from teachers.protocol import Judge
from teachers.score import score

if TYPE_CHECKING:
    from agents.student import Student

WORKINGS = ("direct", "split", "rationale")


class ScriptedSolver:
    """An agent that writes the solution which the task carries, in varied wording.

    ``task.metadata["solution"]`` holds equations "lhs = rhs" in order; each is written in one
    of several wordings, and the answer comes last in ``\\boxed{}``. ``metadata["rationale"]`` is
    a solution in prose (GSM8K's and MATH's): it is written as it is where there are no equations,
    or where ``working`` asks for it. Tasks with neither get their first gold answer in a short
    sentence. The wording depends on ``episode.seed``, the turn and the task alone.

    Args:
        working: "direct" writes the equations as they are; "split" works out a sum of two
            numbers (``metadata["operands"]``) by tens and ones; "rationale" prefers the prose.
        name: the agent's name in its episodes.

    Raises ``OVDError`` for an unknown ``working``; ``act`` raises ``TaskError`` for a task that
    has neither a solution nor an answer.
    """

    def __init__(self, working: str = "direct", *, name: str = "scripted") -> None:
        if working not in WORKINGS:
            raise OVDError(f"working: expected one of {', '.join(WORKINGS)}, got {working!r}")
        self.working = working
        self.name = name

    def act(self, episodes: Sequence[Episode]) -> list[Act]:
        """The next message for every episode: the whole solution."""
        return [
            Act(
                self.solve(
                    episode.task,
                    random.Random(f"{tuple(episode.seed)}/{len(episode.turns)}/{episode.task.id}"),
                )
            )
            for episode in episodes
        ]

    def solve(self, task: Task, rng: random.Random) -> str:
        """The solution of ``task`` in a wording that ``rng`` picks."""
        steps = equations_of(task)
        rationale = task.metadata.get("rationale")
        if not isinstance(rationale, str) or not rationale.strip():
            rationale = None
        if task.answers:
            answer = task.answers[0]
        elif steps:
            answer = steps[-1].rpartition("=")[2].strip()
        else:
            raise TaskError(f"task {task.id!r} has neither a solution nor an answer to show")
        if rationale is not None and (self.working == "rationale" or not steps):
            return wordings.prose(rationale, answer, rng)
        if not steps:
            return wordings.answer_alone(answer, rng)
        operands = summands_of(steps, task.metadata.get("operands"))
        if operands is not None:
            step = wordings.split_sum(*operands) if self.working == "split" else steps[0]
            return wordings.sum_of_two(step, answer, rng)
        if len(steps) == 1:
            return wordings.one_equation(steps[0], answer, rng)
        return wordings.equations(steps, answer, rng)


def equations_of(task: Task) -> list[str]:
    """The equations of the solution; none where it is something else than a list of them."""
    solution = task.metadata.get("solution")
    if not isinstance(solution, list | tuple):
        return []
    return [step for step in solution if isinstance(step, str) and "=" in step]


def summands_of(steps: Sequence[str], operands: Any) -> tuple[int, int] | None:
    """The two whole numbers that the one step adds, where it does just that."""
    if len(steps) != 1 or not isinstance(operands, list | tuple) or len(operands) != 2:
        return None
    a, b = operands
    if not isinstance(a, int) or not isinstance(b, int) or a < 0 or b < 0:
        return None
    return (a, b) if steps[0].replace(" ", "").startswith(f"{a}+{b}=") else None


class AgentDemonstrator:
    """A demonstrator that lets ``agent`` act, and keeps the best of ``attempts`` episodes.

    "Best" is the highest reward, or the highest score of ``judge`` where there is one (an attempt
    whose judge failed comes after all that have a score); the earliest where equal. Where every
    attempt of a request ended in an error, that episode is returned with its error, for the caller
    to count.
    """

    def __init__(
        self,
        agent: Agent,
        name: str | None = None,
        *,
        attempts: int = 1,
        judge: Judge | None = None,
        batch_size: int = 64,
        progress: Callable[[Episode], None] | None = None,
    ) -> None:
        if attempts < 1:
            raise OVDError(f"attempts: expected at least 1, got {attempts}")
        self.judge = judge
        self.agent = agent
        self.name = name or agent.name
        self.attempts = attempts
        self.batch_size = batch_size
        self.progress = progress

    def demonstrate(
        self,
        env: str,
        requests: Sequence[tuple[Task, tuple[int, ...]]],
        env_options: Mapping[str, Any] | None = None,
    ) -> list[Episode]:
        """One finished episode for each (task, seed), in order. See ``Demonstrator``."""
        return self._run(env, requests, env_options, training=False)

    def continue_from(
        self,
        env: str,
        requests: Sequence[tuple[Episode, int]],
        env_options: Mapping[str, Any] | None = None,
    ) -> list[Episode]:
        """The agent goes on after the first turns of each student's episode. See ``Continuing``.

        It reads the student's conversation so far as if it were its own.
        """
        begun = [keep_turns(episode, turns) for episode, turns in requests]
        starts = [(start.task, start.seed, start) for start in begun]
        shown = self._run(env, starts, env_options, training=True)
        for episode, start in zip(shown, begun, strict=True):
            episode.start, episode.segments = None, start.segments
        return shown

    def _enter(self, env: str, env_options: Mapping[str, Any] | None) -> None:
        """Make ready for an environment: nothing, for an agent that reads all alike."""

    def _run(
        self,
        env: str,
        requests: Sequence[Start],
        env_options: Mapping[str, Any] | None,
        *,
        training: bool,
    ) -> list[Episode]:
        """The best of the attempts at each request."""
        self._enter(env, env_options)
        starts: list[Start] = []
        for request in requests:
            for attempt in range(self.attempts):
                seed = (*request[1][:-1], request[1][-1] * self.attempts + attempt)
                starts.append((request[0], seed, *request[2:]))
        episodes = run_seeded(
            _Named(self.agent, self.name),
            env,
            starts,
            env_options=env_options,
            batch_size=self.batch_size,
            training=training,
            progress=self.progress,
        )
        worth = [(episode.error is None, True, episode.reward) for episode in episodes]
        if self.judge is not None and self.attempts > 1:
            verdicts = score(self.judge, episodes)
            worth = [
                (episode.error is None, not verdict.failed, verdict.score or 0.0)
                for episode, verdict in zip(episodes, verdicts, strict=True)
            ]
        best = []
        for position, request in enumerate(requests):
            first = position * self.attempts
            place = max(range(first, first + self.attempts), key=worth.__getitem__)
            chosen = episodes[place]
            chosen.index = request[1][-1]  # the place asked for, whichever attempt was kept
            best.append(chosen)
        return best


class ModelDemonstrator(AgentDemonstrator):
    """A student as the demonstrator, which reads each environment in that one's own dialect."""

    def __init__(self, student: Student, name: str, **options: Any) -> None:
        super().__init__(student, name, **options)
        self._backend = student.backend

    def _enter(self, env: str, env_options: Mapping[str, Any] | None) -> None:
        from agents.dialects import make_dialect

        now = self._backend.dialect
        if (wanted := make(env, **dict(env_options or {})).dialect) != now.name:
            dialect = make_dialect(wanted, now.tokenizer)
            # The model may end a reply with more tokens than its tokenizer tells.
            dialect.stop_ids |= now.stop_ids
            self._backend.dialect = dialect


class _Named:
    """The agent under the demonstrator's name, so that episodes tell who made them."""

    def __init__(self, agent: Agent, name: str) -> None:
        self._agent = agent
        self.name = name

    def act(self, episodes: Sequence[Episode]) -> list[Act]:
        return self._agent.act(episodes)

    @property
    def submit(self) -> Callable[[Episode], Future[Act]]:
        """The agent's own; no such method where it has none."""
        submit: Callable[[Episode], Future[Act]] = self._agent.submit  # type: ignore[attr-defined]
        return submit

    def finish(self, episodes: Sequence[Episode]) -> None:
        finish = getattr(self._agent, "finish", None)
        if finish is not None:
            finish(episodes)


def scripted_demonstrator(working: str = "direct") -> AgentDemonstrator:
    """The demonstrator "scripted": see ``ScriptedSolver``."""
    return AgentDemonstrator(ScriptedSolver(working))


def model_demonstrator(
    model: str,
    *,
    backend: str = "transformers",
    attempts: int = 1,
    best_by: str = "outcome",
    judge: str | Mapping[str, Any] | None = None,
    temperature: float = 0.7,
    max_tokens: int | None = None,
    max_episode_tokens: int | None = None,
    batch_size: int = 64,
) -> AgentDemonstrator:
    """The demonstrator "model": a language model acts itself.

    It reads an environment in the dialect of its run, or else in that environment's own.

    Args:
        model: alias, folder, hub name, or a run's folder (its newest student).
        backend: what runs it, as for students: "transformers", "vllm", "openai:http://HOST/v1", ...
        attempts: episodes of each request, of which the best is shown.
        best_by: "outcome", the environment's reward, or "verdict", the score of ``judge``.
        judge: a judge's name, or a mapping of its name and options.
        temperature: of sampling; 0 is greedy.
        max_tokens: most tokens of one message; not said, as in its run, or 256.
        max_episode_tokens: most tokens of all its messages together.
        batch_size: episodes that run at a time.

    Raises ``OVDError`` for an option that cannot be, and where there is no such model or judge.
    """
    if best_by not in ("outcome", "verdict"):
        raise OVDError(f"best_by: expected outcome or verdict, got {best_by!r}")
    if (best_by == "verdict") != (judge is not None):
        raise OVDError(f"best_by: verdict goes with a judge; got {best_by} and judge {judge!r}")
    for option, value in (("max_tokens", max_tokens), ("max_episode_tokens", max_episode_tokens)):
        if value is not None and (type(value) is not int or value < 1):
            raise OVDError(f"{option}: expected a whole number of at least 1, got {value!r}")
    if backend.partition(":")[0] == "openai" and max_episode_tokens is not None:
        raise OVDError("max_episode_tokens: a chat API gives no tokens to count; use max_tokens")
    import agents
    from agents.student_source import MAX_TOKENS, find_source

    reader = _reader(judge)
    source = find_source(model)
    student = agents.load_student(
        source.model,
        temperature=temperature,
        max_tokens=max_tokens or source.max_tokens or MAX_TOKENS,
        dtype=source.dtype,
        dialect=source.dialect or "chat",
        batch_size=batch_size,
        backend=backend,
    )
    kind: type[AgentDemonstrator] = AgentDemonstrator
    if isinstance(student, agents.Student):
        student.max_episode_tokens = max_episode_tokens
        kind = AgentDemonstrator if source.dialect else ModelDemonstrator
    return kind(student, model, attempts=attempts, judge=reader, batch_size=batch_size)


def _reader(judge: str | Mapping[str, Any] | None) -> Judge | None:
    """The judge of this name, or of this name and options."""
    from teachers.registry import make_judge

    if judge is None:
        return None
    options = {"name": judge} if isinstance(judge, str) else dict(judge)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise OVDError(f"judge: expected its name, or a mapping with 'name', got {judge!r}")
    return make_judge(name, **options)
