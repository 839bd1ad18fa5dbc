"""Actions as tags in text: ``<search>``, ``<open>``, ``<answer>``, with ``<think>`` before them."""

from __future__ import annotations

import re

from ovd_envs.search.protocol import SearchResult
from ovd_envs.webqa.action import Action, Protocol

PROMPT = """\
Answer the question. Each message is one action:
<search>words</search> to search,
<open>number of a result, or an address</open> to read a page,
<answer>a few words</answer> to answer.
You may think in <think></think> first.
Question: {question}"""

_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_ACTION = re.compile(r"<(search|open|answer)>(.*?)</\1>", re.DOTALL)
_OPEN_TAG = re.compile(r"<(search|open|answer)>")
_PAGE = re.compile(r"(.+?)[\s,]+(?:page\s+)?(\d{1,6})", re.DOTALL)


class TagProtocol(Protocol):
    """The first ``<search>``, ``<open>`` or ``<answer>`` outside of a thought is the action.

    ``<open>2 3</open>`` or ``<open>2 page 3</open>`` asks for the third part of result 2.
    """

    name = "tags"

    def __init__(self, prompt: str = PROMPT) -> None:
        self._prompt = prompt

    def prompt(self, question: str) -> str:
        """How to act, and the question."""
        return self._prompt.replace("{question}", question)

    def parse(self, message: str) -> Action:
        """The first action of ``message``."""
        spoken = _THOUGHT.sub("", message)
        found = _ACTION.search(spoken)
        if found is None:
            unclosed = _OPEN_TAG.search(spoken)
            if unclosed is not None:
                return Action("invalid", f"<{unclosed[1]}> has no </{unclosed[1]}>")
            return Action("invalid", "no action found")
        kind, text = found[1], found[2].strip()
        if not text:
            return Action("invalid", f"<{kind}></{kind}> is empty")
        if kind == "open":
            return read_target(text)
        return Action("search" if kind == "search" else "answer", text)

    def write(self, action: Action) -> str:
        """``<kind>text</kind>``."""
        text = f"{action.text} page {action.page}" if action.page != 1 else action.text
        return f"<{action.kind}>{text}</{action.kind}>"

    def passage(self, number: int, result: SearchResult) -> str:
        """The number, the title, and the text below."""
        return f"[{number}] {result.title}\n{result.text}".strip()

    def shows(self, observation: str, title: str) -> bool:
        """Whether a line is a number and ``title``."""
        return f"] {title}\n" in f"{observation}\n"

    def observation(self, text: str) -> str:
        """The text as it is."""
        return text

    def complaint(self, reason: str) -> str:
        """The reason, and what to write."""
        return (
            f"{reason[:1].upper()}{reason[1:]}. Write <search>words</search>, "
            "<open>number</open> or <answer>a few words</answer>."
        )


def read_target(text: str) -> Action:
    """The action that opens ``text``: a target, and perhaps the number of a part after it."""
    found = _PAGE.fullmatch(text)
    if found is None:
        return Action("open", text)
    page = int(found[2])
    if page < 1:
        return Action("invalid", "pages are counted from 1")
    return Action("open", found[1].strip(), page)
