"""How a conversation becomes token ids: once, append-only, and never rendered again.

The ids of an episode are: the opening prompt, what the model sampled, the tokens between two
turns, what the model sampled, ... The tokens between turns come from the chat template; no past
turn is tokenised a second time, so what was sampled is what is trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from agents.episode import Episode, Segment
from ovd_envs.errors import OVDError

# Placeholders for message contents while a template is taken apart: letters, because a template
# may strip or escape anything else. The reply thinks first: some templates drop past thinking.
_SYSTEM, _USER, _NEXT, _AGAIN = "OVDSYSTEMOVD", "OVDQUESTIONOVD", "OVDNEXTOVD", "OVDAGAINOVD"
_REPLY = "<think>\nOVDTHOUGHTOVD\n</think>\n\nOVDREPLYOVD"


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
        self._model = repr(getattr(tokenizer, "name_or_path", ""))
        if not getattr(tokenizer, "chat_template", None):
            raise DialectError(
                f"tokenizer {self._model} has no chat template; expected an instruct model"
            )
        self._opening, self._between, self._tail = self._take_apart()
        # The first prompt with a system message, and whether the template strips that; proved
        # when one first comes.
        self._with_system: tuple[str, bool] | None = None
        # What a template strips from the edges of a message is stripped here.
        self._strips_user = self._render(f"\n {_USER} \n") == self._opening
        turn = self._render(_USER, f"\n {_REPLY} \n", _NEXT)
        self._strips_reply = turn == self._opening + _REPLY + self._between + _NEXT + self._tail
        added = tokenizer.added_tokens_decoder.items()
        self._special_ids = {*tokenizer.all_special_ids, *(i for i, t in added if t.special)}
        ending = self.encode(self._between)
        if ending[0] not in self._special_ids:
            raise DialectError(
                f"chat template of {self._model} ends a turn with {self._between[:12]!r}, "
                "which does not begin with a special token"
            )
        #: The token that ends a turn of the acting model.
        self.end_of_turn: int = ending[0]
        #: Tokens that end a reply: the template's own and the tokenizer's end of sequence.
        self.stop_ids = frozenset({self.end_of_turn, tokenizer.eos_token_id} - {None})

    def _render(self, *messages: str, system: str | None = None) -> str:
        conversation = [{"role": "system", "content": system}] if system is not None else []
        for number, content in enumerate(messages):
            conversation.append({"role": ("user", "assistant")[number % 2], "content": content})
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    conversation, tokenize=False, add_generation_prompt=True
                )
            )
        except (TemplateError, ValueError, TypeError) as error:
            what = "a conversation" if system is None else "a system message"
            reason = " ".join(str(error).split())
            raise DialectError(
                f"chat template of {self._model} does not take {what} ({reason})"
            ) from error

    def _take_apart(self, system: str | None = None) -> tuple[str, str, str]:
        """(first prompt, what follows a reply, what follows the next message), proved.

        The proof: two later turns are written by adding to the text of the first.
        """
        opening = self._render(_USER, system=system)
        one = self._render(_USER, _REPLY, _NEXT, system=system)
        two = self._render(_USER, _REPLY, _NEXT, _REPLY, _AGAIN, system=system)
        head, _, rest = one.partition(_REPLY)
        between, _, tail = rest.partition(_NEXT)
        if between and head != opening and head.startswith(opening):
            raise DialectError(
                f"chat template of {self._model} writes {head[len(opening) :]!r} before a reply; "
                "expected it at the end of the prompt"
            )
        turn = _REPLY + between
        if (
            head != opening
            or not between
            or two != head + turn + _NEXT + tail + turn + _AGAIN + tail
        ):
            raise DialectError(
                f"chat template of {self._model} is not append-only: "
                "a later turn changes how an earlier one is written"
            )
        if opening.count(_USER) != 1:
            raise DialectError(
                f"chat template of {self._model}: expected the question once in the first "
                f"prompt, found it {opening.count(_USER)} times"
            )
        return opening, between, tail

    def _open_with_system(self) -> tuple[str, bool]:
        """The first prompt with a system message, and whether the template strips that."""
        if self._with_system is None:
            opening, *turns = self._take_apart(_SYSTEM)
            if opening.partition(_USER)[0].count(_SYSTEM) != 1:
                raise DialectError(f"chat template of {self._model} drops system messages")
            if turns != [self._between, self._tail]:
                raise DialectError(
                    f"chat template of {self._model} writes later turns differently "
                    "where there is a system message"
                )
            strips = self._render(_USER, system=f"\n {_SYSTEM} \n") == opening
            self._with_system = opening, strips
        return self._with_system

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

    def open(self, observation: str, system: str | None = None) -> list[int]:
        """Ids of the prompt for the first turn, up to where the model begins to write.

        Raises ``DialectError`` where ``system`` is given and the template has no place for it.
        """
        observation = self._user(observation)
        if system is None:
            before, _, after = self._opening.partition(_USER)
            return self._weave(before, observation, after)
        opening, strips = self._open_with_system()
        before, _, after = opening.partition(_USER)
        start, _, middle = before.partition(_SYSTEM)
        system = system.strip() if strips else system
        return self._weave(start, system, middle, observation, after)

    def _user(self, observation: str) -> str:
        return observation.strip() if self._strips_user else observation

    def follow(self, sampled: Sequence[int], observation: str) -> list[int]:
        """Ids between a turn that ended with ``sampled`` and the next turn.

        Where the model did not write the end of turn itself (it ran out of tokens, or a stop
        string ended it), the end of turn is inserted: given, not sampled.
        """
        ids = self._weave(self._between, self._user(observation), self._tail)
        return ids[1:] if sampled and sampled[-1] == self.end_of_turn else ids

    def encode_turn(self, text: str) -> list[int]:
        """Ids of a message as this model would have written it, its end of turn included."""
        text = text.strip() if self._strips_reply else text
        return [*self._weave("", text), self.end_of_turn]

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
            if turn.stop == "length":
                del ids[-1]
            segment.extend_sampled(ids, [0.0] * len(ids))
        return segment
