"""Rollouts: groups, seeds, order, errors that stay at home, and exact tokens from end to end."""

from __future__ import annotations

import json
from collections import Counter

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ovd_envs
from agents import load_student, read_episodes, rollout, write_episodes
from agents.episode import Episode
from agents.protocol import Act
from agents.rollout import run_seeded
from agents.student import Student
from agents.transformers_backend import TransformersBackend
from ovd_envs.env import Reply, TextEnv
from ovd_envs.errors import OVDError
from ovd_envs.task import ListTasks, Task
from ovd_envs.webqa.search_r1 import SearchR1Protocol
from tests.tiny import tiny_model, tiny_tokenizer

TASKS = [Task(f"t/{i}", f"question {i}", (str(i),)) for i in range(6)]
SOURCE = ListTasks("t", train=TASKS)


class Echo(TextEnv):
    """Ends after 1 to 3 turns, by its task's number, which is the reward, too."""

    def __init__(self, **options):
        super().__init__(SOURCE, budget={"turns": 9}, **options)

    def observe(self, task):
        return task.question

    def respond(self, action):
        number = int(self.task.id[2:])
        if self.turn > number % 3:
            return Reply("over", reward=float(number), end="done", info={"said": action})
        return Reply(f"again {self.turn}: {action}", reward=0.5)


class Speaker:
    """Names the episode that it was asked about; remembers who was asked together."""

    name = "speaker"

    def __init__(self):
        self.calls: list[list[str]] = []
        self.finished: list[str] = []

    def act(self, episodes):
        self.calls.append([e.id for e in episodes])
        return [Act(f"{e.task.id} {e.index} {len(e.turns)}", stop="scripted") for e in episodes]

    def finish(self, episodes):
        assert all(e.done for e in episodes)
        self.finished += [e.id for e in episodes]


def bare(episode: Episode) -> dict:
    """An episode without what a clock wrote."""
    row = episode.to_dict()
    for name in ("started", "seconds"):
        row.pop(name)
    for turn in row["turns"]:
        turn.pop("agent_seconds"), turn.pop("env_seconds")
    return row


def tiny_student(**options) -> Student:
    backend = TransformersBackend(tiny_model(), tiny_tokenizer(), name="tiny")
    backend.dialect.stop_ids |= frozenset(range(0, 256, 6))  # replies of all lengths
    return Student(backend, **{"max_tokens": 10, **options})


@given(
    st.integers(0, 5),
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(0, 9),
    st.integers(0, 9),
    st.sampled_from(["lockstep", "free"]),
)
@settings(deadline=None, max_examples=80)
def test_groups_seeds_and_order(count, size, batch_size, seed, step, mode):
    agent, shown = Speaker(), []
    episodes = rollout(
        agent,
        Echo,
        TASKS[:count],
        group_size=size,
        seed=seed,
        step=step,
        batch_size=batch_size,
        mode=mode,
        progress=shown.append,
    )
    places = [(p, i) for p in range(count) for i in range(size)]
    assert [e.task for e in episodes] == [TASKS[p] for p, _ in places]
    assert [e.index for e in episodes] == [i for _, i in places]
    assert [e.seed for e in episodes] == [(seed, step, p, i) for p, i in places]
    # One group a task, one index a member: what an advantage is computed over.
    assert [e.group for e in episodes] == [f"{step}-{p}" for p, _ in places]
    assert len({e.id for e in episodes}) == len(episodes)
    for (p, i), e in zip(places, episodes, strict=True):
        said = [f"t/{p} {i} {turn}" for turn in range(p % 3 + 1)]
        assert [t.action for t in e.turns] == said
        assert e.observation == f"question {p}"
        assert [t.observation for t in e.turns] == [
            *(f"again {n}: {text}" for n, text in enumerate(said[:-1], start=1)),
            "over",
        ]
        assert e.reward == 0.5 * (p % 3) + p == sum(t.reward for t in e.turns)
        assert (e.end_reason, e.terminated, e.truncated) == ("done", True, False)
        assert e.info == {"turn": p % 3 + 1, "end_reason": "done", "said": said[-1]}
        assert (e.env, e.agent, e.error) == ("Echo", "speaker", None)
    # Each is shown, and let go of, once; none is asked again after its end.
    assert sorted(e.id for e in shown) == sorted(agent.finished) == sorted(e.id for e in episodes)
    asked = Counter(name for call in agent.calls for name in call)
    assert asked == {e.id: len(e.turns) for e in episodes}
    assert max(map(len, agent.calls), default=0) <= batch_size


