"""How a conversation becomes token ids: once, append-only, and never rendered again.

The ids of an episode are: the opening prompt, what the model sampled, the tokens between two
turns, what the model sampled, ... The tokens between turns come from the chat template; no past
turn is tokenised a second time, so what was sampled is what is trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agents.episode import Episode, Segment
from ovd_envs.errors import OVDError

# Placeholders for message contents while a template is taken apart. Letters only: a template
# may strip or escape anything else.
_USER, _REPLY, _NEXT, _AGAIN = "OVDQUESTIONOVD", "OVDREPLYOVD", "OVDNEXTOVD", "OVDAGAINOVD"


class DialectError(OVDError):
    """A chat template that cannot be used append-only."""


class ChatDialect:
    """Messages of a chat template; observations are user messages, actions the assistant's.

    Raises ``DialectError`` where the template rewrites past turns or ends a turn without a
    special token.
    """

    name = "chat"

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        if not getattr(tokenizer, "chat_template", None):
            raise DialectError(
                f"tokenizer {tokenizer.name_or_path!r} has no chat template; expected an instruct model"
            )
        opening = self._render(_USER)
        one = self._render(_USER, _REPLY, _NEXT)
        two = self._render(_USER, _REPLY, _NEXT, _REPLY, _AGAIN)
        head, between, tail = _take_apart(one, opening)
        if two != head + _REPLY + between + _NEXT + tail + _REPLY + between + _AGAIN + tail:
            raise DialectError(
                f"chat template of {tokenizer.name_or_path!r} is not append-only: "
                "a later turn changes how an earlier one is written"
            )
        self._between, self._tail = between, tail
        ending = self.encode(between)
        self._special_ids = set(tokenizer.all_special_ids)
        if ending[0] not in self._special_ids:
            raise DialectError(
                f"chat template of {tokenizer.name_or_path!r} ends a turn with {between[:12]!r}, "
                "which does not begin with a special token"
            )
        #: The token that ends a turn of the acting model.
        self.end_of_turn: int = ending[0]
        #: Tokens that end a reply: the template's own and the tokenizer's end of sequence.
        self.stop_ids = frozenset({self.end_of_turn, tokenizer.eos_token_id} - {None})
        # Text that a message may contain but that must not become control tokens.
        self._control = tuple(t for t in tokenizer.all_special_tokens if t) + tuple(
            str(t) for t in tokenizer.added_tokens_decoder.values() if t.special
        )

    def _render(self, *messages: str, system: str | None = None) -> str:
        conversation = [{"role": "system", "content": system}] if system is not None else []
        for number, content in enumerate(messages):
            conversation.append({"role": ("user", "assistant")[number % 2], "content": content})
        return str(
            self.tokenizer.apply_chat_template(
                conversation, tokenize=False, add_generation_prompt=True
            )
        )

    def encode(self, text: str) -> list[int]:
        """Ids of ``text`` from the template: special tokens become their ids."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def encode_content(self, before: str, content: str, after: str) -> list[int]:
        """Ids of a message's ``content`` within the template text around it.

        Content that spells a control token stays text: nobody ends a turn from within one.
        """
        if not any(token in content for token in self._control):
            return self.encode(before + content + after)
        plain = self.tokenizer.encode(content, add_special_tokens=False, split_special_tokens=True)
        return self.encode(before) + list(plain) + self.encode(after)

    def open(self, observation: str, system: str | None = None) -> list[int]:
        """Ids of the prompt for the first turn, up to where the model begins to write."""
        rendered = self._render(_USER, system=_AGAIN if system is not None else None)
        before, _, after = rendered.partition(_USER)
        if system is None:
            return self.encode_content(before, observation, after)
        start, _, middle = before.partition(_AGAIN)
        if not middle and _AGAIN not in before:
            raise DialectError(f"chat template of {self.tokenizer.name_or_path!r} drops system messages")
        if any(token in system + observation for token in self._control):
            return self.encode_content(start, system, "") + self.encode_content(middle, observation, after)
        return self.encode(start + system + middle + observation + after)

    def follow(self, sampled: Sequence[int], observation: str) -> list[int]:
        """Ids between a turn that ended with ``sampled`` and the next turn.

        Where the model did not write the end of turn itself (it ran out of tokens, or a stop
        string ended it), the end of turn is inserted: given, not sampled.
        """
        ids = self.encode_content(self._between, observation, self._tail)
        return ids[1:] if sampled and sampled[-1] == self.end_of_turn else ids

    def encode_turn(self, text: str) -> list[int]:
        """Ids of a message as this model would have written it, its end of turn included."""
        return [*self.encode_content("", text, ""), self.end_of_turn]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of sampled ids, without the token that ended the turn."""
        if ids and ids[-1] in self.stop_ids:
            ids = ids[:-1]
        return str(self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    def segment(self, episode: Episode, system: str | None = None) -> Segment:
        """Tokens of an episode that has none of its own (a script's, a person's, an API's).

        Every message of the acting agent has mask 1, its end of turn included; the
        log-probabilities are 0.0, which for given text means: not sampled by this model.
        """
        segment = Segment()
        segment.extend_given(self.open(episode.observation, system))
        for number, turn in enumerate(episode.turns):
            if number:
                segment.extend_given(
                    self.follow([self.end_of_turn], episode.turns[number - 1].observation)
                )
            ids = self.encode_turn(turn.action)
            segment.extend_sampled(ids, [0.0] * len(ids))
        return segment


def _take_apart(one: str, opening: str) -> tuple[str, str, str]:
    """(opening, what stands between a reply and the next message, what follows that message)."""
    head, _, rest = one.partition(_REPLY)
    between, _, tail = rest.partition(_NEXT)
    if head != opening or not between or not rest:
        raise DialectError(
            "chat template is not append-only: the prompt of the first turn is not a prefix of the second's"
        )
    return head, between, tail
