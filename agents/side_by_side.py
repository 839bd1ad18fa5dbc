"""A person and a student in one episode: it says what it would say, the person decides."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.console import Console
from rich.panel import Panel

from agents.display import printable
from agents.episode import Episode
from agents.human import ReadLine, deaf_keyboard, left, read_line, read_message, show_observation
from agents.protocol import NO_MESSAGE, Act, Agent
from agents.student import Student

#: Who wrote a turn, where it was not the student, whose name stands there.
HUMAN = "human"

#: Key in ``Episode.info``: who wrote each turn, one name for each.
WRITTEN_BY = "written_by"

_HAND_OVER, _TAKE_BACK = "/student", "/me"


class SideBySide:
    """An agent of two: at each turn the person sees what the student would say, and decides.

    The student's message is sampled once a turn. An empty line sends it, any other text is sent
    instead; ``/student`` sends it and lets the student go on alone, a turn for each Enter, until
    ``/me``. Where the input ends while the student is alone, it plays the episode to its end.

    ``episode.info["written_by"]`` tells who wrote each turn. The student's own messages keep the
    ids that it sampled (mask 1); a message of the person is put into tokens once, as given text
    (mask 0). What the student would have said leaves no trace.

    Args:
        student: the student; its episodes have tokens where it has.
        console: where everything is shown (default: standard output).
        read: where the lines come from (default: standard input).
    """

    def __init__(
        self,
        student: Agent,
        *,
        console: Console | None = None,
        read: ReadLine | None = None,
    ) -> None:
        self.name = f"{HUMAN}+{student.name}"
        self.student = student
        self.console = console or Console()
        self._read = read or read_line
        # As titles show it: the end of a long path tells more than its beginning.
        self._shown = student.name if len(student.name) <= 24 else f"…{student.name[-23:]}"
        self._alone: set[str] = set()  # episodes that the student plays
        self._unasked: set[str] = set()  # those of them in which nobody watches any more
        self._authors: dict[str, dict[int, str]] = {}  # by episode and turn

    def act(self, episodes: Sequence[Episode]) -> list[Act]:
        """The next message of each episode, the person's or the student's.

        Raises ``Left`` where the input ends while the person has the say.
        """
        return [self._turn(episode) for episode in episodes]

    def finish(self, episodes: Sequence[Episode]) -> None:
        """Write down who wrote what, and let the student know that these have ended."""
        for episode in episodes:
            authors = self._authors.pop(episode.id, {})
            episode.info[WRITTEN_BY] = [authors[turn] for turn in range(len(episode.turns))]
        finish = getattr(self.student, "finish", None)
        if finish is not None:
            finish(episodes)

    def _turn(self, episode: Episode) -> Act:
        show_observation(self.console, episode)
        if episode.id in self._alone:
            self._watch(episode)
        before = episode.num_sampled_tokens
        with deaf_keyboard(), self.console.status(printable(f"{self._shown} is writing")):
            [act] = self.student.act([episode])
        if act.stop in NO_MESSAGE:
            self._note(f"{self._shown} has no room left for a message: {act.stop}")
            return act
        sampled = episode.num_sampled_tokens - before
        self._show(act, sampled, "says" if episode.id in self._alone else "would say")
        text = None if episode.id in self._alone else self._ask(episode)
        authors = self._authors.setdefault(episode.id, {})
        authors[len(episode.turns)] = self.student.name if text is None else HUMAN
        if text is None:
            return act
        self._write_instead(episode, sampled, text)
        return Act(text)

    def _watch(self, episode: Episode) -> None:
        """Before a turn of a student that is alone: the person may take back."""
        if episode.id in self._unasked:
            return
        self._note(f"Enter: next turn · {_TAKE_BACK}: you go on · Ctrl-D: to the end")
        while True:
            try:
                text = self._read("watching › ").strip()
            except EOFError:
                self._unasked.add(episode.id)
                return
            if text == _TAKE_BACK:
                self._alone.remove(episode.id)
                return
            if not text:
                return
            self._note(f"it is {self._shown}'s turn: {_TAKE_BACK} takes back")

    def _ask(self, episode: Episode) -> str | None:
        """The person's own message; ``None`` where the student's is to be sent."""
        self._note(f"Enter sends it · or type your own · {_HAND_OVER}: it goes on alone")
        while True:
            try:
                text = read_message(self._read, "you › ")
            except EOFError:
                raise left(episode) from None
            if not text.strip():
                self._note(f"sent: {self._shown}'s message")
                return None
            if text == _HAND_OVER:
                self._alone.add(episode.id)
                self._note(f"sent: {self._shown}'s message; it goes on alone")
                return None
            if text == _TAKE_BACK:
                self._note("it is your turn already")
            elif re.fullmatch(r"/[a-z]+", text):
                # More likely a slip than a message, and a message cannot be called back.
                self._note(f"no command {text}; a space before it sends it as your message")
            else:
                return text

    def _write_instead(self, episode: Episode, sampled: int, text: str) -> None:
        """Put the person's ``text`` in the place of the last ``sampled`` tokens."""
        if not episode.segments:
            return  # an API's student: it has no tokens, and reads the turns
        if not isinstance(self.student, Student):
            raise TypeError(
                f"{self.student.name}: expected a Student, for its episodes have tokens"
            )
        segment = episode.segments[-1]
        keep = len(segment.ids) - sampled
        del segment.ids[keep:], segment.mask[keep:], segment.logprobs[keep:]
        segment.extend_given(self.student.backend.dialect.encode_turn(text, len(episode.turns)))

    def _show(self, act: Act, sampled: int, verb: str) -> None:
        details = [f"{sampled} tokens"] if sampled else []
        if act.stop == "length":
            details.append("cut off")
        self.console.print(
            Panel(
                printable(act.text) if act.text else printable("(nothing)", style="dim"),
                title=printable(f"{self._shown} {verb}"),
                title_align="left",
                subtitle=" · ".join(details) or None,
                subtitle_align="right",
                border_style="cyan",
            )
        )

    def _note(self, text: str) -> None:
        self.console.print(printable(text, style="dim"))