def test_the_same_seed_gives_the_same_episodes_in_any_batch():
    def run(**options):
        options = {"seed": 1, "group_size": 3, **options}
        return [bare(e) for e in rollout(tiny_student(), Echo, TASKS, **options)]

    def tokens(rows):
        return [row["segments"][0]["ids"] for row in rows]

    first = run()
    assert run() == first
    assert len({tuple(ids) for ids in tokens(first)}) == 18
    for size in (1, 4, 7):
        again = run(batch_size=size)
        for one, other in zip(first, again, strict=True):
            [s], [t] = one.pop("segments"), other.pop("segments")
            assert (s["ids"], s["mask"]) == (t["ids"], t["mask"])
            assert s["logprobs"] == pytest.approx(t["logprobs"], abs=1e-5)
            assert one == other
        first = run()
    other_seed, other_step = run(seed=2), run(step=1)
    for rows in (other_seed, other_step):
        assert all(a != b for a, b in zip(tokens(rows), tokens(first), strict=True))


def test_a_smaller_group_is_the_beginning_of_a_larger_one():
    two = rollout(tiny_student(), Echo, TASKS[:2], group_size=2, seed=3)
    three = rollout(tiny_student(), Echo, TASKS[:2], group_size=3, seed=3)
    for p in range(2):
        for i in range(2):
            assert two[2 * p + i].segments[0].ids == three[3 * p + i].segments[0].ids


def check_tokens(
    backend: TransformersBackend,
    episode: Episode,
    temperature: float = 1.0,
    tolerance: float = 2e-5,
) -> None:
    """Mask, ids and log-probabilities of a finished episode, against the model and the text."""
    dialect, [segment] = backend.dialect, episode.segments
    # The ids are the prompt, what was sampled, the tokens between, ... and nothing else.
    at = 0

    def take(count: int, value: int) -> list[int]:
        nonlocal at
        assert segment.mask[at : at + count] == [value] * count
        ids, at = segment.ids[at : at + count], at + count
        return ids

    opening = dialect.open(episode.observation)
    assert take(len(opening), 0) == opening
    for number, turn in enumerate(episode.turns):
        length = next((n for n, m in enumerate(segment.mask[at:]) if not m), len(segment.mask) - at)
        own = take(length, 1)
        said = dialect.decode(own)  # beyond a closing tag, the last token may go on
        assert said.startswith(turn.action) if turn.stop == "stop_string" else said == turn.action
        assert (own[-1] in dialect.stop_ids) == (turn.stop == "end_of_turn")
        if number + 1 < len(episode.turns):
            between = dialect.follow(own[-1:], turn.observation)
            assert take(len(between), 0) == between
    assert at == len(segment.ids)
    # The model itself, reading the whole at once, says the same of every token it sampled.
    with torch.inference_mode():
        logits = backend.model(torch.tensor([segment.ids])).logits[0].float()
    logprobs = (logits / (temperature or 1.0)).log_softmax(-1)
    for i, (token, mask, logprob) in enumerate(
        zip(segment.ids, segment.mask, segment.logprobs, strict=True)
    ):
        expected = logprobs[i - 1, token].item() if mask else 0.0
        assert logprob == pytest.approx(expected, abs=tolerance), f"token {i}"


