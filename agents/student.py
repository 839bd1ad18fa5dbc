"""The student: a model that acts in episodes and keeps the exact tokens it saw and sampled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from agents.episode import Episode, Segment
from agents.protocol import Act, Backend, Completion, Request


class Student:
    """An agent on a backend.

    ``temperature`` 0 is greedy. ``max_tokens`` bounds one turn; ``max_context`` the whole
    episode in tokens, prompt, observations and replies together: an episode with no room left
    for a reply is ended by the rollout with the reason "context_limit".
    """

    def __init__(
        self,
        backend: Backend,
        *,
        temperature: float = 1.0,
        max_tokens: int = 256,
        max_context: int | None = None,
        stop: tuple[str, ...] = (),
        system: str | None = None,
        name: str | None = None,
    ) -> None:
        self.backend = backend
        self.temperature = temperature
        self.max_tokens = max_tokens
        limit = int(getattr(backend, "context_length", 1 << 30))
        self.max_context = min(max_context or limit, limit)
        self.stop = stop
        self.system = system
        self.name = name or backend.name

    def act(self, episodes: Sequence[Episode]) -> list[Act]:
        """Read what is new in each episode, and write the next message."""
        acts: list[Act | None] = [None] * len(episodes)
        requests: list[Request] = []
        asked: list[int] = []
        for number, episode in enumerate(episodes):
            request = self._request(episode)
            if request is None:
                acts[number] = Act("", stop="context_limit")
            else:
                asked.append(number)
                requests.append(request)
        for number, completion in zip(asked, self.backend.generate(requests), strict=True):
            acts[number] = self._take(episodes[number], completion)
        return [act for act in acts if act is not None]

    @property
    def submit(self) -> Callable[[Episode], Future[Act]]:
        """As ``act``, for one episode: its act as soon as it is there.

        There is no such method (``AttributeError``) where the backend has no ``submit``.
        """
        ask: Callable[[Request], Future[Completion]] = self.backend.submit  # type: ignore[attr-defined]

        def submit(episode: Episode) -> Future[Act]:
            future: Future[Act] = Future()
            request = self._request(episode)
            if request is None:
                future.set_result(Act("", stop="context_limit"))
                return future

            def answered(done: Future[Completion]) -> None:
                try:
                    future.set_result(self._take(episode, done.result()))
                except Exception as error:  # noqa: BLE001 - told to the one who asked
                    future.set_exception(error)

            ask(request).add_done_callback(answered)
            return future

        return submit

    def _take(self, episode: Episode, completion: Completion) -> Act:
        """Append what was sampled to the episode's tokens; the message that it is."""
        episode.segments[-1].extend_sampled(completion.ids, completion.logprobs)
        text = completion.text
        if completion.stop_string in self.backend.dialect.stop_strings:
            text += completion.stop_string  # a closing tag is a part of its message
        return Act(text, completion.stop, completion.version)

    def _request(self, episode: Episode) -> Request | None:
        """The next request of an episode; ``None`` where its context is full."""
        dialect = self.backend.dialect
        if not episode.segments:
            given = dialect.open(episode.observation, self.system)
            episode.segments.append(Segment())
        else:
            segment = episode.segments[-1]
            given = dialect.follow(segment.ids[-1:], episode.turns[-1].observation)
        room = self.max_context - len(episode.segments[-1].ids) - len(given)
        if room < 1:
            return None
        segment = episode.segments[-1]
        segment.extend_given(given)
        return Request(
            ids=list(segment.ids),
            max_tokens=min(self.max_tokens, room),
            temperature=self.temperature,
            key=(*episode.seed, len(episode.turns)),
            stop=(*self.stop, *dialect.stop_strings),
            session=episode.id,
        )

    def finish(self, episodes: Sequence[Episode]) -> None:
        """Let go of what the backend keeps for episodes that have ended."""
        release: Any = getattr(self.backend, "release", None)
        if release is not None:
            release([episode.id for episode in episodes])
