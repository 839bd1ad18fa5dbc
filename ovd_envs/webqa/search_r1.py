"""Search-R1's protocol (arXiv 2503.09516): its tags, its passages, its limits.

The conversation is one user turn; what follows is a single text of the assistant, in which the
environment's ``<information>`` blocks stand between what the model writes. The words of the prompt
are our own: who runs a published checkpoint gives its text by ``prompt_file``.
"""

from __future__ import annotations

from ovd_envs.search.protocol import SearchResult
from ovd_envs.webqa.action import Action, Protocol
from ovd_envs.webqa.tags import first_tag

PROMPT = """\
Answer the question below. Whenever new information has come, reason about it first between \
<think> and </think>. If you lack knowledge, ask the search engine with <search> query </search>; \
what it finds comes back between <information> and </information>. You may search as often as you \
need. When nothing is missing any more, give the answer itself, without explanation, between \
<answer> and </answer>, for example <answer> Beijing </answer>. Question: {question}
"""


class SearchR1Protocol(Protocol):
    """The first ``<search>`` or ``<answer>`` of a message, wherever it stands; no pages to open."""

    name = "search-r1"
    dialect = "inline"
    stop_strings = ("</search>", "</answer>")
    warns = False

    def __init__(self, prompt: str = PROMPT) -> None:
        self._prompt = prompt

    def prompt(self, question: str) -> str:
        """How to act, and the question."""
        return self._prompt.replace("{question}", question)

    def parse(self, message: str) -> Action:
        """The first action of ``message``."""
        found = first_tag(message, "search", "answer")
        if found is None:
            return Action("invalid", "no action found")
        return Action("search" if found[0] == "search" else "answer", found[1].strip())

    def write(self, action: Action) -> str:
        """``<kind> text </kind>``."""
        return f"<{action.kind}> {action.text} </{action.kind}>"

    def passage(self, number: int, result: SearchResult) -> str:
        """``Doc 1(Title: title) text``."""
        return f"Doc {number}(Title: {result.title}) {result.text}"

    def shows(self, observation: str, title: str) -> bool:
        """Whether a passage begins with this title."""
        return f"(Title: {title}) " in observation

    def observation(self, text: str) -> str:
        """The text in an information block, with blank lines around it."""
        return f"\n\n<information>{text.strip()}</information>\n\n"

    def complaint(self, reason: str) -> str:
        """What to write, said by the model itself, for the text goes on as its own."""
        return (
            "\nThat was not a valid action. To search I put the query between <search> and "
            "</search>; to answer I put the answer between <answer> and </answer>. "
            "I try again.\n"
        )
