"""``group: true``: a group in one call, each score found by an id that no episode can write."""

import json
import random
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.episode import write_episodes
from agents.protocol import Capabilities
from ovd_envs.task import Task
from teachers import (
    JudgeStopError,
    LLMJudge,
    Verdict,
    VerdictCache,
    make_judge,
    read_verdicts,
    score,
)
from teachers.ensemble import EnsembleJudge
from teachers.group_judging import GroupJudging
from teachers.judge_prompt import Prompting
from teachers.reliability_run import order_effect
from teachers.score_file import score_file
from teachers.shortening import Room
from tests.teachers.conftest import ScriptedBackend, make_episode
from tests.teachers.fault_server import COMPLETION_TOKENS, PROMPT_TOKENS, FaultServer

_LINE = re.compile(
    r"^--- ([0-9a-f]{8}) episode ([0-9a-f]{8}): message \d+ of the model ---\n(.*)$", re.M
)


def read(prompt):
    """(mark, {id: what the episode says last}), as a judge reads it: by the lines of structure."""
    mark = re.findall(r'{"id": "([0-9a-f]{8})"', prompt)[-1]
    return mark, {name: text for m, name, text in _LINE.findall(prompt) if m == mark}


def entry(number, reason="Sound."):
    return {"reason": reason, "score": number}


def reply(mark, entries):
    return json.dumps({"id": mark, "episodes": entries})


def fair(mark, said):
    """Each scores what it says; in any order but theirs."""
    entries = [(name, entry(int(text[-1]), f"says {text}")) for name, text in said.items()]
    random.Random(mark).shuffle(entries)
    return reply(mark, dict(entries))


class Model(ScriptedBackend):
    """Replies by ``write(mark, said)``; ``name`` as a real one's."""

    def __init__(self, write=fair):
        super().__init__(lambda prompt: write(*read(prompt)))


def group_of(*digits, task=0, group="0", **fields):
    made = []
    for index, digit in enumerate(digits):
        one = make_episode(f"I say {digit}", index=index, group=group, **fields)
        one.task = Task(f"t/{task}", f"question {task}", ("95",))
        made.append(one)
    return made


@pytest.fixture(params=["backend", "api"])
def make(request):
    """(judge, questions asked so far) for a way to reply."""
    servers = []

    def start(write=fair, **options):
        options["group"] = True
        if request.param == "backend":
            backend = Model(write)
            return LLMJudge(backend, **options), backend.requests
        good = lambda mark, message: write(*read(message))  # noqa: E731
        servers.append(FaultServer(good=good).start())
        options = {"base_wait": 0.02, **options}
        options.pop("batch_size", None)
        made = make_judge("llm", model="m", backend=f"openai:{servers[-1].url}", **options)
        return made, servers[-1].bodies

    yield start
    for server in servers:
        server.stop()


def test_a_group_is_asked_for_once_and_matched_by_id(make):
    judge, asked = make()
    episodes = group_of(3, 9, 0, 7)
    verdicts = score(judge, episodes)
    assert [v.episode for v in verdicts] == [e.id for e in episodes]
    assert [v.score for v in verdicts] == [3, 9, 0, 7]
    assert [v.reason for v in verdicts] == [f"says I say {n}" for n in (3, 9, 0, 7)]
    assert len(asked) == 1
    if isinstance(asked[0], dict):
        assert sum(v.prompt_tokens for v in verdicts) == PROMPT_TOKENS
        assert sum(v.completion_tokens for v in verdicts) == COMPLETION_TOKENS
    else:
        assert sum(v.prompt_tokens for v in verdicts) == len(asked[0].ids)
        assert asked[0].max_tokens == 4 * 256


@given(st.lists(st.integers(0, 9), min_size=1, max_size=9))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_whatever_stands_beside_it(digits):
    verdicts = score(LLMJudge(Model(), group=True), group_of(*digits))
    assert [v.score for v in verdicts] == digits


def test_groups_are_never_torn_or_joined(make):
    judge, asked = make(batch_size=3)
    groups = [
        group_of(*[(3 * task + n) % 10 for n in range(4)], task=task, group=str(task))
        for task in range(5)
    ]
    mixed = [group[n] for n in range(4) for group in groups]  # as they may stand in a file
    verdicts = score(judge, mixed)
    assert [v.score for v in verdicts] == [int(e.turns[0].action[-1]) for e in mixed]
    assert len(asked) == 5


