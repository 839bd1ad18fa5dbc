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
_OPEN_TAG = re.compile(r"<(search|open|answer)>")
_NUMBERS = re.compile(r"(\d{1,6})[\s,]+(\d{1,6})")


class TagProtocol(Protocol):
    """The first ``<search>``, ``<open>`` or ``<answer>`` outside of a thought is the action.

    ``<open>2 3</open>`` or ``<open>2 page 3</open>`` asks for the third part of result 2; after a
    title or an address only "page 3" does, for titles may end in a number.
    """

    name = "tags"
    stop_strings = ("</search>", "</open>", "</answer>")

    def __init__(self, prompt: str = PROMPT) -> None:
        self._prompt = prompt

    def prompt(self, question: str) -> str:
        """How to act, and the question."""
        return self._prompt.replace("{question}", question)

    def parse(self, message: str) -> Action:
        """The first action of ``message``."""
        spoken = _THOUGHT.sub("", message)
        found = first_tag(spoken, "search", "open", "answer")
        if found is None:
            unclosed = _OPEN_TAG.search(spoken)
            if unclosed is not None:
                return Action("invalid", f"<{unclosed[1]}> has no </{unclosed[1]}>")
            return Action("invalid", "no action found")
        kind, text = found[0], found[1].strip()
        if not text:
            return Action("invalid", f"<{kind}></{kind}> is empty")
        if kind == "open":
            return read_target(text)
        return Action("search" if kind == "search" else "answer", text)

    def write(self, action: Action) -> str:
        """``<kind>text</kind>``."""
        text = action.text
        if action.kind == "open" and read_target(text) != action:
            text = f"{text} page {action.page}"
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


def first_tag(text: str, *kinds: str) -> tuple[str, str] | None:
    """The kind and the text of the first tag that is closed, such as ``<search>words</search>``.

    What the pattern ``<(search|answer)>(.*?)</\\1>`` finds, in time linear in ``text``: models
    that repeat an opening tag for thousands of tokens are common.
    """
    unclosed: set[str] = set()
    for opening in re.finditer(f"<({'|'.join(kinds)})>", text):
        kind = opening[1]
        if kind not in unclosed:
            end = text.find(f"</{kind}>", opening.end())
            if end >= 0:
                return kind, text[opening.end() : end]
            unclosed.add(kind)
    return None


def read_target(text: str) -> Action:
    """The action that opens ``text``: a target, and perhaps the number of a part after it."""
    words = text.rsplit(maxsplit=2)
    if numbers := _NUMBERS.fullmatch(text):
        target, page = numbers.groups()
    elif len(words) == 3 and words[1].casefold() == "page" and re.fullmatch(r"\d{1,6}", words[2]):
        target, page = words[0].rstrip(","), words[2]
    else:
        return Action("open", text)
    if int(page) < 1:
        return Action("invalid", "pages are counted from 1")
    return Action("open", target, int(page))
