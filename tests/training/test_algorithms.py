"""Which rows an algorithm makes of a group, against an arithmetic written a second time."""

import dataclasses
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.episode import Episode
from ovd_envs.errors import OVDError
from tests.tiny import tiny_model
from tests.training.made import dialect, group_of, student, teacher, verdict
from training.algorithms import GRPO, OVD, SFT, advantages, useful_demonstrations
from training.config import ConfigError, OptimizerConfig, parse_options
from training.groups import Group, Judged, group_episodes
from training.learner import Learner
from training.metrics import group_metrics
from training.rows import total_weight

# Sums of these are exact, so that both arithmetics agree on what is equal.
REWARDS = st.sampled_from([0.0, 0.25, 0.5, 1.0])
SCORES = st.sampled_from([0, 3, 6, 7, 7.5, 9])
NEVER = st.just(False)
REPLIES = st.sampled_from([(5, 257), (5, 6, 257), (7, 8, 9)])


@dataclasses.dataclass
class Slot:
    """One place of a group: the student's episode, and what a demonstrator would do there."""

    reward: float
    score: float | None
    reply: tuple[int, ...]
    crashed: bool
    teacher_reward: float
    teacher_text: str
    teacher_crashed: bool


def slots(scores, crashes):
    return st.builds(
        Slot,
        reward=REWARDS,
        score=scores,
        reply=REPLIES,
        crashed=crashes,
        teacher_reward=REWARDS,
        teacher_text=st.sampled_from(["a", "bc"]),
        teacher_crashed=st.sampled_from([False, False, True]),
    )


def steps(*, failures: bool = True):
    """Groups of a step; ``failures``: also judges that fail and episodes that crash."""
    slot = slots(SCORES | st.none() if failures else SCORES, st.booleans() if failures else NEVER)
    return st.lists(st.lists(slot, min_size=1, max_size=6), min_size=1, max_size=3)


OPTIONS = st.builds(
    dict,
    theta=st.sampled_from([0, 3, 7, 7.5, 9, 10]),
    replace=st.sampled_from(["whole", "drop"]),
    keep_rejected=st.booleans(),
)
OPTIONS |= st.builds(
    lambda options, m: options | {"select": "rank", "keep": m}, OPTIONS, st.integers(1, 4)
)
OPTIONS |= st.just({})
BASELINES = st.sampled_from(
    [
        {"baseline": "group", "scale": "none"},
        {"baseline": "group", "scale": "group"},
        {"baseline": "student", "scale": "none"},
    ]
)


def as_groups(step: list[list[Slot]], algorithm) -> list[Group]:
    """The groups of a step, with the demonstrations that ``algorithm`` asks for."""
    groups = []
    for number, places in enumerate(step):
        group = Group(student(group=number).task, [])
        for index, slot in enumerate(places):
            episode = student(
                slot.reward,
                slot.reply,
                index=index,
                group=number,
                error="boom" if slot.crashed else None,
            )
            # What teachers.score says of an episode that ended in an error: an error.
            score = None if slot.crashed else slot.score
            group.student.append(Judged(episode, verdict(episode, score)))
        for index in algorithm.slots(group):
            slot = places[index]
            group.teacher[index] = teacher(
                slot.teacher_reward,
                slot.teacher_text,
                index=index,
                group=number,
                error="down" if slot.teacher_crashed else None,
            )
        groups.append(group)
    return groups


def oracle(
    step,
    *,
    theta=7,
    replace="whole",
    keep_rejected=False,
    baseline="student",
    scale="none",
    select="threshold",
    keep=0,
):
    """(group, teacher, text or reply, advantage) of every row before merging, with numpy."""
    rows = []
    for number, places in enumerate(step):
        judged = [i for i, s in enumerate(places) if not s.crashed and s.score is not None]
        if len(judged) < 2:
            continue
        own = np.array([places[i].reward for i in judged])
        rejected = [i for i in judged if places[i].score < theta]
        if select == "rank":
            # Rejected are those with m better ones: higher scores, or equal ones before them.
            better = {
                i: sum((-places[j].score, j) < (-places[i].score, i) for j in judged)
                for i in judged
            }
            rejected = [i for i in judged if better[i] >= keep]
        entries = [
            (False, places[i].reply, places[i].reward)
            for i in judged
            if keep_rejected or i not in rejected
        ]
        if replace == "whole":
            entries += [
                (True, places[i].teacher_text, places[i].teacher_reward)
                for i in rejected
                if not places[i].teacher_crashed and places[i].teacher_reward > own.mean()
            ]
        mixed = np.array([reward for _, _, reward in entries])
        base = own if baseline == "student" else mixed
        gains = mixed - base.mean() if len(mixed) else mixed
        if scale == "group":
            deviation = base.std(ddof=1) if len(base) > 1 else 0.0
            gains = gains / (deviation + 1e-4) if deviation > 0 else np.zeros_like(gains)
        rows += [(number, t, what, a) for (t, what, _), a in zip(entries, gains, strict=True)]
    return rows