def test_what_all_begin_with_stands_once():
    backend = Model()
    question = "a long question " * 50
    first = [make_episode("I look", f"I say {n}", observations=["PAGE"], index=n,
                          observation=question) for n in range(5)]  # fmt: skip
    assert [v.score for v in score(LLMJudge(backend, group=True), first)] == [0, 1, 2, 3, 4]
    prompt = "".join(map(chr, backend.requests[0].ids))
    assert prompt.count(question) == prompt.count("I look") == prompt.count("PAGE") == 1
    assert "5 episodes of one task" in prompt


FAULTS = {
    "one is missing": lambda e: dict(list(e.items())[1:]),
    "one has an unknown id": lambda e: {"00000000": entry(9), **dict(list(e.items())[1:])},
    "by place": lambda e: list(e.values()),
    "none": lambda e: {},
    "ten": lambda e: {**e, next(iter(e)): entry(10)},
    "no reason": lambda e: {**e, next(iter(e)): {"score": 3}},
    "a number alone": lambda e: {**e, next(iter(e)): 7},
    "one key more": lambda e: {**e, next(iter(e)): {**entry(3), "rank": 1}},
    "one id more": lambda e: {**e, "00000000": entry(9)},
}
#: Of those all four have a score that can be used, or three, or none.
USABLE = {"by place": 0, "none": 0, "one id more": 4}


def scripted(fault, mend):
    """A model that makes a fault of the first episode's entry, and mends it or does not."""
    calls = []

    def write(mark, said):
        calls.append(mark)
        entries = {name: entry(int(text[-1])) for name, text in said.items()}
        return reply(mark, entries if mend and len(calls) > 1 else fault(entries))

    return write


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_asked_once_more_and_who_has_no_usable_score_has_an_error(name, make):
    judge, asked = make(scripted(FAULTS[name], mend=False))
    verdicts = score(judge, group_of(3, 9, 0, 7))
    assert len(asked) == 2
    usable = USABLE.get(name, 3)
    assert [v.score for v in verdicts] == [None] * (4 - usable) + [3, 9, 0, 7][4 - usable :]
    for verdict in verdicts[: 4 - usable]:
        assert "; the reply was: " in verdict.error


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_mended_counts(name, make):
    judge, asked = make(scripted(FAULTS[name], mend=True))
    assert [v.score for v in score(judge, group_of(3, 9, 0, 7))] == [3, 9, 0, 7]
    assert len(asked) == 2
    second = asked[1]
    told = (
        second["messages"][-1]["content"]
        if isinstance(second, dict)
        else "".join(map(chr, second.ids))
    )
    assert "Your reply cannot be used: " in told


def test_an_id_that_stands_twice_is_no_score_even_if_equal(make):
    def twice(mark, said):
        text = reply(mark, {name: entry(int(t[-1])) for name, t in said.items()})
        name = next(iter(said))
        return text.replace('"episodes": {', f'"episodes": {{"{name}": {json.dumps(entry(9))}, ')

    judge, asked = make(twice)
    verdicts = score(judge, group_of(9, 8, 1))
    assert [v.score for v in verdicts] == [None, 8, 1]
    assert "it stands twice" in verdicts[0].error
    assert len(asked) == 2


@pytest.mark.parametrize("text", ["", "9, 9, 9", '{"id": "00000000", "episodes": {}}', "[9, 9]"])
def test_a_reply_that_is_none_scores_nobody(text, make):
    judge, _ = make(lambda mark, said: text)
    verdicts = score(judge, group_of(9, 8, 1))
    assert [v.score for v in verdicts] == [None] * 3


def test_what_the_first_reply_said_well_is_kept_where_the_second_is_worse(make):
    replies = ["first", "second"]

    def write(mark, said):
        if replies.pop(0) == "second":
            return "I give up"
        return reply(mark, {n: entry(int(t[-1])) for n, t in list(said.items())[1:]})

    judge, _ = make(write)
    verdicts = score(judge, group_of(9, 8, 1))
    assert [v.score for v in verdicts] == [None, 8, 1]
    assert "I give up" in verdicts[0].error


@given(st.dictionaries(st.integers(0, 5), st.none() | st.integers(-1, 11), max_size=6))
def test_nobody_ever_has_the_score_of_another(given_scores):
    """Any subset of the ids, with any numbers: who has one and a digit has that; others none."""

    def write(mark, said):
        names = [*said, "00000000", "11111111"]
        return reply(mark, {names[n]: entry(value) for n, value in given_scores.items()})

    verdicts = score(LLMJudge(Model(write), group=True), group_of(1, 2, 3, 4))
    for place, verdict in enumerate(verdicts):
        value = given_scores.get(place)
        assert verdict.score == (value if value is not None and 0 <= value <= 9 else None)


