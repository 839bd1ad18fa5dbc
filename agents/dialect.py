"""How a conversation becomes token ids: once, append-only, and never rendered again.

The ids of an episode are: the opening prompt, what the model sampled, the tokens between two
turns, what the model sampled, ... No past turn is tokenised a second time, so what was sampled is
what is trained on. ``agents.chat_dialect`` and ``agents.inline_dialect`` are the two dialects.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from agents.episode import Episode, Segment
from ovd_envs.errors import OVDError


class DialectError(OVDError):
    """A tokenizer or chat template that a dialect cannot use."""


class Dialect(ABC):
    """Turns observations and messages into ids that are only ever added to."""

    name: ClassVar[str]
    #: Texts that end a message of the acting model, beside its end-of-turn token; they belong to
    #: the message.
    stop_strings: tuple[str, ...] = ()

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._model = repr(getattr(tokenizer, "name_or_path", ""))
        added = tokenizer.added_tokens_decoder.items()
        self._special_ids = {*tokenizer.all_special_ids, *(i for i, t in added if t.special)}
        #: Tokens that end a reply.
        self.stop_ids: frozenset[int] = frozenset({tokenizer.eos_token_id} - {None})

    @abstractmethod
    def open(self, observation: str, system: str | None = None) -> list[int]:
        """Ids of the prompt for the first turn, up to where the model begins to write.

        Raises ``DialectError`` where ``system`` is given and there is no place for it.
        """

    @abstractmethod
    def follow(self, sampled: Sequence[int], observation: str) -> list[int]:
        """Ids between a turn that ended with ``sampled`` and the next turn."""

    @abstractmethod
    def encode_turn(self, text: str) -> list[int]:
        """Ids of a message as this model would have written it, with what ends it."""

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
        wanted = [i for part in parts[::2] for i in self.encode(part) if i in self._special_ids]
        if [i for i in ids if i in self._special_ids] == wanted:
            return ids
        # A message spells a control token: each part by itself, messages as mere text.
        return [
            i
            for number, part in enumerate(parts)
            for i in (
                self.tokenizer.encode(part, add_special_tokens=False, split_special_tokens=True)
                if number % 2
                else self.encode(part)
            )
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of sampled ids, without the token that ended the turn."""
        if ids and ids[-1] in self.stop_ids:
            ids = ids[:-1]
        return str(self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    def segment(self, episode: Episode, system: str | None = None) -> Segment:
        """Tokens of an episode that has none of its own (a script's, a person's, an API's).

        Every message of the acting agent has mask 1, its end of turn included (unless it ran
        out of tokens: then it has none, or one that is given); the log-probabilities are 0.0,
        which for given text means: not sampled by this model.
        """
        segment = Segment()
        segment.extend_given(self.open(episode.observation, system))
        for number, turn in enumerate(episode.turns):
            if number:
                before = episode.turns[number - 1].observation
                segment.extend_given(self.follow(segment.ids[-1:], before))
            ids = self.encode_turn(turn.action)
            if turn.stop == "length" and ids and ids[-1] in self.stop_ids:
                del ids[-1]
            segment.extend_sampled(ids, [0.0] * len(ids))
        return segment
