"""``replace: suffix``: good turns stay the student's own, the demonstrator goes on from there."""

import json
import re

import pytest
import torch

from agents.dialects import make_dialect
from agents.episode import Episode
from agents.protocol import Capabilities, Completion
from agents.rollout import rollout
from agents.scripted import ScriptedAgent
from agents.student import Student
from ovd_envs import ListTasks, Reply, Task, TextEnv, make, register
from teachers import (
    AgentDemonstrator,
    LLMJudge,
    PathJudge,
    StepJudge,
    Verdict,
    make_demonstrator,
    score,
)
from teachers.protocol import Continuing
from tests.teachers.conftest import ScriptedBackend
from tests.tiny import tiny_model, tiny_tokenizer
from tests.training.made import batches_of, student, teacher
from training.algorithms import OVD
from training.groups import Group, Judged, group_episodes
from training.loss import importance_weights, score_tokens, token_loss
from training.metrics import group_metrics
from training.rows import episode_rows, merge_rows

WORLD = {"hops": 2, "people": 60, "observation_limit": 200}


class Backend:
    """Says what ``say(key)`` does; the ids that it claims to have sampled are no text at all."""

    name = "student"
    capabilities = Capabilities(token_ids=True, logprobs=True)

    def __init__(self, say):
        self.say = say
        self.dialect = make_dialect("chat", tiny_tokenizer())

    def generate(self, requests):
        return [self._reply(request.key) for request in requests]

    def _reply(self, key):
        ids = [195, 195, 40 + key[-1], 60 + key[-2], 257]
        return Completion(ids, [-0.25] * len(ids), "end_of_turn", self.say(key))


def judged(env, options, say, judge, size=2):
    """A group of a task of ``env`` in which the student said ``say(task, index, turn)``."""
    task = make(env, **options).tasks.task("train", 0)
    backend = Backend(lambda key: say(task, key[-2], key[-1]))
    episodes = rollout(
        Student(backend), env, [task], group_size=size, env_options=options, step=1, training=True
    )
    [group] = group_episodes(episodes, score(judge, episodes))
    return group, backend.dialect


def world_group():
    """Right and supported; the second page not found; nothing found from the start."""

    def say(task, index, turn):
        first, second = (f"<search>{hop['title']}</search>" for hop in task.metadata["path"])
        lost, answer = "<search>zzz</search>", f"<answer>{task.answers[0]}</answer>"
        return [[first, second, answer], [first, lost, answer], [lost, lost, answer]][index][turn]

    return judged("ovd/WorldQA-v0", WORLD, say, PathJudge(score_level="turn"), size=3)


def math_group():
    """Right at once; sound working and then a wrong answer."""

    def say(task, index, turn):
        step = "1 + 1 = 2"
        right = f"{step} \\boxed{{{task.answers[0]}}}"
        return [[right], [step, "\\boxed{-1}", "\\boxed{-1}"]][index][turn]

    return judged("ovd/Math-v0", {"attempts": 3}, say, StepJudge(score_level="turn"))


GROUPS = {
    "world": (world_group, "ovd/WorldQA-v0", WORLD, "path", 1),
    "math": (math_group, "ovd/Math-v0", {"attempts": 3}, "scripted", 1),
}


def mixed(name):
    """(group with the mixed episode in slot 1, dialect)."""
    make_group, env, options, demonstrator, kept = GROUPS[name]
    group, dialect = make_group()
    algorithm = OVD(replace="suffix")
    assert algorithm.kept_turns(group.student[1]) == kept
    one = make_demonstrator(demonstrator)
    assert isinstance(one, Continuing)
    [group.teacher[1]] = one.continue_from(env, [(group.student[1].episode, kept)], options)
    return group, dialect


def test_a_language_model_as_the_judge_says_where_the_first_bad_turn_is():
    def reply(prompt):
        mark = re.findall(r'"id": "([0-9a-f]{8})"', prompt)[-1]
        right = "</answer>" in prompt and "zzz" not in prompt
        turns = {"3": 9, "1": 8, "2": 9} if right else {"2": 0, "1": None, "3": 5}
        return json.dumps({"id": mark, "reason": "x", "turns": turns, "score": 9 if right else 1})

    def say(task, index, turn):
        first, second = (f"<search>{hop['title']}</search>" for hop in task.metadata["path"])
        answer = f"<answer>{task.answers[0]}</answer>"
        return [[first, second, answer], [first, "<search>zzz</search>", answer]][index][turn]

    judge = LLMJudge(ScriptedBackend(reply), score_level="turn")
    group, _ = judged("ovd/WorldQA-v0", WORLD, say, judge)
    assert [one.verdict.turns for one in group.student] == [(8, 9, 9), (None, 0, 5)]
    algorithm = OVD(replace="suffix")
    assert algorithm.accepted(group) == [0]
    assert algorithm.kept_turns(group.student[1]) == 1