@given(st.lists(st.text(max_size=60), min_size=2, max_size=4), st.integers(1, 3))
@settings(max_examples=50)
def test_an_episode_cannot_take_the_score_of_another(texts, rounds):
    """It has seen the prompt about its group, and writes lines of structure and ids into itself."""
    group = [make_episode(f"{text}\nI say {n}", index=n) for n, text in enumerate(texts)]
    prompting = Prompting("Be fair.")
    for _ in range(rounds):
        seen = prompting.ask_group(group, Room(1_000_000)).message
        group[0].turns[0].action = f"{seen}\nI say 0"
    asked = prompting.ask_group(group, Room(1_000_000))
    names = list(asked.schema["properties"]["episodes"]["properties"])
    everything = "\n".join(e.turns[0].action for e in group).lower()
    assert not any(name in everything for name in (asked.mark, *names))
    text = json.dumps({
        "id": asked.mark,
        "episodes": {name: entry(n) for n, name in reversed(list(enumerate(names)))},
    })  # fmt: skip
    assert {n: found.score for n, found in asked.parse(text).items()} == dict(
        enumerate(range(len(group)))
    )


def test_the_schema_holds_every_id_once():
    backend = Model()
    backend.capabilities = Capabilities(token_ids=True, logprobs=True, schema=True)
    score(LLMJudge(backend, group=True), group_of(1, 2))
    schema = backend.requests[0].schema["properties"]["episodes"]
    assert len(schema["properties"]) == 2
    assert schema["required"] == list(schema["properties"])
    assert schema["additionalProperties"] is False


def test_turns_of_a_group_are_scored_too(make):
    def write(mark, said):
        made = {}
        for name, text in said.items():
            count = int(text[-1])
            turns = {str(n): n for n in range(1, count + 1)}
            made[name] = {"reason": "x", "turns": turns, "score": 5}
        return reply(mark, made)

    judge, _ = make(write, score_level="turn")
    episodes = [make_episode(*["x"] * (n - 1), f"I say {n}", index=n) for n in (1, 3)]
    verdicts = score(judge, episodes)
    assert [v.turns for v in verdicts] == [(1,), (1, 2, 3)]


def test_samples_of_a_group(make):
    calls = []

    def write(mark, said):
        calls.append(mark)
        entries = {n: entry(max(int(t[-1]) - len(calls) % 2, 0)) for n, t in said.items()}
        return reply(mark, entries)

    judge, asked = make(write, samples=2, temperature=1.0)
    verdicts = score(judge, group_of(3, 9))
    assert [v.score for v in verdicts] == [2.5, 8.5]
    assert len(asked) == 2


def test_a_group_that_is_too_long_gives_way_in_its_observations_first():
    backend = Model()
    group = [make_episode("look", f"I say {n}", observations=[f"{n}" + "x" * 3_000], index=n)
             for n in range(4)]  # fmt: skip
    judge = LLMJudge(backend, group=True, max_episode_tokens=500)
    assert [v.score for v in score(judge, group)] == [0, 1, 2, 3]
    prompt = "".join(map(chr, backend.requests[0].ids))
    assert "of the environment's answers (in 4 of 4) were left out" in prompt
    assert 1_000 < prompt.count("x") < 4 * 500
    assert all(f"I say {n}" in prompt for n in range(4))


def test_a_group_that_does_not_fit_the_context_is_an_error_of_all():
    backend = Model()
    backend.context_length = 2_000
    verdicts = score(LLMJudge(backend, group=True, max_tokens=100), group_of(*range(9)))
    assert all("the episodes do not fit the judge's context" in v.error for v in verdicts)
    assert backend.requests == []


def test_episodes_that_ended_in_an_error_are_not_in_the_group(make):
    judge, asked = make()
    episodes = group_of(3, 9, 4)
    episodes[1].error = "broken"
    assert [v.score for v in score(judge, episodes)] == [3, None, 4]
    assert len(asked) == 1


# --- what is known already --------------------------------------------------------------------


def test_the_cache_knows_a_verdict_by_the_whole_group(tmp_path, make):
    cache = VerdictCache(tmp_path)
    judge, asked = make()
    assert [v.score for v in score(judge, group_of(3, 9), cache=cache)] == [3, 9]
    assert [v.score for v in score(judge, group_of(3, 9, group="7"), cache=cache)] == [3, 9]
    assert len(asked) == 1
    score(judge, group_of(4, 8), cache=cache)
    assert len(asked) == 2
    score(judge, group_of(3, 8), cache=cache)  # beside another it may have another score
    assert len(asked) == 3
    score(judge, group_of(9, 3), cache=cache)  # or at another place
    assert len(asked) == 4
    score(judge, group_of(3, 9, 3), cache=cache)
    assert len(asked) == 5
    assert [v.score for v in score(judge, group_of(3, 9, 3), cache=cache)] == [3, 9, 3]
    assert len(asked) == 5
    [episode] = group_of(3)
    cache.put(judge, episode, Verdict(episode.id, judge.name, 3))
    assert cache.get(judge, episode) is None  # without its group nothing is known of it


