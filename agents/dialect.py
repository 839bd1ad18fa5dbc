"""How a conversation becomes token ids: exactly what the model reads, and what it sampled.

The ids of an episode are: the opening prompt, what the model sampled, the tokens between two
turns, what the model sampled, ... No sampled text is tokenised a second time to be trained on.
Where a chat template changes how past turns are written, the episode goes on in a new segment.
``agents.chat_dialect`` and ``agents.inline_dialect`` are the two dialects.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, ClassVar

from agents.episode import Episode, Segment
from ovd_envs.errors import OVDError


class DialectError(OVDError):
    """A tokenizer or chat template that a dialect cannot use."""


#: How models write control tokens that stand for no tag: ``<|im_end|>``, DeepSeek's ``<｜User｜>``.
_BARRED = re.compile(r"<[|｜].+[|｜]>", re.DOTALL)


class Dialect(ABC):
    """Turns observations and messages into ids."""

    name: ClassVar[str]
    #: Whether the strings with which the environment ends a message end a reply: see
    #: ``TextEnv.stop_strings``. Where not, the end-of-turn token alone does.
    stops_at_strings: ClassVar[bool] = False

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._model = repr(getattr(tokenizer, "name_or_path", ""))
        self._added = {i: str(t) for i, t in tokenizer.added_tokens_decoder.items()}
        special = {i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
        self._special_ids = {*tokenizer.all_special_ids, *special}
        # What no message may spell. Tags such as <think> are text, though they may be one token.
        barred = {i for i, word in self._added.items() if _BARRED.fullmatch(word)}
        self.control_ids = self._special_ids | barred
        text = "Two words\nand a third"
        if (found := tokenizer.decode(self.encode(text))).strip() != text:
            raise DialectError(
                f"tokenizer {self._model} makes {found!r} of {text!r}: expected the text again "
                "(its tokenizer_class may not fit its tokenizer.json)"
            )
        #: Tokens that end a reply.
        self.stop_ids: frozenset[int] = frozenset({tokenizer.eos_token_id} - {None})

    @abstractmethod
    def open(self, observation: str, system: str | None = None) -> list[int]:
        """Ids of the prompt for the first turn, up to where the model begins to write.

        Raises ``DialectError`` where ``system`` is given and there is no place for it.
        """

    @abstractmethod
    def follow(
        self, sampled: Sequence[int], observation: str, system: str | None = None
    ) -> list[int]:
        """Ids between a turn that ended with ``sampled`` and the next turn."""

    @abstractmethod
    def encode_turn(self, text: str, turn: int = 0) -> list[int]:
        """Ids of message number ``turn`` as this model would have written it, with its end."""

    def opened(self, turn: int) -> str:
        """What the prompt of turn number ``turn`` has already begun of the message ("<think>")."""
        return ""

    def without_opened(self, text: str) -> str:
        """What the model writes of a message after what the prompt has begun of it."""
        return text

    def next_turn(self, episode: Episode, system: str | None = None) -> tuple[Segment, list[int]]:
        """Where the next turn of ``episode`` is written, and the given ids that precede it there.

        A segment that is not among the episode's own yet is new. ``system`` takes the place of
        the environment's own system message.
        """
        system = episode.system if system is None else system
        if not episode.segments:
            return Segment(), self.open(episode.observation, system)
        last = episode.segments[-1]
        return last, self.follow(last.ids[-1:], episode.turns[-1].observation, system)

    def encode(self, text: str) -> list[int]:
        """Ids of ``text`` from the template: special tokens become their ids."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def encode_content(self, before: str, content: str, after: str) -> list[int]:
        """Ids of a message's ``content`` within the template text around it.

        Content that spells a control token stays text: nobody ends a turn from within one.
        """
        return self._weave(before, content, after)

    def _weave(self, *parts: str) -> list[int]:
        """Ids of template text (parts 0, 2, ...) and of the messages within it (1, 3, ...)."""
        ids = self.encode("".join(parts))
        wanted = [i for part in parts[::2] for i in self.encode(part) if i in self.control_ids]
        if [i for i in ids if i in self.control_ids] == wanted:
            return ids
        # A message spells a control token: each part by itself, messages as mere text.
        return [
            i
            for number, part in enumerate(parts)
            for i in (self._encode_text(part) if number % 2 else self.encode(part))
        ]

    def _encode_text(self, text: str) -> list[int]:
        """Ids of ``text`` without a control token, whatever it spells.

        Tokens that are not marked special are found in a text whatever the tokenizer is told:
        there their words are cut in two, or, at worst, everything.
        """
        words = {self._added.get(i) or self.tokenizer.decode([i]) for i in self.control_ids}
        spelled = re.finditer(f"(?={'|'.join(re.escape(word) for word in words if word)})", text)
        cuts = [0, *(found.start() + 1 for found in spelled), len(text)]
        for pieces in ([text], [text[a:b] for a, b in pairwise(cuts)], list(text)):
            ids = [
                i
                for piece in pieces
                for i in self.tokenizer.encode(
                    piece, add_special_tokens=False, split_special_tokens=True
                )
            ]
            # An unknown character is no control token, though its id may be one's.
            if not (self.control_ids - {self.tokenizer.unk_token_id}).intersection(ids):
                break
        return ids

    def _encode_after(self, before: str, text: str) -> list[int]:
        """Ids of a message ``text`` as it is tokenised after ``before`` from the template.

        Some tokenizers put a blank before a text, but not within one.
        """
        start = self.encode(before)
        ids = self._weave(before, text)
        return ids[len(start) :] if ids[: len(start)] == start else self._weave("", text)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of sampled ids, without the token that ended the turn."""
        if ids and ids[-1] in self.stop_ids:
            ids = ids[:-1]
        return str(self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    def segments(self, episode: Episode, system: str | None = None) -> list[Segment]:
        """Tokens of an episode that has none of its own (a script's, a person's, an API's).

        They are those of an episode that this model had sampled. Every message of the acting
        agent has mask 1, its end of turn included (unless it ran out of tokens: then it has none,
        or one that is given); the log-probabilities are 0.0, which for given text means: not
        sampled by this model.

        Where another began the episode (``kept``), the tokens that it has of those turns stay as
        they are, and the rest goes on from there.
        """
        kept = episode.kept if episode.segments else 0
        again = replace(
            episode,
            turns=episode.turns[:kept],
            segments=[
                Segment(list(s.ids), list(s.mask), list(s.logprobs))
                for s in episode.segments[: len(episode.segments) * bool(kept)]
            ],
        )
        for number, turn in enumerate(episode.turns[kept:], start=kept):
            segment, given = self.next_turn(again, system)
            if not again.segments or segment is not again.segments[-1]:
                again.segments.append(segment)
            segment.extend_given(given)
            ids = self.encode_turn(turn.action, number)
            if turn.stop == "length" and ids and ids[-1] in self.stop_ids:
                del ids[-1]
            segment.extend_sampled(ids, [0.0] * len(ids))
            again.turns.append(turn)
        return again.segments
