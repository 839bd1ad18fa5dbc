"""Actions as tool calls in JSON, the form of Hermes and Qwen.

A call is ``<tool_call>{"name": "search", "arguments": {"query": "..."}}</tool_call>``; its result
comes back as ``<tool_response>...</tool_response>`` in a user message, which is what Qwen's chat
template makes of a message of the role "tool".
"""

from __future__ import annotations

import json
import re
from typing import Any

from ovd_envs.search.protocol import SearchResult
from ovd_envs.webqa.action import Action, Kind, Protocol

#: The tools as JSON schemas: what the template's own ``tools`` argument would be given.
TOOLS: tuple[dict[str, Any], ...] = tuple(
    {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {"type": "object", "properties": properties, "required": required},
        },
    }
    for name, description, properties, required in (
        ("search", "Search for passages.", {"query": {"type": "string"}}, ["query"]),
        (
            "open",
            "Read a result by its number, or a page by its address.",
            {"target": {"type": "string"}, "page": {"type": "integer"}},
            ["target"],
        ),
        ("answer", "Answer the question in a few words.", {"text": {"type": "string"}}, ["text"]),
    )
)

PROMPT = (
    "Answer the question with these tools:\n<tools>\n"
    + "\n".join(json.dumps(tool) for tool in TOOLS)
    + '\n</tools>\nEach message is one call: <tool_call>\n{"name": ..., "arguments": {...}}\n'
    "</tool_call>\nQuestion: {question}"
)

_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)

#: The argument that holds the text of each action.
_ARGUMENT: dict[Kind, str] = {"search": "query", "open": "target", "answer": "text"}


class ToolCallProtocol(Protocol):
    """The first ``<tool_call>`` outside of a thought is the action."""

    name = "tool_calls"
    stop_strings = ("</tool_call>",)

    def __init__(self, prompt: str = PROMPT) -> None:
        self._prompt = prompt

    def prompt(self, question: str) -> str:
        """The tools, and the question."""
        return self._prompt.replace("{question}", question)

    def parse(self, message: str) -> Action:
        """The first call of ``message``."""
        found = _CALL.search(_THOUGHT.sub("", message))
        if found is None:
            return Action("invalid", "no tool call found")
        try:
            call = json.loads(found[1])
        except (ValueError, RecursionError):
            return Action("invalid", "the tool call is not valid JSON")
        name = call.get("name") if isinstance(call, dict) else None
        kind = next((kind for kind in _ARGUMENT if kind == name), None)
        if kind is None:
            return Action("invalid", f"expected a call of {', '.join(_ARGUMENT)}")
        arguments = call.get("arguments")
        if isinstance(arguments, str):  # some models write the arguments as a text of JSON
            try:
                arguments = json.loads(arguments)
            except (ValueError, RecursionError):
                arguments = None
        if not isinstance(arguments, dict):
            return Action("invalid", "'arguments': expected an object")
        text = arguments.get(_ARGUMENT[kind])
        if isinstance(text, int | float) and not isinstance(text, bool):
            text = str(text)
        if isinstance(text, str):  # JSON can spell half a surrogate pair, which nothing can write
            text = text.encode("utf-8", "replace").decode().strip()
        if not isinstance(text, str) or not text:
            return Action("invalid", f"{kind}: expected a text in {_ARGUMENT[kind]!r}")
        page = arguments.get("page", 1)
        if type(page) is not int or page < 1:
            return Action("invalid", "'page': expected a whole number of at least 1")
        return Action(kind, text, page if kind == "open" else 1)

    def write(self, action: Action) -> str:
        """The call as JSON between the tags; no tag can stand within it."""
        arguments: dict[str, Any] = {_ARGUMENT[action.kind]: action.text}
        if action.page != 1:
            arguments["page"] = action.page
        call = json.dumps({"name": action.kind, "arguments": arguments}, ensure_ascii=False)
        call = call.replace("<", "\\u003c")
        return f"<tool_call>\n{call}\n</tool_call>"

    def passage(self, number: int, result: SearchResult) -> str:
        """The number, the title, and the text below."""
        return f"[{number}] {result.title}\n{result.text}".strip()

    def shows(self, observation: str, title: str) -> bool:
        """Whether a line is a number and ``title``."""
        return f"] {title}\n" in f"{observation}\n"

    def observation(self, text: str) -> str:
        """The text as the response of a tool."""
        return f"<tool_response>\n{text}\n</tool_response>"

    def complaint(self, reason: str) -> str:
        """The reason, as the response of a tool."""
        return self.observation(f"Error: {reason}.")