def weights_by_content(entries) -> dict:
    """Weight of each (group, teacher, content, advantage rounded)."""
    found: dict = {}
    for number, is_teacher, what, advantage, weight in entries:
        key = (number, is_teacher, what, round(float(advantage), 9) + 0.0)
        found[key] = found.get(key, 0.0) + weight
    return found


def content(row):
    """What was said: a student's tokens, or a teacher's text."""
    ids = tuple(i for i, m in zip(row.ids, row.mask, strict=True) if m)
    return dialect().decode(ids) if row.teacher else ids


def described(rows) -> dict:
    return weights_by_content(
        (row.group, row.teacher, content(row), max(row.advantages, key=abs), row.weight)
        for row in rows
    )


@settings(max_examples=300, deadline=None)
@given(step=steps(), options=OPTIONS, baseline=BASELINES)
def test_ovd_is_the_arithmetic_of_the_design(step, options, baseline):
    options = options | baseline
    algorithm = OVD(**options)
    rows = algorithm.rows(as_groups(step, algorithm), dialect())
    expected = [(*row, 1.0) for row in oracle(step, **options)]
    assert described(rows) == pytest.approx(weights_by_content(expected))
    # Every own token of a row has the row's advantage, no other token has any.
    for row in rows:
        assert {a for a, m in zip(row.advantages, row.mask, strict=True) if not m} <= {0.0}
        assert len({a for a, m in zip(row.advantages, row.mask, strict=True) if m}) == 1


@settings(max_examples=150, deadline=None)
@given(step=steps(), scale=st.sampled_from(["none", "group"]))
def test_grpo_reads_no_verdict(step, scale):
    algorithm = GRPO(scale=scale)
    groups = as_groups(step, algorithm)
    for group in groups:
        for judged in group.student:
            judged.verdict = None
    expected = []
    for number, places in enumerate(step):
        alive = [slot for slot in places if not slot.crashed]
        if len(alive) < 2:
            continue
        rewards = np.array([slot.reward for slot in alive])
        gains = rewards - rewards.mean()
        if scale == "group":
            deviation = rewards.std(ddof=1)
            gains = gains / (deviation + 1e-4) if deviation > 0 else np.zeros_like(gains)
        expected += [(number, False, s.reply, a, 1.0) for s, a in zip(alive, gains, strict=True)]
    assert described(algorithm.rows(groups, dialect())) == pytest.approx(
        weights_by_content(expected)
    )


@settings(max_examples=150, deadline=None)
@given(
    step=steps(failures=False),
    scale=st.sampled_from(["none", "group"]),
    replace=st.sampled_from(["whole", "drop"]),
    keep_rejected=st.booleans(),
)
def test_theta_0_is_grpo_to_the_last_bit(step, scale, replace, keep_rejected):
    grpo = GRPO(scale=scale)
    expected = grpo.rows(as_groups(step, grpo), dialect())
    baselines = ["group"] if scale == "group" else ["group", "student"]
    for baseline in baselines:
        ovd = OVD(
            theta=0, scale=scale, baseline=baseline, replace=replace, keep_rejected=keep_rejected
        )
        groups = as_groups(step, ovd)
        assert all(not group.teacher for group in groups)
        assert ovd.rows(groups, dialect()) == expected


