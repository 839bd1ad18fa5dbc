"""The student: a model that acts in episodes and keeps the exact tokens it saw and sampled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from agents.episode import Episode, Segment
from agents.protocol import Act, Backend, Completion, Request, capabilities_of


class Student:
    """An agent on a backend.

    ``temperature`` 0 is greedy. All three budgets are tokens: ``max_tokens`` of one turn (its
    ``stop`` is "length"); ``max_context`` of the whole episode, prompt, observations and replies
    together: one with no room left for a reply ends with the reason "context_limit";
    ``max_episode_tokens`` of all its replies together: where they are used up it ends with the
    reason "token_limit".

    Raises ``OVDError`` for a backend that does not declare its capabilities.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        temperature: float = 1.0,
        max_tokens: int = 256,
        max_context: int | None = None,
        max_episode_tokens: int | None = None,
        stop: tuple[str, ...] = (),
        system: str | None = None,
        name: str | None = None,
    ) -> None:
        self.backend = backend
        self._submits = capabilities_of(backend).submit
        self.temperature = temperature
        self.max_tokens = max_tokens
        limit = int(getattr(backend, "context_length", 1 << 30))
        self.max_context = min(max_context or limit, limit)
        self.max_episode_tokens = max_episode_tokens
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
            if isinstance(request, Act):
                acts[number] = request
            else:
                asked.append(number)
                requests.append(request)
        for number, completion in zip(asked, self.backend.generate(requests), strict=True):
            acts[number] = self._take(episodes[number], completion)
        return [act for act in acts if act is not None]

    @property
    def submit(self) -> Callable[[Episode], Future[Act]]:
        """As ``act``, for one episode: its act as soon as it is there.

        There is no such method (``AttributeError``) where the backend declares none.
        """
        if not self._submits:
            raise AttributeError(f"student {self.name!r}: its backend takes no single requests")
        ask: Callable[[Request], Future[Completion]] = self.backend.submit  # type: ignore[attr-defined]

        def submit(episode: Episode) -> Future[Act]:
            future: Future[Act] = Future()
            request = self._request(episode)
            if isinstance(request, Act):
                future.set_result(request)
                return future

            def answered(done: Future[Completion]) -> None:
                if not future.set_running_or_notify_cancel():
                    return
                try:
                    future.set_result(self._take(episode, done.result()))
                except BaseException as error:  # noqa: BLE001 - told to the one who asked
                    future.set_exception(error)

            reply = ask(request)
            reply.add_done_callback(answered)
            # Who does not want the act any more does not want the reply.
            future.add_done_callback(lambda act: act.cancelled() and reply.cancel())
            return future

        return submit

    def _take(self, episode: Episode, completion: Completion) -> Act:
        """Append what was sampled to the episode's tokens; the message that it is."""
        episode.segments[-1].extend_sampled(completion.ids, completion.logprobs)
        text = self.backend.dialect.opened(len(episode.turns)) + completion.text
        if completion.stop_string in self._closing(episode):
            text += completion.stop_string  # a closing tag is a part of its message
        return Act(text, completion.stop, completion.version)

    def _closing(self, episode: Episode) -> tuple[str, ...]:
        """The strings of the environment that end a message and belong to it."""
        return episode.stop_strings if self.backend.dialect.stops_at_strings else ()

    def _request(self, episode: Episode) -> Request | Act:
        """The next request of an episode, or the act that ends it where a budget is used up."""
        dialect = self.backend.dialect
        if episode.turns and not episode.segments:
            self._read(episode)
        allowed = self.max_tokens
        if self.max_episode_tokens is not None:
            allowed = min(allowed, self.max_episode_tokens - episode.num_sampled_tokens)
        if allowed < 1:
            return Act("", stop="token_limit")
        segment, given = dialect.next_turn(episode, self.system)
        room = self.max_context - len(segment.ids) - len(given)
        if room < 1:
            return Act("", stop="context_limit")
        if not episode.segments or segment is not episode.segments[-1]:
            episode.segments.append(segment)
        segment.extend_given(given)
        return Request(
            ids=list(segment.ids),
            max_tokens=min(allowed, room),
            temperature=self.temperature,
            key=(*episode.seed, len(episode.turns)),
            stop=(*self.stop, *self._closing(episode)),
            session=episode.id,
        )

    def _read(self, episode: Episode) -> None:
        """The turns of an episode that somebody else began, as this model reads them: given."""
        for segment in self.backend.dialect.segments(episode, self.system):
            given = Segment()
            given.extend_given(segment.ids)
            episode.segments.append(given)

    def finish(self, episodes: Sequence[Episode]) -> None:
        """Let go of what the backend keeps for episodes that have ended."""
        release: Any = getattr(self.backend, "release", None)
        if release is not None:
            release([episode.id for episode in episodes])
