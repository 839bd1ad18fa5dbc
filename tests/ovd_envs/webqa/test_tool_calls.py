"""Actions as tool calls: any text is read back, and whatever JSON comes is answered."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovd_envs.search.protocol import SearchResult
from ovd_envs.webqa.action import Action
from ovd_envs.webqa.tool_calls import TOOLS, ToolCallProtocol

PROTOCOL = ToolCallProtocol()
TEXTS = st.text() | st.lists(
    st.sampled_from(["</tool_call>", "<tool_call>", "<think>", "</think>", "<", '"', "\\", "a"])
).map("".join)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def call(name="search", arguments=None, **more):
    text = json.dumps({"name": name, "arguments": arguments, **more})
    return f"<tool_call>\n{text}\n</tool_call>"


@given(
    st.sampled_from(["search", "answer"]),
    TEXTS.map(str.strip).filter(bool),
)
def test_any_text_is_read_back(kind, text):
    assert PROTOCOL.parse(PROTOCOL.write(Action(kind, text))) == Action(kind, text)


@given(TEXTS.map(str.strip).filter(bool), st.integers(1))
def test_pages_are_read_back(target, page):
    action = Action("open", target, page)
    assert PROTOCOL.parse(PROTOCOL.write(action)) == action


@given(JSON, JSON)
def test_any_json_is_read(name, arguments):
    for message in (call(name, arguments), call("open", arguments), call(name)):
        assert PROTOCOL.parse(message).kind in ("search", "open", "answer", "invalid")


@given(st.text())
def test_any_text_is_read(text):
    assert PROTOCOL.parse(f"<tool_call>{text}</tool_call>").kind == "invalid"


@pytest.mark.parametrize(
    ("message", "action"),
    [
        (call(arguments={"query": " a "}), Action("search", "a")),
        (call("open", {"target": 2}), Action("open", "2")),
        (call("open", {"target": "2", "page": 3}), Action("open", "2", 3)),
        (call("answer", {"text": 1924}), Action("answer", "1924")),
        (call("search", '{"query": "a"}'), Action("search", "a")),
        ('<tool_call>{"name": "answer", "arguments": {"text": "a"}}', Action("answer", "a")),
        # The first call counts, and no thought.
        (call(arguments={"query": "a"}) + call("answer", {"text": "b"}), Action("search", "a")),
        (
            f"<think>{call('answer', {'text': 'b'})}</think>{call(arguments={'query': 'a'})}",
            Action("search", "a"),
        ),
        ("<think>" + call("answer", {"text": "b"}), Action("invalid", "no tool call found")),
        (
            "<tool_call>no</tool_call>" + call("answer", {"text": "b"}),
            Action("invalid", "the tool call is not valid JSON"),
        ),
        # Tags are not this protocol's.
        ("<answer>a</answer>", Action("invalid", "no tool call found")),
        ("", Action("invalid", "no tool call found")),
        ("<tool_call></tool_call>", Action("invalid", "the tool call is not valid JSON")),
        ("<tool_call>", Action("invalid", "the tool call is not valid JSON")),
        (
            "<tool_call>[1]</tool_call>",
            Action("invalid", "expected a call of search, open, answer"),
        ),
        (
            call("find", {"query": "a"}),
            Action("invalid", "expected a call of search, open, answer"),
        ),
        (call([], {"query": "a"}), Action("invalid", "expected a call of search, open, answer")),
        (call({}, {"query": "a"}), Action("invalid", "expected a call of search, open, answer")),
        (call(), Action("invalid", "'arguments': expected an object")),
        (call("search", "a"), Action("invalid", "'arguments': expected an object")),
        (call("search", "[" * 100_000), Action("invalid", "'arguments': expected an object")),
        (call("search", {}), Action("invalid", "search: expected a text in 'query'")),
        (call("search", {"query": " "}), Action("invalid", "search: expected a text in 'query'")),
        (call("search", {"query": True}), Action("invalid", "search: expected a text in 'query'")),
        (
            call("open", {"target": "1", "page": 0}),
            Action("invalid", "'page': expected a whole number of at least 1"),
        ),
        (
            call("open", {"target": "1", "page": "2"}),
            Action("invalid", "'page': expected a whole number of at least 1"),
        ),
    ],
)
def test_messages(message, action):
    assert PROTOCOL.parse(message) == action


@pytest.mark.parametrize(
    "text", ["[" * 200_000, '{"a":' * 200_000, "9" * 100_000, "<tool_call>" * 99]
)
def test_deep_and_long_json_is_answered(text):
    assert PROTOCOL.parse(f"<tool_call>{text}</tool_call>").kind == "invalid"
    assert PROTOCOL.parse(f"<tool_call>{text}").kind == "invalid"


def test_half_a_surrogate_pair_becomes_a_text_that_can_be_written():
    message = '<tool_call>{"name": "search", "arguments": {"query": "a \\ud83d"}}</tool_call>'
    assert PROTOCOL.parse(message) == Action("search", "a ?")


def test_a_call_is_plain_json():
    message = PROTOCOL.write(Action("open", "</tool_call> é", 2))
    inner = message.removeprefix("<tool_call>\n").removesuffix("\n</tool_call>")
    assert "<" not in inner
    assert json.loads(inner) == {
        "name": "open",
        "arguments": {"target": "</tool_call> é", "page": 2},
    }


def test_prompt_names_every_tool():
    prompt = PROTOCOL.prompt("Who {question}?")
    assert prompt.endswith("Question: Who {question}?")
    for tool in TOOLS:
        assert json.dumps(tool) in prompt


def test_observations():
    text = PROTOCOL.passage(2, SearchResult("7", "Ada", "She repairs clocks."))
    seen = PROTOCOL.observation(text)
    assert seen == "<tool_response>\n[2] Ada\nShe repairs clocks.\n</tool_response>"
    assert PROTOCOL.shows(seen, "Ada")
    assert not PROTOCOL.shows(seen, "da")
    assert PROTOCOL.complaint("no") == "<tool_response>\nError: no.\n</tool_response>"