def test_theta_0_moves_the_weights_as_grpo_does_bit_by_bit():
    rewards, options = [1.0, 0.0, 1 / 3], OptimizerConfig(learning_rate=1e-2, kl=0.01)
    weights = []
    for algorithm in (OVD(theta=0, scale="group", baseline="group"), GRPO(scale="group")):
        groups = [group_of(rewards, [9, 0, 4]), group_of([0.0, 1.0], [0, 1], number=1)]
        learner = Learner(tiny_model(), options)
        before = [p.clone() for p in learner.model.parameters()]
        learner.step(algorithm.rows(groups, dialect()), 1)
        weights.append(list(learner.model.parameters()))
        assert not all(map(torch.equal, before, weights[-1]))
    assert all(map(torch.equal, *weights))


@settings(max_examples=100, deadline=None)
@given(step=steps(failures=False), baseline=BASELINES)
def test_theta_10_is_a_pure_teacher_group(step, baseline):
    for places in step:
        for slot in places:
            slot.teacher_crashed, slot.teacher_reward, slot.reward = False, 2.0, slot.reward
    algorithm = OVD(theta=10, **baseline)
    groups = as_groups(step, algorithm)
    rows = algorithm.rows(groups, dialect())
    assert all(row.teacher for row in rows)
    for number, group in enumerate(groups):
        assert sorted(group.teacher) == list(range(len(group.student)))
        weight = sum(row.weight for row in rows if row.group == number)
        assert weight == (len(group.student) if len(group.student) > 1 else 0)


def test_a_failed_judge_is_not_a_zero():
    # A zero for the third episode would put a demonstration in its place, and lower the mean.
    group = group_of([0.0, 1.0, 1.0], [0, 9, None])
    algorithm = OVD(theta=7)
    assert algorithm.slots(group) == [0]
    group.teacher[0] = teacher()
    rows = algorithm.rows([group], dialect())
    assert sorted((content(row), max(row.advantages)) for row in rows if not row.teacher) == [
        ((5, 11, 257), 0.5)
    ]
    assert [max(row.advantages) for row in rows if row.teacher] == [0.5]
    metrics = group_metrics(algorithm, [group], rows)
    assert metrics["judge_errors"] == 1
    assert metrics["teacher_episodes"] == 1
    assert metrics["alpha"] == 0.5
    assert metrics["score"] == 4.5
    assert algorithm.accepted(group) == [1]
    assert OVD(select="rank", keep=2).accepted(group) == [0, 1]
    assert OVD(select="rank", keep=1).slots(group) == [0]


def test_an_episode_that_crashed_is_not_counted_against_the_judge():
    group = group_of([0.0, 1.0, 1.0], [0, 9, 9])
    crashed = student(index=3, error="boom")
    group.student.append(Judged(crashed, verdict(crashed, None)))
    algorithm = OVD()
    assert algorithm.slots(group) == [0]
    metrics = group_metrics(algorithm, [group], [])
    assert (metrics["episode_errors"], metrics["judge_errors"]) == (1, 0)


@pytest.mark.parametrize("scores", [[9, None], [None, None], [0, None]])
def test_fewer_than_two_judged_episodes_make_no_rows(scores):
    group = group_of([1.0, 0.0], scores)
    algorithm = OVD(keep_rejected=True)
    for place in algorithm.slots(group):
        group.teacher[place] = teacher(index=place)
    rows = algorithm.rows([group], dialect())
    assert rows == []
    assert group_metrics(algorithm, [group], rows)["groups_without_advantage"] == 1
    assert GRPO().rows([Group(group.task, group.student[:1])], dialect()) == []


@pytest.mark.parametrize("theta", [0, 7, 10])
def test_the_best_of_a_group_stay_and_ties_go_to_the_first(theta):
    group = group_of([0.0] * 5, [3, 8, None, 3, 3])

    def rank(m):
        return OVD(select="rank", keep=m, theta=theta)

    assert [rank(m).accepted(group) for m in (1, 2, 3, 4, 9)] == [
        [1],
        [0, 1],
        [0, 1, 3],
        [0, 1, 3, 4],
        [0, 1, 3, 4],
    ]
    assert rank(2).slots(group) == [3, 4]
    assert rank(9).slots(group) == []


def test_to_keep_all_is_grpo_to_the_last_bit():
    groups = [group_of([1.0, 0.0, 1 / 3], [0, 2, 9]), group_of([0.5, 1.0], [9, 9], number=1)]
    ovd = OVD(select="rank", keep=3, baseline="group", scale="group")
    assert ovd.rows(groups, dialect()) == GRPO().rows(groups, dialect())