@pytest.mark.parametrize("name", GROUPS)
def test_the_teacher_goes_on_from_the_first_bad_turn(name):
    group, _ = mixed(name)
    before, episode = group.student[1].episode, group.teacher[1]
    assert before.reward == 0
    assert (episode.reward, episode.error, episode.kept) == (1, None, 1)
    assert (episode.index, episode.group) == (1, before.group)
    assert episode.written_by == ["student", *[episode.agent] * (len(episode.turns) - 1)]
    assert episode.turns[0] == before.turns[0]
    if name == "world":
        # What the student has found need not be searched for again.
        assert len(episode.turns) == 3
        assert episode.info["outcome"] == "right"
        assert episode.info["searches"][0]["query"] in before.turns[0].action
    # All that is needed to go on with the same bits survives the run folder.
    again = Group.from_dict(group.to_dict())
    assert again == group
    assert (again.teacher[1].kept, again.teacher[1].begun_by) == (1, "student")
    dialect = make_dialect("chat", tiny_tokenizer())
    algorithm = OVD(replace="suffix", keep_rejected=True)
    assert algorithm.rows([again], dialect) == algorithm.rows([group], dialect)


@pytest.mark.parametrize("name", GROUPS)
def test_the_kept_prefix_is_the_students_own_to_the_last_id(name):
    group, dialect = mixed(name)
    before, episode = group.student[1].episode, group.teacher[1]
    [row] = episode_rows(0, episode, 0.5, dialect, teacher=True)
    [segment] = before.segments
    end = segment.mask.index(1) + 5  # a reply of five
    assert row.kept == end
    assert row.ids[:end] == tuple(segment.ids[:end])
    assert row.mask[:end] == tuple(segment.mask[:end])
    assert row.sampler_logprobs[:end] == tuple(segment.logprobs[:end])
    assert row.ids[end - 5 : end] == (195, 195, 40, 61, 257)
    # From there on the teacher's text, by the student's tokenizer, after what the world said.
    own = [i for i, m in zip(row.ids[end:], row.mask[end:], strict=True) if m]
    assert dialect.tokenizer.decode(own) == "".join(
        f"{turn.action}<|im_end|>" for turn in episode.turns[1:]
    )
    assert set(row.sampler_logprobs[end:]) == {0.0}
    given = [i for i, m in zip(row.ids[end:], row.mask[end:], strict=True) if not m]
    for turn in episode.turns[:-1]:
        assert turn.observation in dialect.tokenizer.decode(given)
    # One advantage for the whole of it.
    assert {a for a, m in zip(row.advantages, row.mask, strict=True) if m} == {0.5}


@pytest.mark.parametrize("name", GROUPS)
def test_gradients_reach_the_kept_turns_and_the_teachers_and_nothing_else(name):
    group, dialect = mixed(name)
    [row] = episode_rows(0, group.teacher[1], 1.0, dialect, teacher=True)
    policy, kept = tiny_model(), []

    def keep(module, inputs, output):
        output.last_hidden_state.retain_grad()
        kept.append(output.last_hidden_state)

    policy.get_decoder().register_forward_hook(keep)
    [batch] = batches_of([row], max_tokens=8192)
    scores = score_tokens(policy, batch)
    old = scores.logprobs.detach() - 0.1
    weights = importance_weights(batch, old, 2.0)
    token_loss(scores.logprobs, old, batch.advantages, importance=weights).loss.sum().backward()
    gradient = kept[0].grad[0].abs().sum(dim=-1)
    for position, mask in enumerate(row.mask[1:]):
        assert (gradient[position] > 0) == bool(mask), position
    assert gradient[-1] == 0
    # The student's tokens count against its own sampler, the teacher's by 1.
    places = [i for i, m in enumerate(row.mask) if m]
    assert [not b for b in batch.teacher.tolist()] == [i < row.kept for i in places]
    assert (weights[5:] == 1).all()
    expected = (old[:5] + 0.25).exp().clamp(max=2.0)
    torch.testing.assert_close(weights[:5], expected)
    assert not (weights[:5] == 1).any()


