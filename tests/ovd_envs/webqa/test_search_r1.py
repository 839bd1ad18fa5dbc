"""Search-R1's protocol: its shapes to the letter, and only the model's own message is parsed."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovd_envs.search.protocol import SearchResult
from ovd_envs.webqa.action import Action
from ovd_envs.webqa.search_r1 import PROMPT, SearchR1Protocol

PROTOCOL = SearchR1Protocol()
TAGS = re.compile(r"</?(search|answer)>")


@given(
    st.sampled_from(["search", "answer"]),
    st.text().map(str.strip).filter(lambda text: not TAGS.search(text)),
)
def test_actions_are_read_back(kind, text):
    assert PROTOCOL.parse(PROTOCOL.write(Action(kind, text))) == Action(kind, text)


@given(
    st.lists(st.sampled_from(["<search>", "</search>", "<answer>", "</answer>", "<think>", "a"]))
)
def test_the_published_pattern(parts):
    message = "".join(parts)
    found = re.search(r"<(search|answer)>(.*?)</\1>", message, re.DOTALL)
    action = PROTOCOL.parse(message)
    if found is None:
        assert action == Action("invalid", "no action found")
    else:
        assert action == Action(found[1], found[2].strip())


@pytest.mark.parametrize(
    ("message", "action"),
    [
        ("<search> a </search>", Action("search", "a")),
        ("<search>a</search><answer>b</answer>", Action("search", "a")),
        # A thought is not left out, as in the published code.
        ("<think><answer>a</answer></think><search>b</search>", Action("answer", "a")),
        ("<search></search>", Action("search", "")),
        ("<open>1</open>", Action("invalid", "no action found")),
        ("<search>a", Action("invalid", "no action found")),
        ("", Action("invalid", "no action found")),
    ],
)
def test_messages(message, action):
    assert PROTOCOL.parse(message) == action


def test_a_model_that_repeats_itself_is_read_in_no_time():
    assert PROTOCOL.parse("<search>" * 300_000).kind == "invalid"


def test_shapes():
    passages = [
        PROTOCOL.passage(number, SearchResult(str(number), title, text))
        for number, (title, text) in enumerate([("Ada", "She"), ("Tove", "He")], start=1)
    ]
    seen = PROTOCOL.observation("\n".join(passages))
    assert seen == (
        "\n\n<information>Doc 1(Title: Ada) She\nDoc 2(Title: Tove) He</information>\n\n"
    )
    assert PROTOCOL.shows(seen, "Ada")
    assert not PROTOCOL.shows(seen, "da")
    assert PROTOCOL.dialect == "inline"
    assert not PROTOCOL.warns


def test_prompt():
    assert PROTOCOL.prompt("Who {question}?").endswith("Question: Who {question}?\n")
    # It shows an answer; that it is never taken for one is shown with the environment.
    assert "<answer> Beijing </answer>" in PROMPT
    assert PROTOCOL.parse(PROTOCOL.complaint("x")).text != "Beijing"
