"""The dialects ``chat`` and ``chat-no-thinking``: messages of the model's own chat template.

Observations are user messages, actions the assistant's.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, ClassVar

from agents.chat_template import CLOSE, MESSAGE, OPEN, SYSTEM, ChatTemplate, Forms, kind_of
from agents.dialect import Dialect, DialectError
from agents.episode import Episode, Segment


class ChatDialect(Dialect):
    """Messages of a chat template.

    Where the template writes a message in the same way whatever comes later, an episode is one
    segment: what was sampled, and between two turns what the template says. Where it does not
    (thinking models: past thoughts are dropped), a turn whose prompt is no continuation of the
    last begins a new segment, with the conversation as the template writes it now. What was
    sampled is trained on as it was sampled in either case.

    Raises ``DialectError`` where the template cannot be taken apart or ends a turn without a
    special token.
    """

    name = "chat"
    #: Variables that the chat template reads.
    template_options: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer)
        self._template = ChatTemplate(tokenizer, self._model, self.template_options)
        forms = self._template.forms()
        # Only what the template says tells DeepSeek's turns from its other added tokens.
        written = forms.first_past.split(MESSAGE) + forms.later_past.split(MESSAGE)
        self.control_ids |= {
            i
            for part in written
            for i in self.encode(part)
            if self._added.get(i, "").strip() not in ("", OPEN, CLOSE)
        }
        ending = self.encode(forms.later)
        if ending[0] not in self._special_ids:
            raise DialectError(
                f"chat template of {self._model} ends a turn with {forms.later[:12]!r}, "
                "which does not begin with a special token"
            )
        #: The token that ends a turn of the acting model.
        self.end_of_turn: int = ending[0]
        self.stop_ids |= {self.end_of_turn}
        self._prefill, self._lead = forms.prefill, forms.lead
        #: Whether a prompt begins the thought that the message begins with.
        self._in_thought = OPEN in self._prefill and CLOSE not in self._prefill
        self._cue = forms.later.partition(MESSAGE)[2]  # what stands before a reply
        # Most tokenizers show the blank before a reply, some don't.
        shown = super().decode(self._encode_after(self._cue, f"{self._lead}x"))
        self._shows_lead = shown.startswith(self._lead)

    def open(self, observation: str, system: str | None = None) -> list[int]:
        """Ids of the prompt for the first turn, up to where the model begins to write.

        Raises ``DialectError`` where ``system`` is given and the template has no place for it.
        """
        return self._fill(self._template.forms(system).first, observation, system)

    def follow(
        self, sampled: Sequence[int], observation: str, system: str | None = None
    ) -> list[int]:
        """Ids between a turn that ended with ``sampled`` and the next turn.

        Where the model did not write the end of turn itself (it ran out of tokens, or a stop
        string ended it), the end of turn is inserted: given, not sampled.
        """
        return self._after(sampled, self._template.forms(system).later, observation, system)

    def opened(self, turn: int) -> str:
        """What the prompt of turn number ``turn`` has already begun of the message ("<think>")."""
        return self._prefill if self._in_thought else ""

    def encode_turn(self, text: str, turn: int = 0) -> list[int]:
        """Ids of a message as this model would have written it, its end of turn included."""
        text = text.strip() if self._template.strips_reply else text
        ids = self._encode_after(self._cue, self._lead + self.without_opened(text))
        return [*ids, self.end_of_turn]

    def without_opened(self, text: str) -> str:
        """What the model writes of a message after what the prompt has begun of it.

        Where the prompt begins a thought and the message has none, the thought is ended at once.
        """
        if not self._in_thought:
            return text
        if text.startswith(OPEN):
            return text.removeprefix(self._prefill).removeprefix(OPEN)
        return text if CLOSE in text else f"\n{CLOSE}\n\n{text}"

    def decode(self, ids: Sequence[int]) -> str:
        """Text of sampled ids, without the token that ended the turn."""
        text = super().decode(ids)
        return text.removeprefix(self._lead) if self._shows_lead else text

    def next_turn(self, episode: Episode, system: str | None = None) -> tuple[Segment, list[int]]:
        """Where the next turn of ``episode`` is written, and the given ids that precede it there.

        A segment that is not among the episode's own yet is new. ``system`` takes the place of
        the environment's own system message.
        """
        system = episode.system if system is None else system
        forms = self._template.forms(system)
        if not episode.turns or (forms.only_grow and self._template.keeps_thoughts):
            return super().next_turn(episode, system)
        observations = [episode.observation, *(turn.observation for turn in episode.turns)]
        ids = self._prompt(forms, observations, self._replies(episode), system)
        last = episode.segments[-1].ids if episode.segments else []
        if last and ids[: len(last)] == last:
            return episode.segments[-1], ids[len(last) :]
        return Segment(), ids

    def _prompt(
        self,
        forms: Forms,
        observations: Sequence[str],
        replies: Sequence[Sequence[int]],
        system: str | None,
    ) -> list[int]:
        """The conversation as the template writes it for its newest turn.

        Past replies are the ids that were sampled, without the thoughts that the template drops.
        """
        newest = len(observations) - 1
        first_keeping = self._template.first_keeping(observations)
        ids: list[int] = []
        for number, observation in enumerate(observations):
            form = forms.later if number else forms.first
            reply: list[int] = []
            if number < newest:
                form = forms.later_past if number else forms.first_past
                reply, before = self._past_reply(replies[number], keeping=number >= first_keeping)
                form += before
            ids += self._after(ids[-1:], form, observation, system)
            ids += reply
        return ids

    def _past_reply(self, reply: Sequence[int], *, keeping: bool) -> tuple[list[int], str]:
        """A past reply as the template shows it, and the text that it puts before.

        The end of turn may be missing: what follows a reply begins with it.
        """
        body = list(reply[:-1] if reply and reply[-1] in self.stop_ids else reply)
        text = self.opened(0) + self.decode(body)
        shown = self._template.shown(kind_of(text), keeping=keeping)
        if shown.whole:
            return list(reply), shown.before + self.opened(0)
        rest = text.rpartition(CLOSE)[2]
        rest = rest.strip() if self._template.strips_reply else rest
        rest = rest.lstrip("\n") if shown.strips else rest
        # A token may hold the end of the thought and the beginning of the rest.
        start = bisect_left(
            range(len(body)), -len(rest), key=lambda place: -len(self.decode(body[place:]))
        )
        kept = body[start:]
        if self.decode(kept) != rest or self._lead:
            kept = self._encode_after(self._cue, self._lead + rest)
        return kept, shown.before

    def _replies(self, episode: Episode) -> list[list[int]]:
        """The ids of each message: those that were sampled, where all were."""
        sampled = [
            [token for token, _ in run]
            for segment in episode.segments
            for own, run in groupby(zip(segment.ids, segment.mask, strict=True), lambda t: t[1])
            if own
        ]
        if len(sampled) == len(episode.turns):
            return sampled
        return [self.encode_turn(turn.action, i) for i, turn in enumerate(episode.turns)]

    def _fill(self, form: str, observation: str, system: str | None) -> list[int]:
        """Ids of a form with its messages."""
        parts = re.split(f"({MESSAGE}|{SYSTEM})", form)
        for place in range(1, len(parts), 2):
            if parts[place] == MESSAGE:
                parts[place] = observation.strip() if self._template.strips_user else observation
            else:
                strips = self._template.forms(system).strips_system
                parts[place] = (system or "").strip() if strips else (system or "")
        return self._weave(*parts)

    def _after(
        self, ids: Sequence[int], form: str, observation: str, system: str | None
    ) -> list[int]:
        """Ids of a form after ``ids``, whose end of turn it need not write again."""
        filled = self._fill(form, observation, system)
        return filled[1:] if ids and ids[-1] == self.end_of_turn else filled


class NoThinkingDialect(ChatDialect):
    """As ``chat``, with a template that is told that nothing is thought first.

    Qwen3's then ends each prompt with an empty thought. Raises ``DialectError`` for a template
    that makes no difference.
    """

    name = "chat-no-thinking"
    template_options = {"enable_thinking": False}  # noqa: RUF012 - never changed
