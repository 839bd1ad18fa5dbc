"""The dialect ``chat``: observations are messages of the model's own chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from agents.dialect import Dialect, DialectError

# Placeholders for message contents while a template is taken apart: letters, because a template
# may strip or escape anything else. The reply thinks first: some templates drop past thinking.
_SYSTEM, _USER, _NEXT, _AGAIN = "OVDSYSTEMOVD", "OVDQUESTIONOVD", "OVDNEXTOVD", "OVDAGAINOVD"
_REPLY = "<think>\nOVDTHOUGHTOVD\n</think>\n\nOVDREPLYOVD"


class ChatDialect(Dialect):
    """Messages of a chat template; observations are user messages, actions the assistant's.

    The tokens between turns are taken out of the template once, and added.

    Raises ``DialectError`` where the template rewrites past turns or ends a turn without a
    special token.
    """

    name = "chat"

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer)
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
        ending = self.encode(self._between)
        if ending[0] not in self._special_ids:
            raise DialectError(
                f"chat template of {self._model} ends a turn with {self._between[:12]!r}, "
                "which does not begin with a special token"
            )
        #: The token that ends a turn of the acting model.
        self.end_of_turn: int = ending[0]
        self.stop_ids |= {self.end_of_turn}

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
