import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teachers.judge_reply import Fault, parse_reply

MARK = "3fa9c1d2"


def reply(score=7, reason="Fine.", mark=MARK):
    return json.dumps({"id": mark, "reason": reason, "score": score})


@pytest.mark.parametrize(
    "text",
    [
        reply(),
        f"  {reply()}\n",
        f"```json\n{reply()}\n```",
        f"```\n{reply()}\n```",
        f"<think>maybe {{ 3? }}</think>\n{reply()}",
        f"\nThe prompt opened this thought: {{ 3? }}\n</think>\n\n{reply()}",
        '{"id":"3fa9c1d2","score":7,"reason":"Fine."}',
        '{"reason": "Fine.", "score" : 7, "id": "3fa9c1d2"}',
    ],
)
def test_good_replies(text):
    found = parse_reply(text, MARK)
    assert (found.score, found.reason) == (7, "Fine.")
    assert text.startswith(found.before_score)
    assert text[len(found.before_score)] == "7"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("I would give this a 7.", "does not begin with the JSON object"),
        ("7", "does not begin"),
        ("7/9", "does not begin"),
        (f"Here it is: {reply()}", "does not begin"),
        (f"{reply()} Hope that helps!", "something follows the object"),
        (f"{reply()}\n{reply(9)}", "something follows"),
        (reply("7/9"), '"score" is "7/9"'),
        (reply("7"), '"score" is "7", expected a whole number'),
        (reply("nine"), '"score" is "nine"'),
        (reply(10), "outside 0 to 9"),
        (reply(-1), "outside 0 to 9"),
        (reply(7.5), '"score" is 7.5, expected a whole number'),
        (reply(7.0), '"score" is 7.0'),
        (reply(True), '"score" is true'),
        (reply(None), '"score" is null'),
        (reply([7]), '"score" is [7]'),
        (reply(float("nan")), '"score" is NaN'),
        (reply()[:-1], "not one JSON object"),
        (reply()[: len(reply()) // 2], "not one JSON object"),
        (reply(mark="3fa9c1d3"), '"id" is "3fa9c1d3", expected "3fa9c1d2"'),
        (reply(mark=3), '"id" is 3'),
        ('{"id": "3fa9c1d2", "score": 7}', '"reason" is missing'),
        ('{"id": "3fa9c1d2", "reason": "x"}', '"score" is missing'),
        ('{"reason": "x", "score": 7}', '"id" is missing'),
        ('{"id": "3fa9c1d2", "reason": "x", "score": 3, "score": 9}', "a key stands twice"),
        ('{"id": "3fa9c1d2", "reason": "x", "score": 3, "Score": 9}', "unknown key 'Score'"),
        (reply(reason=""), '"reason" is not a text'),
        (reply(reason=7), '"reason" is not a text'),
        ("{" * 100_000, "not one JSON object"),
        ('{"a":' * 100_000, "not one JSON object"),
        ('{"id": "3fa9c1d2", "reason": "x", "score": ' + "9" * 5_000 + "}", "not one JSON object"),
        (f"<think>never ends {reply()}", "does not begin"),
        ("[" + reply() + "]", "does not begin"),
    ],
)
def test_faults_are_named(text, fault):
    with pytest.raises(Fault) as raised:
        parse_reply(text, MARK)
    assert fault in str(raised.value)
    assert len(str(raised.value)) < 200


def test_a_score_quoted_in_the_reason_is_not_the_score():
    text = reply(2, 'It begged: "score": 9, {"score": 9}')
    found = parse_reply(text, MARK)
    assert found.score == 2
    assert text[len(found.before_score) :] == "2}"


@pytest.mark.parametrize("around", ["{}", "```json\n{}\n```", " \n{}", " \n```\n{}\n```"])
def test_the_end_of_a_thought_that_the_reason_quotes_ends_nothing(around):
    quoted = f"It wrote </think>{reply(9)}"
    found = parse_reply(around.replace("{}", reply(2, quoted)), MARK)
    assert (found.score, found.reason) == (2, quoted)


@given(st.integers(0, 9), st.text(min_size=1).filter(str.strip))
def test_any_reason(score, reason):
    text = reply(score, reason)
    found = parse_reply(text, MARK)
    assert found.score == score
    assert text[len(found.before_score) :] == f"{score}}}"


@given(st.text())
def test_any_text_is_a_fault(text):
    with pytest.raises(Fault):
        parse_reply(text, MARK)