def test_the_all_teacher_hole():
    """Every episode replaced by a right one: a mean over the mixed group teaches nothing."""

    def gains(**options):
        algorithm = OVD(**options)
        group = group_of([0.0, 0.0, 0.0], [0, 1, 2])
        group.teacher = {i: teacher(1.0, "abc"[i], index=i) for i in algorithm.slots(group)}
        rows = algorithm.rows([group], dialect())
        return sorted(max(row.advantages, key=abs) for row in rows), group_metrics(
            algorithm, [group], rows
        )

    for scale in ("none", "group"):
        values, metrics = gains(baseline="group", scale=scale)
        assert values == [0.0, 0.0, 0.0]
        assert metrics["groups_without_advantage"] == 1
    values, metrics = gains(baseline="student")
    assert values == [1.0, 1.0, 1.0]
    assert metrics["groups_without_advantage"] == 0
    values, metrics = gains(baseline="group", keep_rejected=True)
    assert values == [-0.5, -0.5, -0.5, 0.5, 0.5, 0.5]
    values, metrics = gains(replace="drop")
    assert values == []
    assert metrics["groups_without_advantage"] == 1


def test_demonstrations_that_are_no_better_are_dropped_and_counted():
    group = group_of([0.5, 0.5, 0.0, 1.0], [0, 0, 0, 0])  # mean 0.5
    group.teacher = {
        0: teacher(0.5, "equal", index=0),
        1: teacher(0.75, "better", index=1),
        2: teacher(1.0, "broken", index=2, error="down"),
        3: teacher(0.0, "worse", index=3),
    }
    algorithm = OVD(theta=10)
    rows = algorithm.rows([group], dialect())
    assert [content(row) for row in rows] == ["better"]
    assert max(rows[0].advantages) == 0.25
    metrics = group_metrics(algorithm, [group], rows)
    assert metrics["demonstrations_not_better"] == 2
    assert metrics["demonstrator_errors"] == 1
    assert metrics["teacher_episodes"] == 4


@pytest.mark.parametrize("reward", [0.1, 1 / 3, 0.7])
@pytest.mark.parametrize("count", range(2, 30))
def test_equal_rewards_have_no_advantage_whatever_the_rounding(reward, count):
    """The mean of equal numbers, added up and divided, need not be that number again."""
    for scale in ("none", "group"):
        assert advantages([reward] * count, [reward] * count, scale) == [0.0] * count
    group = group_of([reward] * count, [0] * count)
    group.teacher = {0: teacher(reward)}
    assert useful_demonstrations(group) == []


@settings(max_examples=200, deadline=None)
@given(
    rewards=st.lists(st.floats(0, 1), min_size=2, max_size=8),
    scale=st.sampled_from(["none", "group"]),
)
def test_advantages_of_a_group_add_up_to_nothing(rewards, scale):
    gains = advantages(rewards, rewards, scale)
    assert math.fsum(gains) == pytest.approx(0, abs=1e-9)
    # The better episode never has the smaller advantage.
    order = sorted(range(len(rewards)), key=lambda i: rewards[i])
    assert [gains[i] for i in order] == sorted(gains)


def test_sft_is_a_teacher_episode_for_every_slot_with_advantage_1():
    algorithm = SFT()
    group = group_of([1.0, 0.0, 0.0], None)
    assert algorithm.slots(group) == [0, 1, 2]
    group.teacher = {
        2: teacher(1.0, "c", index=2),
        0: teacher(1.0, "a", index=0),
        1: teacher(0.0, "b", index=1, error="down"),
    }
    rows = algorithm.rows([group], dialect())
    assert [(content(row), max(row.advantages)) for row in rows] == [("a", 1.0), ("c", 1.0)]
    assert all(row.teacher for row in rows)
    assert not algorithm.needs_judge
    assert algorithm.needs_demonstrator
    assert not algorithm.needs_student
    empty = Group(group.task, [], empty=3)
    assert algorithm.slots(empty) == [0, 1, 2]
    empty.teacher = group.teacher
    assert algorithm.rows([empty], dialect()) == rows
    assert Group.from_dict(empty.to_dict()) == empty


