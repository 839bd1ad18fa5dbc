"""The dialect ``inline``: what the environment says stands within the assistant's own text.

Search-R1's form (arXiv 2503.09516), and the one for base models: one user turn; then the model
writes, the environment's text is added where it stopped, the model writes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agents.chat_dialect import ChatDialect
from agents.dialect import Dialect, DialectError


class InlineDialect(Dialect):
    """One user turn, then one text that the model and the environment write in turns.

    A message ends with a string of the environment's (``</search>``), which belongs to it, or with
    the model's end of turn, which stays where it was sampled. A model without a chat template (a
    base model) reads the first observation as plain text.
    """

    name = "inline"
    stops_at_strings = True

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer)
        self._chat = ChatDialect(tokenizer) if getattr(tokenizer, "chat_template", None) else None
        if self._chat is not None:
            self.stop_ids |= self._chat.stop_ids
            self.control_ids |= self._chat.control_ids
        # What the tokenizer puts before a text, such as a token that begins it. Asked of its work,
        # because an option ``add_bos_token`` does not tell for all of them (Llama 3's).
        plain, whole = self.encode("x"), tokenizer.encode("x")
        self._beginning: list[int] = whole[: whole.index(plain[0])]
        # Whether it puts a blank before a text, which must not stand between two pieces of one.
        self._begins_blank = self._encode_after(".", "x") != plain

    def open(self, observation: str, system: str | None = None) -> list[int]:
        """Ids of the user turn, or of the plain text where there is no chat template.

        Raises ``DialectError`` where ``system`` is given and there is no place for it.
        """
        if self._chat is not None:
            return self._chat.open(observation, system)
        if system is not None:
            raise DialectError(f"tokenizer {self._model} has no chat template for a system message")
        return [*self._beginning, *self._weave("", observation)]

    def follow(
        self, sampled: Sequence[int], observation: str, system: str | None = None
    ) -> list[int]:
        """Ids of ``observation`` as plain text: nothing stands between it and the message."""
        return self._go_on(observation)

    def opened(self, turn: int) -> str:
        """What the first prompt has already begun of the first message ("<think>")."""
        return self._chat.opened(turn) if self._chat is not None and turn == 0 else ""

    def encode_turn(self, text: str, turn: int = 0) -> list[int]:
        """Ids of the message alone: its closing tag ends it."""
        if self._chat is not None and turn == 0:
            text = self._chat.without_opened(text)
        return self._go_on(text)

    def _go_on(self, text: str) -> list[int]:
        return self._encode_after(".", text) if self._begins_blank else self._weave("", text)