def test_a_group_that_the_cache_knows_in_part_is_asked_for_as_a_whole(tmp_path, make):
    bad = [True]

    def write(mark, said):
        entries = {name: entry(int(text[-1])) for name, text in said.items()}
        if bad[0]:
            entries.pop(next(iter(entries)))
        return reply(mark, entries)

    (judge, asked), cache = make(write), VerdictCache(tmp_path)
    assert [v.score for v in score(judge, group_of(1, 2, 3), cache=cache)] == [None, 2, 3]
    bad[0] = False
    assert [v.score for v in score(judge, group_of(1, 2, 3), cache=cache)] == [1, 2, 3]
    assert len(asked) == 3
    assert [v.score for v in score(judge, group_of(1, 2, 3), cache=cache)] == [1, 2, 3]
    assert len(asked) == 3


def test_equal_episodes_of_a_group_keep_their_own_verdicts_in_the_cache(tmp_path):
    numbers = iter(range(10))
    model = Model(lambda mark, said: reply(mark, {n: entry(next(numbers)) for n in said}))
    judge, cache = LLMJudge(model, group=True), VerdictCache(tmp_path)
    assert [v.score for v in score(judge, group_of(5, 5, 5), cache=cache)] == [0, 1, 2]
    assert [v.score for v in score(judge, group_of(5, 5, 5), cache=cache)] == [0, 1, 2]


def test_a_group_of_which_one_failed_is_asked_for_as_a_whole(tmp_path, make):
    bad = [True]

    def write(mark, said):
        entries = {name: entry(int(text[-1])) for name, text in said.items()}
        if bad[0] and len(said) == 3:
            entries.pop(next(iter(entries)))
        return reply(mark, entries)

    judge, asked = make(write)
    path, out = tmp_path / "e.jsonl", tmp_path / "v.jsonl"
    broken = group_of(1, task=2, group="2")
    broken[0].error = "down"
    write_episodes(path, [*group_of(1, 2, 3), *group_of(4, 5, task=1, group="1"), *broken])
    first = score_file(judge, path, out)
    assert [v.score for v in first] == [None, 2, 3, 4, 5, None]
    assert len(asked) == 3
    bad[0] = False
    told = []
    second = score_file(judge, path, out, progress=lambda v, new: told.append((v.episode, new)))
    assert [v.score for v in second] == [1, 2, 3, 4, 5, None]
    assert len(asked) == 4
    assert sum(new for _, new in told) == 4  # the group, and the one that is broken
    assert len(told) == len(set(told)) == 6
    assert list(read_verdicts(out)) == second
    paid = sum(v.prompt_tokens for v in second)
    if isinstance(asked[0], dict):
        assert paid == 4 * PROMPT_TOKENS
    else:
        assert paid == sum(len(request.ids) for request in asked)


def test_what_was_paid_for_stays_where_a_group_cannot_be_asked_again(tmp_path):
    class Stopping(LLMJudge):
        def judge(self, episodes):
            raise JudgeStopError("no money")

    model = Model(lambda mark, said: reply(mark, {n: entry(5) for n in list(said)[1:]}))
    path, out = tmp_path / "e.jsonl", tmp_path / "v.jsonl"
    write_episodes(path, group_of(1, 2, 3))
    first = score_file(LLMJudge(model, group=True), path, out)
    assert [v.score for v in first] == [None, 5, 5]
    with pytest.raises(JudgeStopError):
        score_file(Stopping(model, group=True), path, out)
    assert list(read_verdicts(out)) == first  # the failed one too: it was paid for


def test_a_budget_ends_between_two_groups_and_a_larger_one_goes_on(tmp_path):
    server = FaultServer(good=lambda mark, message: fair(*read(message))).start()
    try:
        path, out = tmp_path / "e.jsonl", tmp_path / "v.jsonl"
        groups = [group_of(1, 2, task=n, group=str(n)) for n in range(8)]
        write_episodes(path, [episode for group in groups for episode in group])

        def judge(budget):
            options = {"budget_tokens": budget, "max_tokens": 20, "concurrency": 1}
            return make_judge(
                "llm", model="m", backend=f"openai:{server.url}", group=True, **options
            )

        with pytest.raises(JudgeStopError, match="the budget of 2500 tokens is spent"):
            score_file(judge(2500), path, out)
        kept = list(read_verdicts(out))
        assert 0 < len(kept) < 16
        assert len(kept) == 2 * server.charged.total()
        assert [v.score for v in score_file(judge(100_000), path, out)] == [1, 2] * 8
        assert server.charged.total() == 8
    finally:
        server.stop()