def test_a_group_with_a_mixed_episode():
    group, dialect = mixed("world")
    algorithm = OVD(replace="suffix")
    assert algorithm.slots(group) == [1, 2]
    assert algorithm.kept_turns(group.student[2]) == 0  # its first turn is bad already
    rows = algorithm.rows([group], dialect)
    assert [(row.teacher, row.kept > 0, max(row.advantages)) for row in rows] == [
        (False, False, pytest.approx(2 / 3)),
        (True, True, pytest.approx(2 / 3)),
    ]
    assert group_metrics(algorithm, [group], rows)["kept_turns"] == 1
    # Not better than the student's own: dropped, as any demonstration.
    group.teacher[1].reward = 0.0
    assert [row.teacher for row in algorithm.rows([group], dialect)] == [False]


@pytest.mark.parametrize(
    ("turns", "kept"),
    [
        (None, 0),
        ((9, 9, 9), 0),  # no turn below theta: whole
        ((6.9, 9, 9), 0),  # the first is bad: whole
        ((7, 6, 0), 1),
        ((9, None, 2), 2),
        ((None, None, None), 0),
    ],
)
def test_how_many_turns_are_kept(turns, kept):
    episode = student()
    for number in (1, 2):
        episode.segments[0].extend_given([number])
        episode.segments[0].extend_sampled([7, 257], [-1.0, -1.0])
        episode.turns.append(episode.turns[0])
    one = Judged(episode, Verdict(episode.id, "j", 3, turns=turns))
    assert OVD(replace="suffix").kept_turns(one) == kept
    assert OVD(replace="whole").kept_turns(one) == 0
    episode.segments[0].mask = [0] + [1] * (len(episode.segments[0].ids) - 1)
    assert OVD(replace="suffix").kept_turns(one) == 0  # whose tokens are whose is not known


def test_suffix_without_scores_of_turns_is_whole():
    group, other = (
        Group(
            student().task,
            [
                Judged(e, Verdict(e.id, "j", s))
                for e, s in ((student(1.0), 9), (student(index=1), 0))
            ],
        )
        for _ in range(2)
    )
    group.teacher[1] = other.teacher[1] = teacher(index=1)
    dialect = make_dialect("chat", tiny_tokenizer())
    assert OVD(replace="suffix").rows([group], dialect) == OVD().rows([other], dialect)


def test_rows_that_were_begun_differently_are_not_merged():
    group, dialect = mixed("math")
    [row] = episode_rows(0, group.teacher[1], 0.5, dialect, teacher=True)
    whole = Episode.from_dict({**group.teacher[1].to_dict(), "kept": 0})
    [other] = episode_rows(0, whole, 0.5, dialect, teacher=True)
    assert other.kept == 0
    assert other.ids != row.ids  # the student's text, tokenised again
    assert merge_rows([row, row]) == [
        type(row)(**{f: getattr(row, f) for f in row.__slots__} | {"weight": 2.0})
    ]


class Draws(TextEnv):
    """Shows the training step, and a number that its seed draws: ends after three messages."""

    def __init__(self):
        tasks = ListTasks("draws", train=[Task("draws/0", "Draw.", ("x",))])
        super().__init__(tasks, budget={"turns": 3})

    def observe(self, task):
        return f"{task.question} {self.training_step}"

    def respond(self, action):
        return Reply(str(self.np_random.integers(10**9)))


register("test/Draws-v0", Draws, "for tests")


def test_the_environment_is_reset_as_the_students_was():
    """With its seed, whatever that of the attempt is, and at its step of the training."""
    agent = ScriptedAgent(["a", "b", "c"], "student")
    [episode] = rollout(
        agent, "test/Draws-v0", [Draws().tasks.task("train", 0)], seed=3, step=4, training=True
    )
    assert episode.observation == "Draw. 4"
    one = AgentDemonstrator(ScriptedAgent(["x", "y", "z"], "teacher"), attempts=3)
    done = []
    one.progress = done.append
    one.continue_from("test/Draws-v0", [(episode, 2)])
    assert len({other.seed for other in done}) == 3
    for other in done:
        assert other.error is None
        assert [t.observation for t in other.turns] == [t.observation for t in episode.turns]
        assert [t.action for t in other.turns] == ["a", "b", "z"]


def test_attempts_are_made_from_the_same_turns():
    group, _ = math_group()
    one = make_demonstrator("scripted")
    one.attempts = 3
    done = []
    one.progress = done.append
    [episode] = one.continue_from("ovd/Math-v0", [(group.student[1].episode, 2)], {"attempts": 3})
    assert len(done) == 3
    assert {e.kept for e in done} == {2}
    assert (episode.kept, episode.reward, episode.index) == (2, 1, 1)