@pytest.mark.parametrize("temperature", [1.0, 0.6, 0.0])
def test_several_turns_with_a_real_model_are_exact(temperature):
    student = tiny_student(temperature=temperature)
    env = ovd_envs.make("ovd/Math-v0")
    tasks = env.tasks.distinct("train", 4)
    episodes = rollout(
        student, "ovd/Math-v0", tasks, group_size=3, env_options={"attempts": 3}, batch_size=5
    )
    for episode in episodes:
        assert len(episode.turns) == 3
        assert episode.end_reason in ("no_answer", "answered")
        assert episode.env == "ovd/Math-v0"
        assert "answers" not in episode.info
        check_tokens(student.backend, episode, temperature)
    stops = {turn.stop for e in episodes for turn in e.turns}
    assert stops == {"end_of_turn", "length"}
    assert not student.backend._sessions  # all let go of
    # The check itself has teeth: a mask off by one, a turn written again, two tokens swapped.
    for spoil in (
        lambda s: (s.mask.insert(0, 0), s.mask.pop()),
        lambda s: (s.logprobs.insert(0, 0.0), s.logprobs.pop()),
        lambda s: s.ids.__setitem__(-1, (s.ids[-1] + 1) % 250),
    ):
        broken = Episode.from_dict(episodes[0].to_dict())
        broken.segments[0].mask = list(broken.segments[0].mask)
        spoil(broken.segments[0])
        with pytest.raises(AssertionError):
            check_tokens(student.backend, broken, temperature)


def test_several_turns_of_smollm2_are_exact():
    student = load_student("smollm2-135m", max_tokens=12, dtype="float32", device="cpu")
    tasks = ovd_envs.make("ovd/Math-v0").tasks.distinct("train", 2)
    options = {"env_options": {"attempts": 2}, "group_size": 2}
    episodes = rollout(student, "ovd/Math-v0", tasks, **options)
    assert sum(len(e.turns) for e in episodes) > 4
    for episode in episodes:
        check_tokens(student.backend, episode, tolerance=1e-3)
    # Greedy, its first turn is what transformers generates.
    student.temperature = 0.0
    [episode, *_] = rollout(student, "ovd/Math-v0", tasks[:1])
    prompt = student.backend.dialect.open(episode.observation)
    model = student.backend.model
    found = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=12)
    assert episode.segments[0].ids == found[0].tolist()
    check_tokens(student.backend, episode, temperature=0.0, tolerance=1e-3)


def test_search_r1_with_the_tiny_model_is_exact(monkeypatch):
    backend = TransformersBackend(tiny_model(), tiny_tokenizer(), dialect="inline")
    check_search_r1(Student(backend, max_tokens=16))
    # A random model writes no tags: letters stand for them, and each belongs to its message.
    monkeypatch.setattr(SearchR1Protocol, "stop_strings", tuple("aeiounst"))
    ends = check_search_r1(Student(backend, max_tokens=16))
    assert ends
    assert set(ends) <= set("aeiounst")


@pytest.mark.slow
def test_search_r1_with_smollm2_is_exact():
    student = load_student(
        "smollm2-135m", max_tokens=16, dtype="float32", device="cpu", dialect="inline"
    )
    check_search_r1(student, tolerance=1e-3)


def check_search_r1(student: Student, tolerance: float = 2e-5) -> list[str]:
    """Two tasks of ``ovd/WorldQA-v0`` are exact; the ends of messages that a string ended."""
    dialect = student.backend.dialect
    options = {"protocol": "search-r1", "turns": 3, "people": 100}
    env = ovd_envs.make("ovd/WorldQA-v0", **options)
    assert env.dialect == dialect.name == "inline"
    tasks = env.tasks.distinct("train", 2)
    first, again = (
        rollout(student, "ovd/WorldQA-v0", tasks, group_size=2, env_options=options)
        for _ in range(2)
    )
    for episode, other in zip(first, again, strict=True):
        assert episode.error is None
        assert episode.segments[0].ids == other.segments[0].ids
        check_tokens(student.backend, episode, tolerance=tolerance)
        assert "<|im_start|>" not in "".join(turn.observation for turn in episode.turns)
    return [t.action[-1:] for e in first for t in e.turns if t.stop == "stop_string"]