def test_a_scripted_demonstrator_costs_one_row_for_equal_episodes():
    algorithm = OVD(theta=10)
    groups = [group_of([0.0] * 4, [0] * 4), group_of([0.0] * 2, [0] * 2, number=1)]
    for group in groups:
        group.teacher = {i: teacher(1.0, "same", index=i) for i in range(len(group.student))}
    rows = algorithm.rows(groups, dialect())
    # Never across groups: their advantages are their own affair.
    assert [(row.group, row.weight) for row in rows] == [(0, 4.0), (1, 2.0)]
    assert total_weight(rows) == sum(row.weight for row in rows) * len("same|")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"baseline": "student", "scale": "group"}, "baseline: student goes with scale: none"),
        ({"scale": "group"}, "baseline: student goes with scale: none"),
        ({"select": "rank"}, "select: rank goes with keep"),
        ({"keep": 2}, "select: rank goes with keep"),
        ({"select": "rank", "keep": 0}, "keep: input should be greater than or equal to 1, got 0"),
        ({"theta": 12}, "theta: input should be less than or equal to 10, got 12"),
        ({"theta": -1}, "theta: input should be greater than or equal to 0, got -1"),
        ({"theta": float("nan")}, "theta"),
        ({"thet": 7}, "unknown key 'thet', did you mean 'theta'?"),
        ({"replace": "prefix"}, "replace: "),
    ],
)
def test_options_that_cannot_be_are_named(options, said):
    with pytest.raises(ConfigError, match=r"^algorithm: ") as raised:
        parse_options(OVD, options, where="algorithm")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_only_replacing_needs_a_demonstrator():
    assert OVD().needs_judge
    assert OVD().needs_demonstrator
    assert not OVD(replace="drop").needs_demonstrator
    assert OVD(replace="drop").slots(group_of([0.0, 0.0], [0, 0])) == []
    assert not GRPO().needs_judge
    assert not GRPO().needs_demonstrator
    assert GRPO().slots(group_of([0.0, 0.0])) == []


# Groups: verdicts by id, whatever the order


def many_episodes() -> list[Episode]:
    """Three groups of four; every reward and every reply is another one."""
    return [
        student((4 * g + i) / 16, (5, 20 + 4 * g + i, 257), index=i, group=g)
        for g in range(3)
        for i in range(4)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_verdicts_are_matched_by_id_in_any_order(seed):
    episodes = many_episodes()
    scores = {episode.id: float(n % 10) for n, episode in enumerate(episodes)}
    verdicts = [verdict(episode, scores[episode.id]) for episode in episodes]
    algorithm = OVD(theta=5, keep_rejected=True)
    expected = algorithm.rows(group_episodes(episodes, verdicts), dialect())
    random.Random(seed).shuffle(verdicts)
    groups = group_episodes(episodes, verdicts)
    for group in groups:
        for judged in group.student:
            assert judged.verdict.episode == judged.episode.id
            assert judged.verdict.score == scores[judged.episode.id]
            assert judged.episode.task == group.task
    assert algorithm.rows(groups, dialect()) == expected


@pytest.mark.parametrize("seed", range(5))
def test_episodes_of_several_groups_may_come_mixed(seed):
    """A baseline over somebody else's episodes is the fault that nothing else shows."""
    episodes = many_episodes()
    random.Random(seed).shuffle(episodes)
    groups = group_episodes(episodes, None)
    for group in groups:
        assert {judged.episode.group for judged in group.student} == {f"1-{group.task.id[-1]}"}
        assert len(group.student) == 4
    rows = GRPO(scale="none").rows(groups, dialect())
    assert len(rows) == 12
    for row in rows:
        number = row.ids[-2] - 20
        assert max(row.advantages, key=abs) == pytest.approx((number % 4 - 1.5) / 16)
        assert groups[row.group].task.id == f"t/train/{number // 4}"


def test_a_group_survives_its_json():
    group = group_of([0.0, 1 / 3], [None, 7.5])
    group.teacher = {1: teacher()}
    assert Group.from_dict(group.to_dict()) == group


def test_what_is_no_group_is_refused():
    one, other = student(index=0), student(index=1)
    with pytest.raises(OVDError, match="no verdict"):
        group_episodes([one, other], [verdict(one, 9)])
    other.task = student(group=1).task
    with pytest.raises(OVDError, match="expected one task"):
        group_episodes([one, other], None)
    with pytest.raises(ValueError, match="not judged"):
        OVD().accepted(Group(one.task, [Judged(one, None)]))
