"""An agent without a model: it plays given messages, or asks a function for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from agents.episode import Episode
from agents.protocol import Act
from ovd_envs.errors import OVDError

#: The messages of every episode; or those of each task by its id; or a function that writes the
#: next message of the running episode that it is given.
Script = Sequence[str] | Mapping[str, Sequence[str]] | Callable[[Episode], str]


class ScriptedAgent:
    """Plays ``script``: for tests, for baselines and for answers that are known beforehand.

    Args:
        script: see ``Script``. A function must write the same message for the same episode
            (take random numbers from ``episode.seed``) where runs are to be repeatable.
        name: the agent's name in its episodes.
    """

    def __init__(self, script: Script, name: str = "scripted") -> None:
        if isinstance(script, str):
            raise TypeError("script: expected a list of messages, got one str (write [message])")
        self.script = script
        self.name = name

    def act(self, episodes: Sequence[Episode]) -> list[Act]:
        """The next message of each episode.

        Raises ``OVDError`` where the script has no message for a task or a turn.
        """
        return [Act(self._message(episode), stop="scripted") for episode in episodes]

    def _message(self, episode: Episode) -> str:
        if callable(self.script):
            return self.script(episode)
        messages = self.script
        if isinstance(messages, Mapping):
            if episode.task.id not in messages:
                raise OVDError(f"{self.name}: the script has no messages for {episode.task.id!r}")
            messages = messages[episode.task.id]
        turn = len(episode.turns)
        if turn >= len(messages):
            raise OVDError(
                f"{self.name}: {episode.task.id!r} is in turn {turn + 1}, "
                f"the script has {len(messages)} message(s)"
            )
        return messages[turn]