def test_training_tells_the_step_to_an_environment_that_asks_and_to_no_other():
    class Asked(Echo):
        def observe(self, task):
            steps.append(self.training_step)
            return super().observe(task)

    class Silent(Asked):
        reset_options = ("task", "split")

    steps: list[int | None] = []
    for training, kind in ((True, Asked), (False, Asked), (True, Silent)):
        episodes = rollout(Speaker(), kind, TASKS[:2], seed=9, step=4, training=training)
        assert not [e.error for e in episodes if e.error]
    assert steps == [4, 4, None, None, None, None]


def test_a_full_context_ends_an_episode_and_no_other():
    student = tiny_student()
    dialect = student.backend.dialect
    student.max_context = len(dialect.open("question 0")) + 60
    episodes = rollout(student, Echo, TASKS, group_size=2)
    reasons = {e.end_reason for e in episodes}
    assert reasons == {"done", "context_limit"}
    for episode in episodes:
        assert len(episode.segments[0].ids) <= student.max_context
        if episode.end_reason == "context_limit":
            assert (episode.terminated, episode.truncated, episode.error) == (False, True, None)
            assert episode.turns  # those before
            assert episode.reward == 0.5 * len(episode.turns)
        check_tokens(student.backend, episode)
    # The first turn that does not fit: no turn, no tokens, no error.
    student.max_context = 5
    [episode] = rollout(student, Echo, TASKS[:1])
    assert (episode.end_reason, episode.turns) == ("context_limit", [])
    assert episode.num_sampled_tokens == 0


class Breaking(Echo):
    """Raises where its task says so; a world that raised stays broken until it is made anew."""

    made = 0

    def __init__(self, where="step"):
        super().__init__()
        self.where, self.broken, self.closed = where, False, 0
        type(self).made += 1

    def observe(self, task):
        self.fail(task.id == "t/1" and self.where == "reset")
        return super().observe(task)

    def respond(self, action):
        self.fail(self.task.id == "t/1" and self.where == "step" and self.turn == 2)
        return super().respond(action)

    def fail(self, now):
        self.broken = self.broken or now
        if self.broken:
            raise RuntimeError("the world broke")

    def close(self):
        if self.broken:
            raise RuntimeError("cannot even be closed")


@pytest.mark.parametrize("where", ["step", "reset"])
@pytest.mark.parametrize("batch_size", [2, 64])
def test_an_environment_that_raises_ends_its_own_episode(where, batch_size):
    good = rollout(tiny_student(), Echo, TASKS, group_size=2)
    student, shown = tiny_student(), []
    episodes = rollout(
        student,
        lambda: Breaking(where),
        TASKS,
        group_size=2,
        batch_size=batch_size,
        progress=shown.append,
    )
    assert len(shown) == 12
    for one, other in zip(good, episodes, strict=True):
        if one.task.id == "t/1":
            assert (other.end_reason, other.terminated, other.truncated) == ("error", False, True)
            assert "RuntimeError: the world broke" in other.error
            assert "Traceback" in other.error
            assert len(other.turns) == (2 if where == "step" else 0)
            if other.segments:
                check_tokens(student.backend, other)
        else:
            assert other.error is None
            [s], [t] = one.segments, other.segments
            assert (s.ids, s.mask) == (t.ids, t.mask)
            check_tokens(student.backend, other)
    assert not student.backend._sessions


class Odd(gymnasium.Env[str, str]):
    """An environment that keeps Gymnasium's contract in its own way, or not at all."""

    def __init__(self, result):
        self.result = result

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return options["task"].question, {}

    def step(self, action):
        return self.result


