"""The first turns of an episode, and an agent that goes on from them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.dialects import make_dialect
from agents.episode import Episode, Segment, Turn
from agents.kept_turns import can_keep, keep_turns
from agents.protocol import Capabilities, Completion
from agents.rollout import rollout, run_seeded
from agents.scripted import ScriptedAgent
from agents.student import Student
from ovd_envs import ListTasks, OVDError, Reply, Task, TextEnv
from tests.chat_templates import made_tokenizer
from tests.tiny import tiny_tokenizer

TASK = Task("t/0", "?", ("!",))


class Backend:
    """Says its messages in turn; the ids that it claims to have sampled are no text at all."""

    name = "student"
    capabilities = Capabilities(token_ids=True, logprobs=True)

    def __init__(self, *messages, dialect="chat", tokenizer=None):
        self.messages = messages
        self.dialect = make_dialect(dialect, tokenizer or tiny_tokenizer())
        self.requests = []

    def generate(self, requests):
        self.requests += requests
        return [self._say(request.key[-1]) for request in requests]

    def _say(self, turn):
        ids = [195, 195, 40 + turn, *sorted(self.dialect.stop_ids)[:1]]
        logprobs = [-0.1 * (turn + 1)] * len(ids)
        return Completion(ids, logprobs, "end_of_turn", self.messages[turn])


def sampled(episode):
    """(id, log-probability) of each sampled token, by turn."""
    runs, before = [], 0
    for segment in episode.segments:
        before = 0
        for token, own, logprob in zip(segment.ids, segment.mask, segment.logprobs, strict=True):
            if own and not before:
                runs.append([])
            if own:
                runs[-1].append((token, logprob))
            before = own
    return runs


@given(lengths=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3), st.booleans()), max_size=5))
def test_the_kept_turns_have_exactly_their_tokens(lengths):
    episode, number = Episode(TASK, "e", "s", "q", end_reason="answered"), iter(range(100))
    for given_, own, new in lengths:
        if new or not episode.segments:
            episode.segments.append(Segment())
        episode.segments[-1].extend_given([next(number) for _ in range(given_)])
        ids = [next(number) for _ in range(own)]
        episode.segments[-1].extend_sampled(ids, [-0.5 - i for i in ids])
        episode.turns.append(Turn(f"turn {len(episode.turns)}", "o", reward=0.25))
    whole = sampled(episode)
    assert not can_keep(episode, 0)
    assert not can_keep(episode, len(lengths) + 1)
    for turns in range(1, len(lengths) + 1):
        kept = keep_turns(episode, turns)
        assert sampled(kept) == whole[:turns]
        assert kept.turns == episode.turns[:turns]
        assert kept.reward == 0.25 * turns
        assert not kept.done
        flat = [i for s in kept.segments for i in s.ids]
        assert flat == [i for s in episode.segments for i in s.ids][: len(flat)]
        assert kept.segments[-1].mask[-1] == 1
        kept.segments[0].ids[0] = kept.turns[0].reward = -1  # shares nothing
        assert sampled(episode) == whole
        assert episode.turns[0].reward == 0.25


def test_turns_that_cannot_be_told_apart_are_not_kept():
    episode = Episode(
        TASK,
        "e",
        "s",
        "q",
        [Turn("a"), Turn("b")],
        [Segment([1, 2, 3], [0, 1, 1], [0.0, -1.0, -1.0])],
    )
    assert not can_keep(episode, 1)
    with pytest.raises(OVDError, match="expected 1 turns to keep, with their tokens"):
        keep_turns(episode, 1)
    episode.segments = []  # an API's student has no tokens at all
    assert can_keep(episode, 2)
    assert keep_turns(episode, 1).turns == [Turn("a")]


TASKS = ListTasks("count", train=[Task("c0", "Count.", ("3",)), Task("c1", "Count.", ("3",))])


class Count(TextEnv):
    """Rewards a third for each turn, and remembers a number of its own."""

    def __init__(self, **options):
        super().__init__(TASKS, **{"budget": {"turns": 3}, **options})

    def observe(self, task):
        self.number = int(self.np_random.integers(1000))
        return f"Count from {self.number}."

    def respond(self, action):
        self.number += 1
        return Reply(f"{self.number}", 1 / 4)


class Restless(Count):
    begun = 0

    def observe(self, task):
        Restless.begun += 1
        return f"{super().observe(task)} {Restless.begun}"


@pytest.mark.parametrize("mode", ["lockstep", "free"])
def test_going_on_from_turns_happens_in_the_same_world(mode):
    student = Student(Backend("one", "two", "three"))
    first = rollout(student, Count, [TASKS.task("train", n) for n in (0, 1)], group_size=2, seed=3)
    starts = [(e.task, (9, 9, n, 9), keep_turns(e, 1 + n % 2)) for n, e in enumerate(first)]
    script = ScriptedAgent(lambda episode: f"after {episode.turns[-1].observation}", "teacher")
    for episode, original, start in zip(
        run_seeded(script, Count, starts, mode=mode), first, starts, strict=True
    ):
        kept = len(start[2].turns)
        assert episode.error is None
        assert episode.observation == original.observation
        assert episode.turns[:kept] == original.turns[:kept]
        # Whatever was said, the world counts on from where it was.
        assert [t.observation for t in episode.turns] == [t.observation for t in original.turns]
        assert episode.turns[kept].action == f"after {original.turns[kept - 1].observation}"
        assert episode.reward == 0.75
        assert (episode.kept, episode.begun_by, episode.agent) == (kept, "student", "teacher")
        assert episode.written_by == ["student"] * kept + ["teacher"] * (3 - kept)
        assert episode.seed == start[1]
        again = Episode.from_dict(episode.to_dict())
        assert again == episode
        assert again.written_by == episode.written_by


def test_a_world_that_is_not_the_same_twice_ends_that_episode():
    [first] = rollout(ScriptedAgent(list("abc")), Restless, [TASKS.task("train", 0)])
    script = ScriptedAgent(list("xyz"), "teacher")
    [failed, fine] = run_seeded(
        script,
        Restless,
        [(first.task, (0, 0, 0, 0), keep_turns(first, 1)), (first.task, (0, 0, 0, 0))],
    )
    assert "the observation of turn 0 differs" in failed.error
    assert fine.error is None


@pytest.mark.parametrize("name", ["chat", "inline"])
def test_a_model_reads_the_turns_of_another_as_its_own_conversation(name):
    begun = Episode(TASK, "e", "student", "Count.", [Turn("one", "1"), Turn("two", "2")])
    teacher = Student(Backend("", "", "three", dialect=name), max_episode_tokens=4, name="teacher")
    [act] = teacher.act([begun])
    [request] = teacher.backend.requests
    dialect = teacher.backend.dialect
    whole = Episode(TASK, "e", "t", "Count.", [*begun.turns, Turn("three")])
    [segment] = dialect.segments(whole)
    three = dialect.encode_turn("three", 2)
    assert list(request.ids) == segment.ids[: -len(three)]
    assert act.text == "three"
    # What another said is not of its budget.
    assert begun.num_sampled_tokens == 4


def test_a_thinking_models_kept_turns_stay_in_their_segments():
    backend = Backend(
        "<think>\nh\n</think>\n\none",
        "<think>\nhm\n</think>\n\ntwo",
        "x",
        tokenizer=made_tokenizer("qwen3"),
    )
    [first] = rollout(Student(backend), Count, [TASKS.task("train", 0)])
    start = keep_turns(first, 2)
    script = ScriptedAgent(lambda episode: "<think>\nah\n</think>\n\nthree", "teacher")
    [episode] = run_seeded(script, Count, [(first.task, (0, 0, 0, 1), start)])
    episode.segments = start.segments
    segments = backend.dialect.segments(episode)
    for kept, segment in zip(start.segments, segments, strict=False):
        assert segment.ids[: len(kept.ids)] == kept.ids
        assert segment.logprobs[: len(kept.ids)] == kept.logprobs
    assert sum(s.mask.count(1) for s in segments) == sum(
        s.mask.count(1) for s in start.segments
    ) + len(backend.dialect.encode_turn(episode.turns[2].action, 2))
    assert start.num_sampled_tokens == 8