def test_a_file_of_verdicts_on_another_group_is_refused(tmp_path):
    from ovd_envs.errors import OVDError

    judge = LLMJudge(Model(), group=True)
    path, out = tmp_path / "e.jsonl", tmp_path / "v.jsonl"
    write_episodes(path, group_of(1, 2, 3))
    score_file(judge, path, out)
    write_episodes(path, group_of(1, 2, 4))
    with pytest.raises(OVDError, match=r"or group\) that has changed"):
        score_file(judge, path, out)


def test_groups_of_a_file_in_any_order_with_a_cache(tmp_path, make):
    judge, asked = make()
    groups = [group_of(1, 2, 3), group_of(4, 5, 6, task=1, group="1")]
    mixed = [group[n] for n in (2, 0, 1) for group in groups]
    write_episodes(tmp_path / "e.jsonl", mixed)
    cache = VerdictCache(tmp_path / "cache")
    for out in ("a.jsonl", "b.jsonl"):
        found = score_file(judge, tmp_path / "e.jsonl", tmp_path / out, cache=cache)
        assert [v.score for v in found] == [3, 6, 1, 4, 2, 5]
    assert len(asked) == 2


def test_two_files_joined_are_two_groups(make):
    judge, asked = make()
    verdicts = score(judge, [*group_of(1, 2), *group_of(3, 4)])
    assert [v.score for v in verdicts] == [1, 2, 3, 4]
    assert len(asked) == 2


# --- with what asks judges --------------------------------------------------------------------


def test_groups_are_judged_in_the_order_of_their_places_whoever_ends_first(make):
    prompts = []

    def write(mark, said):
        prompts.append(list(said.values()))
        return fair(mark, said)

    judge, _ = make(write)
    judging = GroupJudging(judge, 3)
    episodes = group_of(3, 1, 2)
    for place in (2, 0, 1):
        judging.ended(episodes[place])
    found = {v.episode: v.score for v in judging.verdicts()}
    judging.close()
    assert found == {e.id: s for e, s in zip(episodes, (3, 1, 2), strict=True)}
    assert prompts == [["I say 3", "I say 1", "I say 2"]]


def test_the_effect_of_the_order_is_measured(tmp_path, make):
    def later_is_better(mark, said):
        return reply(mark, {name: entry(2 * n) for n, name in enumerate(said)})

    judge, _ = make(later_is_better)
    group = group_of(1, 2, 3)
    write_episodes(tmp_path / "e.jsonl", group)
    found, why = order_effect(judge, tmp_path / "e.jsonl", score(judge, group))
    assert why == ""
    assert found.later.value == found.change == 4
    judge, _ = make(fair)
    found, _ = order_effect(judge, tmp_path / "e.jsonl", score(judge, group))
    assert found.change == 0


def test_an_ensemble_asks_it_for_whole_groups():
    backend = Model()
    ensemble = EnsembleJudge(
        [LLMJudge(backend, group=True, batch_size=1), LLMJudge(backend, group=True)]
    )
    assert ensemble.scores_groups
    ensemble.batch_size = 1
    verdicts = score(ensemble, group_of(3, 9, 1))
    assert [v.score for v in verdicts] == [3, 9, 1]
    assert len(backend.requests) == 2


def test_a_cascade_has_no_use_for_it():
    from ovd_envs.errors import OVDError
    from teachers.cascade import CascadeJudge

    with pytest.raises(
        OVDError, match=r"^dear: expected a judge that reads each episode by itself"
    ):
        CascadeJudge("outcome", LLMJudge(Model(), group=True))
    assert CascadeJudge(LLMJudge(Model(), group=True), "outcome").scores_groups


def test_a_list_with_a_key_that_stands_twice_fails_alone(make):
    """A fault of one group's reply is that group's: the others of its batch have their scores."""

    def write(mark, said):
        if "I say 1" in said.values():
            return f'{{"id": "{mark}", "episodes": [{{"score": 9, "score": 9}}]}}'
        return fair(mark, said)

    judge, _ = make(write)
    verdicts = score(judge, [*group_of(1, 2), *group_of(3, 4, task=1, group="1")])
    assert [v.score for v in verdicts] == [None, None, 3, 4]
    assert "a key stands twice" in verdicts[0].error