@pytest.mark.parametrize(
    "result",
    [
        ("", None, True, False, {}),
        ("", "much", True, False, {}),
        ("", 1.0, True, False),
        ("", 1.0, True, False, None),
        ("", 1.0, True, False, {("a", "key"): 1}),
        None,
    ],
)
def test_what_step_must_not_return_is_the_error_of_one_episode(result):
    results = iter([result, ("", 1.0, True, False, {})])
    episodes = rollout(Speaker(), lambda: Odd(next(results)), TASKS[:2])
    assert [e.end_reason for e in episodes] == ["error", "terminated"]
    assert [e.reward for e in episodes] == [0.0, 1.0]
    assert "Error" in episodes[0].error


def test_numpy_in_info_can_be_saved(tmp_path):
    info = {"n": np.int64(3), "x": np.arange(2), "b": np.bool_(True), "o": object, "answers": ["4"]}
    [episode] = rollout(Speaker(), lambda: Odd(("", np.float32(1), False, True, info)), TASKS[:1])
    assert (episode.end_reason, episode.reward, type(episode.reward)) == ("truncated", 1.0, float)
    assert episode.info == {"n": 3, "x": [0, 1], "b": True, "o": str(object)}
    write_episodes(tmp_path / "e.jsonl", [episode])
    assert list(read_episodes(tmp_path / "e.jsonl")) == [episode]


class Failing(Student):
    """A student that fails, after it has touched the tokens, where one task is in the batch."""

    turn = 1

    def act(self, episodes):
        acts = super().act(episodes)
        if any(e.task.id == "t/4" and len(e.turns) == self.turn for e in episodes):
            raise RuntimeError("out of memory")
        return acts


@pytest.mark.parametrize("turn", [0, 1])
@pytest.mark.parametrize("batch_size", [4, 64])
def test_an_agent_that_raises_ends_only_the_episode_that_it_cannot_do(batch_size, turn):
    good = rollout(tiny_student(), Echo, TASKS, group_size=2)
    calm = tiny_student()
    student = Failing(calm.backend, max_tokens=10)
    student.turn = turn
    shown = []
    episodes = rollout(
        student, Echo, TASKS, group_size=2, batch_size=batch_size, progress=shown.append
    )
    assert sorted(e.id for e in shown) == sorted(e.id for e in episodes)
    for one, other in zip(good, episodes, strict=True):
        if one.task.id == "t/4":
            assert other.end_reason == "error"
            assert "RuntimeError: out of memory" in other.error
            assert len(other.turns) == turn
        else:
            [s], [t] = one.segments, other.segments
            assert (s.ids, s.mask) == (t.ids, t.mask)
            assert s.logprobs == pytest.approx(t.logprobs, abs=1e-5)
            check_tokens(student.backend, other)
    assert not student.backend._sessions


@pytest.mark.parametrize(
    ("acts", "reason"),
    [
        (lambda episodes: [Act("x")] * (len(episodes) - 1), "gave 0 acts for 1 episodes"),
        (lambda episodes: [Act("x")] * (len(episodes) + 1), "gave 2 acts for 1 episodes"),
        (lambda episodes: ["x"] * len(episodes), "expected an Act, got str"),
        (lambda episodes: None, "TypeError"),
    ],
)
def test_an_agent_that_gives_something_else(acts, reason):
    class Wrong:
        name = "wrong"

        def act(self, episodes):
            return acts(episodes)

    for episode in rollout(Wrong(), Echo, TASKS[:3]):
        assert episode.end_reason == "error"
        assert reason in episode.error
        assert "Traceback" in episode.error


class Closing(Echo):
    closed = 0

    def close(self):
        type(self).closed += 1


