"""Student: what it trains on is what the backend was given and what it sampled, to the token."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.chat_dialect import ChatDialect
from agents.episode import Episode, Turn
from agents.inline_dialect import InlineDialect
from agents.protocol import Act, Agent, Capabilities, Completion, Request
from agents.student import Student
from ovd_envs.task import Task
from tests.tiny import tiny_tokenizer

DIALECT = ChatDialect(tiny_tokenizer())
END = DIALECT.end_of_turn


class Recorder:
    """A backend that writes given or random ids, and remembers what it was asked."""

    name = "recorder"
    capabilities = Capabilities(token_ids=True, logprobs=True)

    def __init__(self, replies: list[tuple[list[int], str]] | None = None, context: int = 10_000):
        self.dialect = DIALECT
        self.context_length = context
        self.replies = replies
        self.asked: list[Request] = []
        self.said: list[Completion] = []
        self.released: list[str] = []
        self.rng = random.Random(0)

    def generate(self, requests):
        found = []
        for request in requests:
            assert type(request.ids) is list
            self.asked.append(Request(tuple(request.ids), request.max_tokens, request.temperature))
            ids, stop = self.replies.pop(0) if self.replies else self.random_reply(request)
            text = DIALECT.decode(ids)
            text = text.partition("STOP")[0] if stop == "stop_string" else text
            logprobs = [-self.rng.random() - 0.01 for _ in ids]
            found.append(Completion(list(ids), logprobs, stop, text))
        self.said += found
        return found

    def random_reply(self, request):
        # Bytes that are no UTF-8 become a replacement character: their text gives other ids.
        count = self.rng.randint(1, min(6, request.max_tokens))
        ids = [self.rng.randrange(256) for _ in range(count)]
        if self.rng.random() < 0.5:
            return [*ids[:-1], END], "end_of_turn"
        return ids, "length"

    def release(self, sessions):
        self.released += sessions


def new_episode(observation: str = "hello", **options) -> Episode:
    task = Task("t/0", observation, ("1",))
    return Episode(task=task, env="e", agent="s", observation=observation, **options)


def answer(episode: Episode, act: Act, observation: str) -> None:
    episode.turns.append(Turn(act.text, observation, stop=act.stop))


def test_is_an_agent():
    student = Student(Recorder())
    assert isinstance(student, Agent)
    assert student.name == "recorder"
    assert Student(Recorder(), name="pupil").name == "pupil"


turns = st.lists(
    st.tuples(
        st.lists(st.integers(0, 256), min_size=1, max_size=8),  # any ids, canonical or not
        st.sampled_from(["end_of_turn", "length", "stop_string"]),
        st.text(max_size=12),
    ),
    min_size=1,
    max_size=5,
)


@given(turns, st.text(max_size=12), st.sampled_from([None, "", "be kind"]))
@settings(deadline=None, max_examples=60)
def test_the_segment_is_what_was_given_and_what_was_sampled(turns, first, system):
    replies = [([*ids, END] if stop == "end_of_turn" else ids, stop) for ids, stop, _ in turns]
    backend = Recorder(list(replies))
    student = Student(backend, max_tokens=9, system=system)
    episode = new_episode(first)
    ids, mask, logprobs = DIALECT.open(first, system), [], []
    mask += [0] * len(ids)
    logprobs += [0.0] * len(ids)
    for number, ((sampled, stop), (_, _, observation)) in enumerate(
        zip(replies, turns, strict=True)
    ):
        [act] = student.act([episode])
        assert backend.asked[-1].ids == tuple(ids), "the model read something else"
        said = backend.said[-1]
        assert act == Act(said.text, stop)
        ids += sampled
        mask += [1] * len(sampled)
        logprobs += said.logprobs
        [segment] = episode.segments
        assert (segment.ids, segment.mask, segment.logprobs) == (ids, mask, logprobs)
        assert episode.num_sampled_tokens == sum(len(r) for r, _ in replies[: number + 1])

        answer(episode, act, observation)
        between = DIALECT.follow([END], observation)
        if stop != "end_of_turn":
            between = [END, *between]  # inserted: given, not sampled
        ids += between
        mask += [0] * len(between)
        logprobs += [0.0] * len(between)
    assert ids.count(END) == sum(i == END for i in ids)
    # Every turn of either side is ended exactly once, whoever wrote the end.
    written = sum(sampled.count(END) for sampled, _ in replies)
    given_ = sum(1 for i, m in zip(ids, mask, strict=True) if i == END and not m)
    opening = DIALECT.open(first, system).count(END)
    assert written + given_ == opening + 2 * len(turns)


def test_text_that_reads_the_same_has_other_ids_and_these_are_kept():
    # Two halves of a character, then the character: what a tokenizer would never write so.
    broken = [*DIALECT.encode("é")[:1], *DIALECT.encode("é")]
    assert DIALECT.encode(DIALECT.decode(broken)) != broken
    backend = Recorder([([*broken, END], "end_of_turn"), ([65, END], "end_of_turn")])
    student = Student(backend)
    episode = new_episode()
    answer(episode, *student.act([episode]), "go on")
    student.act([episode])
    start = len(DIALECT.open("hello"))
    assert list(backend.asked[1].ids[start : start + len(broken)]) == broken
    assert episode.segments[0].ids[start : start + len(broken)] == broken


def test_several_episodes_keep_their_own_tokens():
    backend = Recorder()
    student = Student(backend, max_tokens=6)
    episodes = [new_episode(f"question {i}", seed=(0, 0, i, 0), index=i) for i in range(5)]
    expected = [DIALECT.open(e.observation) for e in episodes]
    for turn in range(3):
        acting = [i for i in range(5) if i != turn]  # some end, some go on
        acts = student.act([episodes[i] for i in acting])
        for i, act, said in zip(acting, acts, backend.said[-len(acting) :], strict=True):
            assert act.text == said.text
            expected[i] += said.ids
            assert episodes[i].segments[0].ids == expected[i]
            answer(episodes[i], act, f"again {i}")
            expected[i] += DIALECT.follow(said.ids[-1:], f"again {i}")


def test_what_a_request_is_made_of():
    requests: list[Request] = []

    class Backend(Recorder):
        def generate(self, asked):
            requests.extend(asked)
            return super().generate(asked)

    student = Student(Backend(), temperature=0.7, max_tokens=5, stop=("STOP",))
    episodes = [
        new_episode(seed=(4, 2, p, i), group=f"2-{p}", index=i) for p, i in ((0, 1), (1, 0))
    ]
    for _ in range(2):
        for episode, act in zip(episodes, student.act(episodes), strict=True):
            answer(episode, act, "next")
    assert [r.key for r in requests] == [
        (4, 2, 0, 1, 0),
        (4, 2, 1, 0, 0),
        (4, 2, 0, 1, 1),
        (4, 2, 1, 0, 1),
    ]
    assert [r.session for r in requests] == ["s:2-0:1", "s:2-1:0"] * 2
    assert {(r.temperature, r.max_tokens, r.stop) for r in requests} == {(0.7, 5, ("STOP",))}


def test_the_room_that_is_left_bounds_a_reply_then_ends_the_episode():
    opening, between = DIALECT.open("hello"), DIALECT.follow([END], "more")
    limit = len(opening) + 3 + len(between) + 2
    backend = Recorder([([1, 2, END], "end_of_turn"), ([3, 4], "length")])
    student = Student(backend, max_tokens=100, max_context=limit)
    episode = new_episode()
    answer(episode, *student.act([episode]), "more")
    answer(episode, *student.act([episode]), "more")
    assert [r.max_tokens for r in backend.asked] == [limit - len(opening), 2]
    before = list(episode.segments[0].ids)
    assert len(before) == limit
    assert student.act([episode]) == [Act("", stop="context_limit")]
    # What was never read by the model is not in its tokens.
    assert episode.segments[0].ids == before
    assert len(backend.asked) == 2


def test_the_tokens_of_all_replies_bound_the_last_then_end_the_episode():
    backend = Recorder([([1, 2, END], "end_of_turn"), ([3, 4], "length")])
    student = Student(backend, max_tokens=4, max_episode_tokens=5)
    episode = new_episode()
    for left in (4, 2):  # of one turn, then of the episode
        answer(episode, *student.act([episode]), "more")
        assert backend.asked[-1].max_tokens == left
    before = list(episode.segments[0].ids)
    assert episode.num_sampled_tokens == 5
    assert student.act([episode]) == [Act("", stop="token_limit")]
    assert episode.segments[0].ids == before
    assert len(backend.asked) == 2
    # What the environment writes is not counted.
    [act] = Student(Recorder([([1], "length")]), max_episode_tokens=1).act([new_episode("x" * 99)])
    assert act.stop == "length"


def test_a_full_context_is_the_matter_of_its_own_episode():
    backend = Recorder([([7, END], "end_of_turn"), ([8, END], "end_of_turn")], context=60)
    student = Student(backend, max_tokens=8)
    episodes = [new_episode("a"), new_episode("x" * 60), new_episode("b")]
    acts = student.act(episodes)
    assert [act.stop for act in acts] == ["end_of_turn", "context_limit", "end_of_turn"]
    assert [act.text for act in acts] == [DIALECT.decode([7]), "", DIALECT.decode([8])]
    assert [[s.ids[-2:] for s in e.segments] for e in episodes] == [[[7, END]], [], [[8, END]]]
    # One token of room is room.
    exact = 60 - len(DIALECT.open(""))
    [act] = student.act([new_episode("x" * (exact - 1))])
    assert act.stop != "context_limit"
    assert backend.asked[-1].max_tokens == 1
    [act] = student.act([new_episode("x" * exact)])
    assert act.stop == "context_limit"


@pytest.mark.parametrize("given_", [None, 5000])
def test_no_context_is_longer_than_the_backend_s(given_):
    assert Student(Recorder(context=50), max_context=given_).max_context == 50
    assert Student(Recorder(context=50), max_context=20).max_context == 20


def test_finish_lets_go_of_the_sessions():
    backend = Recorder()
    episodes = [new_episode(index=i) for i in range(2)]
    student = Student(backend)
    student.act(episodes)
    student.finish(episodes)
    assert backend.released == [e.id for e in episodes]

    class Bare:  # a backend that keeps nothing has nothing to release
        name, dialect, capabilities = "bare", DIALECT, Recorder.capabilities

    Student(Bare()).finish(episodes)


@pytest.mark.parametrize("stop_string", ["</search>", "STOP", ""])
def test_a_closing_tag_is_a_part_of_its_message_and_a_user_s_stop_string_is_not(stop_string):
    class Backend(Recorder):
        def generate(self, requests):
            stops.extend(request.stop for request in requests)
            ids = DIALECT.encode(f"<search>x{stop_string}")
            stop = "stop_string" if stop_string else "length"
            return [Completion(ids, [-1.0] * len(ids), stop, "<search>x", stop_string)]

    stops: list[tuple[str, ...]] = []
    backend = Backend()
    for dialect, kept in ((InlineDialect(tiny_tokenizer()), "</search>"), (DIALECT, None)):
        backend.dialect = dialect
        episode = new_episode(stop_strings=("</search>", "</answer>"))
        [act] = Student(backend, stop=("STOP", "</search>")).act([episode])
        assert act.text == "<search>x" + (stop_string if stop_string == kept else "")
    assert stops == [("STOP", "</search>", "</search>", "</answer>"), ("STOP", "</search>")]
