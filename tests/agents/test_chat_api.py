"""How the JSON of a chat API is read; tests/teachers/test_faults.py has the calls themselves."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.chat_api import ChatReply, _PassingError, _read

TOKEN = {
    "token": "é7",
    "logprob": -0.5,
    "bytes": [195, 169, 55],
    "top_logprobs": [{"token": "é7", "logprob": -0.5}, {"token": "8", "logprob": -1}],
}


def answer(**changes):
    choice = {
        "message": {"role": "assistant", "content": "é7"},
        "finish_reason": "stop",
        "logprobs": {"content": [TOKEN]},
    }
    usage = {"prompt_tokens": 3, "completion_tokens": 1}
    return {"choices": [{**choice, **changes}], "usage": changes.get("usage", usage)}


def test_a_reply():
    tokens = [("é7".encode(), [("é7", -0.5), ("8", -1)])]
    assert _read(answer()) == ChatReply("é7", "end_of_turn", 3, 1, tokens)
    without = {**TOKEN, "bytes": None}
    assert _read(answer(logprobs={"content": [without]})).tokens == tokens
    assert _read(answer(finish_reason="length")).stop == "length"


def test_json_that_is_sent_as_another_kind_of_text():
    assert _read(json.dumps(answer())) == _read(answer())
    with pytest.raises(_PassingError, match="no chat completion"):
        _read("<html>busy</html>")


@pytest.mark.parametrize("usage", [None, {}, 3, {"prompt_tokens": "3", "completion_tokens": True}])
def test_what_is_charged_is_a_whole_number_or_not_said(usage):
    reply = _read(answer(usage=usage))
    assert (reply.prompt_tokens, reply.completion_tokens) == (None, None)


@pytest.mark.parametrize(
    "token",
    [
        None,
        {**TOKEN, "bytes": [300]},
        {**TOKEN, "bytes": 10**15},
        {**TOKEN, "token": None, "bytes": None},
        {**TOKEN, "top_logprobs": [{"token": "7"}]},
        {**TOKEN, "top_logprobs": [{"token": "7", "logprob": None}]},
        {**TOKEN, "top_logprobs": [{"token": "7", "logprob": 10**400}]},
        {**TOKEN, "top_logprobs": [{"token": None, "logprob": -1.0}]},
    ],
)
def test_log_probabilities_that_cannot_be_read_are_none(token):
    reply = _read(answer(logprobs={"content": [TOKEN, token]}))
    assert (reply.text, reply.tokens) == ("é7", [])


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
NAMES = ["message", "content", "finish_reason", "logprobs", "bytes", "token", "top_logprobs"]
NEARLY = st.recursive(
    ANY_JSON,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from([*NAMES, "choices", "usage"]), inner, max_size=4)
    ),
)


PLACES = st.sampled_from(["message", "logprobs", "usage", "finish_reason"])


@given(NEARLY | st.builds(lambda name, held: answer(**{name: held}), PLACES, NEARLY))
def test_any_json_is_a_reply_or_none(held):
    try:
        reply = _read(held)
    except _PassingError:
        return
    assert isinstance(reply.text, str)
    for token, alternatives in reply.tokens:
        assert isinstance(token, bytes)
        assert all(isinstance(other, str) for other, _ in alternatives)
        assert all(isinstance(logprob, float | int) for _, logprob in alternatives)