@pytest.mark.parametrize("error", [OVDError("bad option"), KeyboardInterrupt(), SystemExit(3)])
@pytest.mark.parametrize("who", ["reset", "step", "agent", "progress"])
def test_bad_input_and_ctrl_c_go_up(error, who):
    class World(Closing):
        closed = 0

        def observe(self, task):
            if who == "reset" and task.id == "t/1":
                raise error
            return super().observe(task)

        def respond(self, action):
            if who == "step" and self.task.id == "t/1":
                raise error
            return super().respond(action)

    class Agent(Speaker):
        def act(self, episodes):
            if who == "agent":
                raise error
            return super().act(episodes)

    saved = []

    def progress(episode):
        saved.append(episode)
        if who == "progress":
            raise error

    with pytest.raises(type(error)):
        rollout(Agent(), World, TASKS, progress=progress, batch_size=3)
    assert World.closed == 3
    # Those that had ended by then were shown, so that they could be saved.
    assert len(saved) == (who == "progress")


def test_ctrl_c_in_a_later_batch_keeps_the_earlier_ones():
    class Agent(Speaker):
        def act(self, episodes):
            if episodes[0].task.id == "t/4":
                raise KeyboardInterrupt
            return super().act(episodes)

    saved = []
    with pytest.raises(KeyboardInterrupt):
        rollout(Agent(), Echo, TASKS, progress=saved.append, batch_size=2)
    assert [e.task.id for e in sorted(saved, key=lambda e: e.seed)] == ["t/0", "t/1", "t/2", "t/3"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"group_size": 0}, "expected at least 1, got 0, 64"),
        ({"batch_size": 0}, "expected at least 1, got 1, 0"),
        ({"seed": -1}, "expected at least 0, got -1, 0"),
        ({"step": -2}, "expected at least 0, got 0, -2"),
    ],
)
def test_bad_options(options, reason):
    with pytest.raises(OVDError, match=reason):
        rollout(Speaker(), Echo, TASKS, **options)


def test_an_unknown_environment():
    with pytest.raises(OVDError, match="ovd/Math-v0"):
        rollout(Speaker(), "ovd/Maths-v0", TASKS)
    assert rollout(Speaker(), Echo, []) == []


def test_seeds_reach_the_environment():
    class Dice(Echo):
        def observe(self, task):
            return f"{task.question}, {self.np_random.integers(10**9)}"

    def opening(**options):
        return [e.observation for e in rollout(Speaker(), Dice, TASKS[:3], group_size=2, **options)]

    first = opening(seed=5)
    assert len(set(first)) == 6
    assert opening(seed=5, batch_size=1) == first
    assert not set(opening(seed=6)) & set(first)
    assert not set(opening(seed=5, step=1)) & set(first)


def test_run_seeded_runs_what_it_is_given_in_order():
    keys = [(9, 4, 2, 1), (9, 4, 0, 0), (9, 4, 2, 0)]
    episodes = run_seeded(Speaker(), Echo, [(TASKS[k[2]], k) for k in keys])
    assert [(e.group, e.index, e.seed) for e in episodes] == [
        ("4-2", 1, keys[0]),
        ("4-0", 0, keys[1]),
        ("4-2", 0, keys[2]),
    ]
    # An episode that is asked for by its seed alone is the one of the whole rollout.
    whole = rollout(tiny_student(), Echo, TASKS[:3], group_size=2, seed=9, step=4)
    few = run_seeded(tiny_student(), Echo, [(TASKS[k[2]], k) for k in keys])
    for key, episode in zip(keys, few, strict=True):
        assert episode.segments[0].ids == whole[2 * key[2] + key[3]].segments[0].ids


def test_episodes_of_a_model_round_trip(tmp_path):
    episodes = rollout(tiny_student(), Echo, TASKS, group_size=2)
    write_episodes(tmp_path / "e.jsonl", episodes)
    assert list(read_episodes(tmp_path / "e.jsonl")) == episodes
    assert json.loads((tmp_path / "e.jsonl").read_text().splitlines()[0])["schema"] == 1


def test_times_are_measured():
    [episode] = rollout(Speaker(), Echo, TASKS[2:3])
    assert episode.started > 1.7e9
    assert 0 <= sum(t.agent_seconds + t.env_seconds for t in episode.turns) <= episode.seconds + 1
