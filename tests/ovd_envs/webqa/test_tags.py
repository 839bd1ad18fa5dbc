"""Actions as tags: what is written is read back, the first one counts, thoughts do not."""

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ovd_envs.search.protocol import SearchResult
from ovd_envs.webqa.action import Action
from ovd_envs.webqa.tags import PROMPT, TagProtocol, first_tag, read_target

PROTOCOL = TagProtocol()
TAGS = re.compile(r"</?(think|search|open|answer)>")
TEXTS = st.text(min_size=1).map(str.strip).filter(bool).filter(lambda text: not TAGS.search(text))
#: Much that looks like a message, little that is one.
MESSAGES = st.lists(
    st.sampled_from(
        [
            *(f"<{mark}{kind}>" for kind in ("think", "search", "open", "answer") for mark in "/ "),
            *(f"<{kind}>" for kind in ("think", "search", "open", "answer")),
            "1",
            " ",
            "2 page 3",
            "x",
            "\n",
            "<",
            ">",
        ]
    )
).map("".join)


@given(st.sampled_from(["search", "answer"]), TEXTS)
def test_searches_and_answers_are_read_back(kind, text):
    assert PROTOCOL.parse(PROTOCOL.write(Action(kind, text))) == Action(kind, text)


@given(TEXTS, st.integers(1, 999_999))
def test_pages_are_read_back(target, page):
    assume(not target.endswith(","))
    action = Action("open", target, page)
    assert PROTOCOL.parse(PROTOCOL.write(action)) == action


@pytest.mark.parametrize(
    ("text", "target", "page"),
    [
        ("2", "2", 1),
        ("2 3", "2", 3),
        ("2,3", "2", 3),
        ("2, page 3", "2", 3),
        ("2 Page 3", "2", 3),
        ("http://a.example/b page 12", "http://a.example/b", 12),
        # Titles that end in a number.
        ("World War 2", "World War 2", 1),
        ("Apollo 11", "Apollo 11", 1),
        ("Apollo 11 page 2", "Apollo 11", 2),
        ("page 3", "page 3", 1),
        ("2 page 1234567", "2 page 1234567", 1),
    ],
)
def test_targets(text, target, page):
    assert PROTOCOL.parse(f"<open> {text} </open>") == Action("open", target, page)


@pytest.mark.parametrize("text", ["2 0", "2 page 0", "Apollo 11 page 00"])
def test_there_is_no_page_0(text):
    assert read_target(text) == Action("invalid", "pages are counted from 1")


@pytest.mark.parametrize(
    ("message", "action"),
    [
        ("<search>a</search><answer>b</answer>", Action("search", "a")),
        ("<answer>b</answer><search>a</search>", Action("answer", "b")),
        ("<search>a<answer>b</answer></search>", Action("search", "a<answer>b</answer>")),
        ("<search>a<answer>b</answer>", Action("answer", "b")),
        ("well <answer>\n b c \n</answer> so", Action("answer", "b c")),
        # What is thought is not said.
        ("<think><answer>a</answer></think><search>b</search>", Action("search", "b")),
        ("<think>1</think><think><answer>a</answer></think><open>1</open>", Action("open", "1")),
        ("<answer>b</answer><think><search>a</search></think>", Action("answer", "b")),
        ("<think>so <answer>a</answer>", Action("invalid", "no action found")),
        # No action.
        ("", Action("invalid", "no action found")),
        ("Paris", Action("invalid", "no action found")),
        ("</answer>a<answer>", Action("invalid", "<answer> has no </answer>")),
        ("<search>a", Action("invalid", "<search> has no </search>")),
        ("<search>a</answer>", Action("invalid", "<search> has no </search>")),
        ("<search> \n</search><answer>a</answer>", Action("invalid", "<search></search> is empty")),
        ("<open></open>", Action("invalid", "<open></open> is empty")),
        ("<ANSWER>a</ANSWER>", Action("invalid", "no action found")),
        ("< answer>a</answer>", Action("invalid", "no action found")),
        ("‹answer›a‹/answer›", Action("invalid", "no action found")),
    ],
)
def test_messages(message, action):
    assert PROTOCOL.parse(message) == action


@given(MESSAGES)
def test_any_message_is_read(message):
    action = PROTOCOL.parse(message)
    assert action.kind in ("search", "open", "answer", "invalid")
    assert action.text.strip() == action.text != ""


@given(MESSAGES)
def test_the_first_tag_is_what_the_published_pattern_finds(message):
    found = re.search(r"<(search|answer)>(.*?)</\1>", message, re.DOTALL)
    expected = None if found is None else (found[1], found[2])
    assert first_tag(message, "search", "answer") == expected


def test_a_model_that_repeats_itself_is_read_in_no_time():
    """A quadratic search would take hours."""
    for text in ("<search>", "<think>", "<search></answer><open>", "</think>"):
        assert PROTOCOL.parse(text * 300_000).kind == "invalid"
    blanks = " " * 1_000_000
    assert PROTOCOL.parse(f"<open>a{blanks}b</open>").kind == "open"
    assert PROTOCOL.parse(f"<open>1{blanks}b</open>").kind == "open"


def test_prompt():
    assert PROTOCOL.prompt("Who {question}?").endswith("Question: Who {question}?")
    assert TagProtocol("{question}!").prompt("Who") == "Who!"
    assert "{question}" in PROMPT


def test_passages():
    result = SearchResult("7", "Ada", "She repairs clocks.")
    text = PROTOCOL.passage(2, result)
    assert text == "[2] Ada\nShe repairs clocks."
    assert PROTOCOL.passage(1, SearchResult("7", "Ada", "")) == "[1] Ada"
    assert PROTOCOL.shows(PROTOCOL.observation(text), "Ada")
    assert not PROTOCOL.shows(PROTOCOL.observation(text), "Ad")
    assert not PROTOCOL.shows(PROTOCOL.observation(text), "She repairs clocks.")
    assert PROTOCOL.complaint("no action found").startswith("No action found. Write <search>")
