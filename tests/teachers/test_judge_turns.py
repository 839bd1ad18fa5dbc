"""``score_level: turn`` of the judge on a model: scores by turn number, never by place."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.protocol import Capabilities
from teachers import LLMJudge, make_judge, score
from teachers.judge_prompt import Prompting
from teachers.judge_reply import Fault, parse_reply
from teachers.shortening import Room
from tests.teachers.conftest import ScriptedBackend, make_episode
from tests.teachers.fault_server import COMPLETION_TOKENS, PROMPT_TOKENS, FaultServer

MARK = "3fa9c1d2"
TWO = {"1": 7, "2": 3}


def reply(turns, mark=MARK, score=5):
    return json.dumps({"id": mark, "reason": "Fine.", "turns": turns, "score": score})


def mark_of(prompt):
    return re.findall(r'"id": "([0-9a-f]{8})"', prompt)[-1]


@pytest.fixture(params=["backend", "api"])
def judged(request):
    """Judge episodes of three turns by replies whose "turns" a function writes."""
    servers = []

    def judge(write, *episodes, **options):
        options["score_level"] = "turn"
        if request.param == "backend":
            backend = ScriptedBackend(lambda prompt: write(mark_of(prompt), prompt))
            return score(LLMJudge(backend, **options), episodes), backend.requests
        server = FaultServer(good=lambda mark, message: write(mark, message), scripts={}).start()
        servers.append(server)
        made = make_judge("llm", model="m", backend=f"openai:{server.url}", **options)
        return score(made, episodes), server.bodies

    yield judge
    for server in servers:
        server.stop()


def three(*actions, **fields):
    return make_episode(*(actions or ("look", "think", "95")), observations=["a", "b"], **fields)


def test_each_turn_has_the_score_under_its_number(judged):
    [verdict], asked = judged(lambda mark, _: reply({"3": 0, "1": 9, "2": None}, mark), three())
    assert verdict.turns == (9, None, 0)
    assert (verdict.score, verdict.reason) == (5, "Fine.")
    assert len(asked) == 1  # all in one reply


FAULTS = {
    "missing": ({"1": 7, "2": 3}, 'number "3" is missing'),
    "one more": ({"1": 7, "2": 3, "3": 1, "4": 9}, "there is no number '4', expected 1 to 3"),
    "from zero": ({"0": 7, "1": 3, "2": 1}, 'number "3" is missing'),
    "by place": ([7, 3, 1], '"turns" is [7, 3, 1], expected an object'),
    "ten": ({"1": 7, "2": 10, "3": 1}, 'number "2", is 10, outside 0 to 9'),
    "minus": ({"1": -1, "2": 1, "3": 1}, 'number "1", is -1'),
    "half": ({"1": 7.5, "2": 1, "3": 1}, 'number "1", is 7.5, expected a whole number'),
    "a word": ({"1": "seven", "2": 1, "3": 1}, "expected a whole number"),
    "true": ({"1": True, "2": 1, "3": 1}, "expected a whole number"),
    "written otherwise": ({"01": 7, "2": 1, "3": 1}, 'number "1" is missing'),
    "nothing": (None, '"turns" is null'),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_told_once_and_then_an_error_without_any_score(name, judged):
    turns, told = FAULTS[name]
    prompts = []

    def write(mark, prompt):
        prompts.append(prompt)
        return reply(turns, mark)

    [verdict], asked = judged(write, three())
    assert (verdict.score, verdict.turns) == (None, None)
    assert told in verdict.error
    assert "; the reply was: " in verdict.error
    assert len(asked) == 2


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_mended_counts(name, judged):
    replies = [FAULTS[name][0], {"1": 1, "2": 2, "3": 3}]
    [verdict], asked = judged(lambda mark, _: reply(replies.pop(0), mark), three())
    assert verdict.turns == (1, 2, 3)
    assert len(asked) == 2


def test_a_number_that_stands_twice_is_a_fault():
    text = reply(TWO).replace('"2": 3', '"1": 3, "2": 3')
    with pytest.raises(Fault, match="a key stands twice"):
        parse_reply(text, MARK, 2)
    with pytest.raises(Fault, match='"turns" is missing'):
        parse_reply(reply(TWO).replace('"turns"', '"turn"'), MARK, 2)
    with pytest.raises(Fault, match="unknown key 'turns'"):
        parse_reply(reply(TWO), MARK)


@given(st.permutations(range(1, 8)), st.lists(st.none() | st.integers(0, 9), min_size=7))
def test_the_order_in_which_they_stand_means_nothing(order, scores):
    told = {str(number): scores[number - 1] for number in order}
    assert parse_reply(reply(told), MARK, 7).turns == tuple(scores[:7])


@given(st.dictionaries(st.text(max_size=3) | st.integers(0, 5).map(str), st.integers(-1, 11)))
def test_any_object_that_is_not_each_number_once_is_a_fault(turns):
    good = set(turns) == {"1", "2", "3"} and all(0 <= v <= 9 for v in turns.values())
    if good:
        assert parse_reply(reply(turns), MARK, 3).turns == tuple(turns[n] for n in "123")
    else:
        with pytest.raises(Fault):
            parse_reply(reply(turns), MARK, 3)


def test_the_place_of_the_score_is_that_of_the_whole():
    text = reply({"1": 8, "2": 9}, score=4)
    found = parse_reply(text, MARK, 2)
    assert text[len(found.before_score) :] == "4}"


def test_the_schema_holds_each_number():
    asked = Prompting("Be fair.", score_level="turn").ask(three(), Room(9_000))
    turns = asked.schema["properties"]["turns"]
    assert list(turns["properties"]) == turns["required"] == ["1", "2", "3"]
    assert turns["additionalProperties"] is False
    assert turns["properties"]["2"]["enum"] == [*range(10), None]
    assert '"turns": {"1": N, "2": N, "3": N}' in asked.message
    assert "Score each message of the model too" in asked.system
    plain = Prompting("Be fair.").ask(three(), Room(9_000))
    assert "turns" not in plain.schema["properties"]
    assert "Score each message" not in plain.system
    assert asked.max_tokens > plain.max_tokens


def test_a_backend_that_knows_schemas_gets_it():
    backend = ScriptedBackend(lambda prompt: reply({"1": 1, "2": 2, "3": 3}, mark_of(prompt)))
    backend.capabilities = Capabilities(token_ids=True, logprobs=True, schema=True)
    score(LLMJudge(backend, score_level="turn"), [three()])
    assert "turns" in backend.requests[0].schema["properties"]


def test_episodes_of_different_lengths_and_of_none(judged):
    episodes = [make_episode(*["x"] * n, index=n) for n in (1, 3, 0)]

    def by_prompt(mark, prompt):
        count = len(re.findall(r"message \d+ of the model ---", prompt))
        return reply({str(n): n for n in range(1, count + 1)}, mark)

    verdicts, _ = judged(by_prompt, *episodes)
    assert [verdict.turns for verdict in verdicts] == [(1,), (1, 2, 3), None]


def test_tokens_of_both_replies_add_up(judged):
    replies = [None, {"1": 1, "2": 2, "3": 3}]
    [verdict], asked = judged(lambda mark, _: reply(replies.pop(0), mark), three())
    if isinstance(asked[0], dict):
        assert verdict.prompt_tokens == 2 * PROMPT_TOKENS
        assert verdict.completion_tokens == 2 * COMPLETION_TOKENS
    else:
        assert verdict.prompt_tokens == sum(len(request.ids) for request in asked)


def test_training_takes_it_for_suffix_replacement():
    judge = LLMJudge(ScriptedBackend(lambda prompt: ""), score_level="turn")
    assert judge.score_level == "turn"
    assert LLMJudge(ScriptedBackend(lambda prompt: "")).score_level == "episode"
