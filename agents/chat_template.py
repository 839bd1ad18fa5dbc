"""A chat template taken apart: what it writes around messages, and what it does with thoughts.

Everything here is text; ``agents.chat_dialect`` makes tokens of it. A template is asked about
messages that are placeholders, and what it is found to do is proved on longer conversations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jinja2 import TemplateError

from agents.dialect import DialectError

# Placeholders for messages: letters, because a template may strip or escape anything else.
SYSTEM, MESSAGE = "OVDSYSTEMOVD", "OVDMESSAGEOVD"
_NEXT, _AGAIN, _LAST, _REPLY, _THOUGHT = (
    f"OVD{word}OVD" for word in ("NEXT", "AGAIN", "LAST", "REPLY", "THOUGHT")
)

#: How models of this kind mark a thought: DeepSeek-R1, Qwen3, Magistral's successors and others.
OPEN, CLOSE = "<think>", "</think>"
_REPLIES = {
    "plain": _REPLY,
    "thought": f"{OPEN}\n{_THOUGHT}\n{CLOSE}\n\n{_REPLY}",
    "empty": f"{OPEN}\n\n{CLOSE}\n\n{_REPLY}",
}
#: What Qwen's templates take for the result of a tool, not for a new question.
_TOOL_RESPONSE = f"<tool_response>\n{_NEXT}\n</tool_response>"


@dataclass(frozen=True, slots=True)
class Forms:
    """What a template writes around messages, ``MESSAGE`` and ``SYSTEM`` standing in their places.

    A form reaches to where the reply to its message begins. ``later`` forms begin with what ends
    the reply before. A message is "past" once there is a later one.
    """

    first: str
    first_past: str
    later: str
    later_past: str
    #: Blanks before a past reply that no prompt ends with: the model writes them itself.
    lead: str
    #: What a prompt ends with and no past reply begins with: an opened or an empty thought.
    prefill: str
    #: Whether the system message is stripped.
    strips_system: bool = False

    @property
    def only_grow(self) -> bool:
        """Whether a message is written in the same way when a later one comes."""
        return (self.first, self.later) == (self.first_past, self.later_past)


@dataclass(frozen=True, slots=True)
class Shown:
    """How a past reply is written: behind ``before``, whole or without its thought."""

    before: str
    whole: bool = True
    #: Whether line feeds between the thought and the rest go with the thought.
    strips: bool = False


def kind_of(reply: str) -> str:
    """What a reply is to a template: "plain" (no thought that ended), "thought", "empty"."""
    thought, end, _ = reply.rpartition(CLOSE)
    return "plain" if not end else "thought" if thought.removeprefix(OPEN).strip() else "empty"


class ChatTemplate:
    """The chat template of ``tokenizer``; ``options`` are variables that the template reads.

    Raises ``DialectError`` where it cannot be used, saying why in one line.
    """

    def __init__(
        self, tokenizer: Any, model: str, options: Mapping[str, Any] | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self._options = dict(options or {})
        self._name = f"chat template of {model}"
        self._known: dict[str | None, Forms] = {}
        self._shown: dict[tuple[str, bool], Shown] = {}
        if not getattr(tokenizer, "chat_template", None):
            raise DialectError(
                f"tokenizer {model} has no chat template; expected an instruct model"
            )
        forms = self.forms()
        if options and self._render(MESSAGE) == ChatTemplate(tokenizer, model)._render(MESSAGE):
            told = ", ".join(f"{name}={value}" for name, value in self._options.items())
            raise DialectError(f"{self._name} writes the same with {told}")
        # What a template strips from the edges of a message is stripped here.
        self.strips_user = self._render(f"\n {MESSAGE} \n") == forms.first
        reply = self._render(MESSAGE, f"\n {_REPLY} \n", _NEXT)
        self.strips_reply = reply == self._render(MESSAGE, _REPLY, _NEXT)
        for kind in _REPLIES:  # what a template does to thoughts is known before a run begins
            self.shown(kind, keeping=False)
            self.shown(kind, keeping=self._can_keep)

    def forms(self, system: str | None = None) -> Forms:
        """The forms of conversations with this system message, or with none.

        Raises ``DialectError`` where the template has no place for one.
        """
        key = system and SYSTEM  # an empty one may be written like none
        if key not in self._known:
            forms = self._take_apart(key)
            plain = self._known.get(None, forms)
            if (forms.lead, forms.prefill) != (plain.lead, plain.prefill):
                raise DialectError(
                    f"{self._name} begins replies differently where there is a system message"
                )
            self._known[key] = forms
        return self._known[key]

    @cached_property
    def keeps_thoughts(self) -> bool:
        """Whether past replies are written as they were, thoughts and all, whatever follows."""
        return all(self.shown(kind, keeping=False) == Shown("") for kind in _REPLIES)

    def first_keeping(self, observations: Sequence[str]) -> int:
        """From which observation on the replies keep their thoughts, when the last is the newest.

        Qwen3: from the last one that is no response of a tool; none, where all are.
        """
        newest = len(observations) - 1
        if not newest or not self._can_keep:
            return newest
        for number in range(newest, 0, -1):
            if not self._keeps(observations[number]):
                return number
        return 0 if self._keeps(observations[newest], observations[0]) else newest

    @cached_property
    def _can_keep(self) -> bool:
        return self._keeps(_TOOL_RESPONSE)

    def _keeps(self, observation: str, first: str = MESSAGE) -> bool:
        forms, shown = self.forms(), first.strip() if self.strips_user else first
        before = forms.first_past.replace(MESSAGE, shown) + forms.lead
        written = self._render(first, _REPLIES["thought"], observation)
        return written.startswith(before + _REPLIES["thought"])

    def shown(self, kind: str, *, keeping: bool) -> Shown:
        """How a past reply of this kind (see ``kind_of``) is written.

        ``keeping``: whether all that followed keeps thoughts. Raises ``DialectError`` where the
        template does something else to thoughts than to leave them out.
        """
        if (kind, keeping) not in self._shown:
            self._shown[kind, keeping] = self._find_shown(
                kind, _TOOL_RESPONSE if keeping else _NEXT
            )
        return self._shown[kind, keeping]

    def _find_shown(self, kind: str, follows: str) -> Shown:
        reply = _REPLIES[kind]
        written = self._written(reply, follows)
        if written is not None and written.endswith(reply):
            return Shown(written.removesuffix(reply))
        near = self._written(reply.replace(f"\n\n{_REPLY}", _REPLY), follows)
        if written is None or near is None or not near.endswith(_REPLY) or _THOUGHT in near:
            raise DialectError(
                f"{self._name} writes a past reply that thought as {written!r}; expected it whole "
                "or without its thought"
            )
        return Shown(near.removesuffix(_REPLY), whole=False, strips=near == written)

    def _written(self, reply: str, follows: str) -> str | None:
        """What stands in the place of a past reply, ``None`` where that changes what is around."""
        forms = self.forms()
        before, after = forms.first_past + forms.lead, forms.later.replace(MESSAGE, follows)
        written = self._render(MESSAGE, reply, follows)
        if not written.startswith(before) or not written.endswith(after):
            return None
        return written[len(before) : len(written) - len(after)]

    def _render(self, *messages: str, system: str | None = None) -> str:
        conversation = [{"role": "system", "content": system}] if system is not None else []
        for number, content in enumerate(messages):
            conversation.append({"role": ("user", "assistant")[number % 2], "content": content})
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    conversation, tokenize=False, add_generation_prompt=True, **self._options
                )
            )
        except (TemplateError, ValueError, TypeError) as error:
            what = "a conversation" if system is None else "a system message"
            reason = " ".join(str(error).split())
            raise DialectError(f"{self._name} does not take {what} ({reason})") from error

    def _take_apart(self, system: str | None) -> Forms:
        """The forms, proved on a conversation of four messages and three replies."""
        first = self._render(MESSAGE, system=system)
        if first.count(MESSAGE) != 1:
            raise DialectError(
                f"{self._name}: expected the question once in the first prompt, "
                f"found it {first.count(MESSAGE)} times"
            )
        if system and first.count(system) != 1:
            raise DialectError(f"{self._name} drops system messages")
        asked = (MESSAGE, _REPLY, _NEXT, _REPLY, _AGAIN, _REPLY, _LAST)
        first_past, _, later = self._render(*asked[:3], system=system).partition(_REPLY)
        later_past = self._render(*asked[:5], system=system).split(_REPLY)[1:2]
        past, later = "".join(later_past).replace(_NEXT, MESSAGE), later.replace(_NEXT, MESSAGE)
        between = (past.replace(MESSAGE, m) for m in (_NEXT, _AGAIN))
        pieces = [first_past, *between, later.replace(MESSAGE, _LAST)]
        if (
            not later_past
            or MESSAGE not in later
            or (system and (first_past + later).count(system) != 1)
            or self._render(*asked, system=system) != _REPLY.join(pieces)
        ):
            raise DialectError(
                f"{self._name} is not written message by message: expected one form for the "
                "newest message and one for all earlier ones"
            )
        lead, prefill = self._before_reply(
            first.partition(MESSAGE)[2], first_past.partition(MESSAGE)[2]
        )
        return Forms(
            first,
            first_past.removesuffix(lead),
            later,
            past.removesuffix(lead),
            lead,
            prefill,
            strips_system=bool(system) and self._render(MESSAGE, system=f"\n {system} \n") == first,
        )

    def _before_reply(self, asked: str, past: str) -> tuple[str, str]:
        """(lead, prefill) from what stands after a message that is the newest, or past."""
        if past.startswith(asked):
            lead = past[len(asked) :]
            if lead.strip():
                raise DialectError(
                    f"{self._name} writes {lead!r} before a reply; "
                    "expected it at the end of the prompt"
                )
            return lead, ""
        if asked.startswith(past):
            return "", asked[len(past) :]
        raise DialectError(
            f"{self._name} ends a prompt with {asked!r} and writes {past!r} before a past reply; "
            "expected one to begin with the other"
        )
