"""Judging as a task: what a student is asked there is what the judge asks, token by token."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ovd_envs
import teachers.judging_env as judging_env
from agents.chat_dialect import ChatDialect
from agents.episode import write_episodes
from agents.protocol import Capabilities, Completion
from agents.rollout import rollout
from agents.student import Student
from ovd_envs.checker import check_environment
from ovd_envs.errors import OVDError
from teachers import LLMJudge, StepJudge, Verdict, make_demonstrator
from teachers.digits import digit_tokens
from teachers.judge_reply import parse_reply
from teachers.judging_env import judging_tasks, reply_text
from teachers.score_file import score_file
from tests.teachers.conftest import make_episode
from tests.tiny import tiny_tokenizer

ENV = "ovd/Judging-v0"
DIALECT = ChatDialect(tiny_tokenizer())
SUM = {"solution": ["37 + 58 = 95"], "operands": [37, 58], "level": "addition"}


class Recorder:
    """A backend that says nothing of use, and remembers what it was asked."""

    name = "recorder"
    capabilities = Capabilities(token_ids=True, logprobs=True)
    context_length = 100_000

    def __init__(self):
        self.dialect, self.asked = DIALECT, []

    def generate(self, requests):
        self.asked += [list(request.ids) for request in requests]
        ids = [ord("x"), DIALECT.end_of_turn]
        return [Completion(ids, [0.0, 0.0], "end_of_turn", "x") for _ in requests]


def files(folder, episodes, verdicts):
    """The options that name the two files."""
    write_episodes(folder / "episodes.jsonl", episodes)
    rows = [{**verdict.to_dict(), "key": "k"} for verdict in verdicts]
    (folder / "verdicts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {name: str(folder / f"{name}.jsonl") for name in ("episodes", "verdicts")}


def said(episode, score=9, reason="The equation is right, and so is the answer 95."):
    return Verdict(episode.id, "steps", score, reason)


@pytest.fixture
def one(tmp_path):
    """One right episode, judged: (options, the task, the environment)."""
    episode = make_episode("37 + 58 = 95. \\boxed{95}", metadata=SUM, reward=1.0)
    options = files(tmp_path, [episode], [said(episode)])
    env = ovd_envs.make(ENV, **options)
    [task] = [t for split in ("train", "test") for t in env.tasks.iterate(split)]
    return options, task, env


@settings(max_examples=40, deadline=None)
@given(
    actions=st.lists(st.text(max_size=60), min_size=1, max_size=3),
    observation=st.text(max_size=40),
    rubric=st.text(min_size=1, max_size=40).filter(str.strip),
    show_gold=st.booleans(),
)
def test_the_judge_asks_for_what_was_learned(
    actions, observation, rubric, show_gold, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("files")
    episode = make_episode(*actions, observations=[observation] * len(actions), metadata=SUM)
    (folder / "rubric.md").write_bytes(rubric.encode("utf-8", "replace"))
    options = {
        **files(folder, [episode], [said(episode)]),
        "rubric": str(folder / "rubric.md"),
        "show_gold": show_gold,
    }
    env = ovd_envs.make(ENV, **options)
    [task] = [t for split in ("train", "test") for t in env.tasks.iterate(split)]
    student, judge = Recorder(), Recorder()
    rollout(Student(student), ENV, [task], env_options=options)
    text = judging_env.load_rubric(options["rubric"])
    LLMJudge(judge, rubric=text, show_gold=show_gold).judge([episode])
    assert student.asked[0] == judge.asked[0]  # the second is its correction
    # And so begins the row that is learned from; its rest is the reply, and the end of turn.
    demonstrator = make_demonstrator("judging")
    [shown] = demonstrator.demonstrate(ENV, [(task, (0, 1, 0, 0))], options)
    [segment] = DIALECT.segments(shown)
    assert segment.ids[: segment.mask.index(1)] == judge.asked[0]
    own = segment.ids[segment.mask.index(1) :]
    assert own == DIALECT.encode_turn(shown.answer)
    assert all(segment.mask[-len(own) :])
    assert shown.reward == 1


def test_the_digit_is_read_where_it_was_learned(one):
    """``LLMJudge`` looks at the ten digits behind the reply up to its score."""
    _, task, _ = one
    text = reply_text(task.metadata["mark"], 'He says "score": 3.', 9)
    before = parse_reply(text, task.metadata["mark"]).before_score
    begun, digits = digit_tokens(DIALECT.encode, before)
    learned = DIALECT.encode_turn(text)
    assert learned[: len(begun)] == begun
    assert learned[len(begun)] == digits[9]


def test_the_gold_answer_is_shown_only_where_it_is_said_so(tmp_path):
    episode = make_episode("I say 5.", answers=["31415"])
    options = files(tmp_path, [episode], [said(episode, 0, "Wrong.")])
    for show_gold in (True, False):
        tasks = ovd_envs.make(ENV, show_gold=show_gold, **options).tasks
        [task] = [t for split in ("train", "test") for t in tasks.iterate(split)]
        assert ("31415" in task.question) is show_gold


def test_an_id_that_comes_again_does_not_get_another_episodes_verdict(tmp_path):
    """In files that were joined, and where a run was done anew after it was judged."""
    right = make_episode("\\boxed{95}", reward=1.0)
    wrong, changed = make_episode("\\boxed{85}"), make_episode("\\boxed{75}")
    assert right.id == wrong.id == changed.id
    write_episodes(tmp_path / "episodes.jsonl", [right, wrong])
    score_file(StepJudge(), tmp_path / "episodes.jsonl", tmp_path / "verdicts.jsonl")
    write_episodes(tmp_path / "episodes.jsonl", [right, wrong, changed])
    options = {name: str(tmp_path / f"{name}.jsonl") for name in ("episodes", "verdicts")}
    tasks = ovd_envs.make(ENV, show_gold=False, **options).tasks
    scores = {
        next(n for n in (95, 85, 75) if f"boxed{{{n}}}" in task.question): task.answers
        for split in ("train", "test")
        for task in tasks.iterate(split)
    }
    assert scores == {95: ("8",), 85: ("0",)}


@pytest.mark.parametrize(
    ("reply", "reward", "told"),
    [
        ('{"id":"MARK","reason":"x","score":9}', 1.0, ""),
        ('{"id": "MARK", "reason": "x", "score": 6}', 1 - 3 / 9, ""),
        ('{"id":"MARK","reason":"x","score":0}', 0.0, ""),
        ('{"id":"00000000","reason":"x","score":9}', 0.0, '"id" is "00000000"'),
        ('{"id":"MARK","reason":"x","score":10}', 0.0, "outside 0 to 9"),
        ('{"id":"MARK","reason":"","score":9}', 0.0, '"reason" is not a text'),
        ("9", 0.0, "does not begin with the JSON object"),
        ("", 0.0, "the reply is empty"),
    ],
)
def test_the_reward_is_agreement_and_a_reply_of_no_use_earns_none(one, reply, reward, told):
    _, task, env = one
    env.reset(options={"task": task})
    *_, info = result = env.step(reply.replace("MARK", task.metadata["mark"]))
    assert result[1:4] == (pytest.approx(reward), True, False)
    assert told in info["fault"]
    assert (info["score"] is None) == bool(told)


def test_it_is_an_environment_by_the_book(tmp_path):
    episodes = [
        make_episode(f"\\boxed{{{n}}}", observation=f"What is {n} + 0?", group=str(n))
        for n in range(40)
    ]
    options = files(tmp_path, episodes, [said(e, n % 10) for n, e in enumerate(episodes)])
    wrong = [result for result in check_environment(ENV, options) if not result.passed]
    assert wrong == []


def test_a_question_is_in_one_split_with_all_its_episodes(tmp_path):
    episodes = [
        make_episode(f"reply {i}", observation=f"What is {n} + {n}?", group=str(n), index=i)
        for n in range(120)
        for i in range(3)
    ]
    options = files(tmp_path, episodes, [said(episode) for episode in episodes])
    tasks = ovd_envs.make(ENV, **options).tasks
    asked = {
        split: [task.question.partition("What is ")[2].partition("?")[0] for task in found]
        for split in ("train", "test")
        if (found := list(tasks.iterate(split)))
    }
    assert not set(asked["train"]) & set(asked["test"])
    assert sum(map(len, asked.values())) == 360
    assert 3 <= len(set(asked["test"])) <= 30  # one in ten


def test_what_cannot_be_learned_from_is_left_out(tmp_path):
    kept, same, failed, unjudged, broken = (
        make_episode("a", index=0),
        make_episode("a", index=1),
        make_episode("b", index=2),
        make_episode("c", index=3),
        make_episode("d", index=4, error="it broke"),
    )
    verdicts = [
        said(kept, 6.6),
        said(same, 6.6),
        Verdict(failed.id, "steps", None, error="no reply"),
        said(broken),
    ]
    options = files(tmp_path, [kept, same, failed, unjudged, broken], verdicts)
    tasks = ovd_envs.make(ENV, **options).tasks
    [task] = [t for split in ("train", "test") for t in tasks.iterate(split)]
    assert task.answers == ("7",)  # a whole digit
    assert "\na\n" in task.question
    with pytest.raises(OVDError, match=r"expected an episode with a score in .*, found none"):
        judging_tasks(
            options["episodes"],
            files(tmp_path, [kept], [verdicts[2]])["verdicts"],
            rubric="r",
            show_gold=True,
        )


def test_the_files_are_read_once_until_they_change(tmp_path):
    first, second = make_episode("a", index=0), make_episode("b", index=1)
    options = files(tmp_path, [first], [said(first)])
    tasks = ovd_envs.make(ENV, **options).tasks
    assert ovd_envs.make(ENV, **options).tasks is tasks
    assert ovd_envs.make(ENV, show_gold=False, **options).tasks is not tasks
    files(tmp_path, [first, second], [said(first), said(second)])
    again = ovd_envs.make(ENV, **options).tasks
    assert sum(again.size(split) for split in ("train", "test")) == 2


@pytest.mark.parametrize(
    ("working", "reason"),
    [
        ("none", "The equation is right, and so is the answer 95."),
        ("direct", "37 + 58 = 95. The equation is right, and so is the answer 95."),
        ("split", "37 + 58 = 80 + 15 = 95. The equation is right, and so is the answer 95."),
    ],
)
def test_the_reason_comes_first_and_works_it_out(one, working, reason):
    options, task, _ = one
    demonstrator = make_demonstrator("judging", working=working)
    [shown] = demonstrator.demonstrate(ENV, [(task, (0, 1, 0, 0))], options)
    mark = task.metadata["mark"]
    assert shown.answer == f'{{"id":"{mark}","reason":"{reason}","score":9}}'
    assert (shown.reward, shown.agent) == (1, "judging")


def test_a_task_without_equations_has_the_verdict_alone(tmp_path):
    episode = make_episode("Paris", answers=["Paris"])
    options = files(tmp_path, [episode], [said(episode, 8, "")])
    tasks = ovd_envs.make(ENV, **options).tasks
    [task] = [t for split in ("train", "test") for t in tasks.iterate(split)]
    [shown] = make_demonstrator("judging", working="split").demonstrate(
        ENV, [(task, (0, 1, 0, 0))], options
    )
    assert json.loads(shown.answer)["reason"] == "No reason was given."
    assert shown.reward == 1


def test_the_demonstrator_says_what_it_cannot_do(one):
    with pytest.raises(OVDError, match="working: expected one of none, direct, split, got 'all'"):
        make_demonstrator("judging", working="all")
    task = ovd_envs.make("ovd/Math-v0").tasks.task("train", 0)
    with pytest.raises(OVDError, match="expected a task of ovd/Judging-v0, got 'math-addition"):
        make_demonstrator("judging").demonstrate("ovd/Math-v0", [(task, (0, 1, 0, 0))])
