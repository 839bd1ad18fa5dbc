from __future__ import annotations

import json
import traceback
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics
from hypothesis import given
from hypothesis import strategies as st

import ovd_envs
from ovd_envs import ListTasks, OVDError, Reply, Task, TaskError, TextEnv, TextVectorEnv
from ovd_envs.vector import batch_infos

MODES = list(AutoresetMode)
NEXT_STEP, SAME_STEP, DISABLED = MODES
TASKS = ListTasks(
    "talk",
    train=[Task(f"talk-{n}", f"Say {n}.", (str(n),), {"n": n}) for n in range(40)],
    test=[Task("talk-last", "Say last.", ("last",))],
)

#: Values of ``info`` that Gymnasium's own function refuses, or gives back as others.
ODD = [1, 0.5, True, None, "one", 10**30, [1, 2], [], {"a": 1}, {"a": 0.5}, {"_a": 1}, {1: "x"}, {}]


class Talk(TextEnv):
    """Episodes of up to three messages; "stop" ends one, "raise" raises. Every reply is another:
    the observation, the reward and what is in ``info`` come from the generator of the episode.
    """

    def __init__(self, *, odd=True, split="train", render_mode=None):
        super().__init__(TASKS, split=split, budget={"turns": 3}, render_mode=render_mode)
        self.odd, self.closed = odd, 0

    def observe(self, task):
        return f"{task.question} {self.np_random.integers(10**9)}"

    def respond(self, action):
        if action == "raise":
            raise RuntimeError("out of order")
        if action == "interrupt":
            raise KeyboardInterrupt
        drawn = self.np_random.integers(10**9)
        info = {"drawn": int(drawn), "said": action}
        if self.odd:
            names = self.np_random.choice(["one", "two", "three"], size=2, replace=False)
            info |= {str(name): ODD[self.np_random.integers(len(ODD))] for name in names}
        end = "answered" if action == "stop" else None
        return Reply(f"{action} {drawn}", drawn / 7, end=end, info=info)

    def close(self):
        self.closed += 1


def exactly(value):
    """``value`` with its types, so that 1, 1.0 and True are three things."""
    if isinstance(value, dict):
        return {name: exactly(part) for name, part in value.items()}
    if isinstance(value, tuple):
        return tuple(map(exactly, value))
    if isinstance(value, np.generic):
        return exactly(value.item())
    return type(value).__name__, repr(value)


def info_of(infos, number):
    """The info of one environment, read as Gymnasium's documentation says."""
    found = {}
    for name, column in infos.items():
        mask = infos.get(f"_{name}")
        if mask is not None and mask[number]:
            found[name] = info_of(column, number) if isinstance(column, dict) else column[number]
    return found


def play(envs, singles, seed, turns, masks):
    """Step ``envs`` beside environments that are stepped by hand; all must tell the same.

    ``turns`` are the messages of each step; ``masks`` are environments to reset after it.
    """
    mode = envs.metadata["autoreset_mode"]
    observations, infos = envs.reset(seed=seed)
    for n, env in enumerate(singles):
        told = (observations[n], info_of(infos, n))
        assert exactly(told) == exactly(env.reset(seed=seed + n))
    ended = np.zeros(len(singles), dtype=bool)
    for messages, mask in zip(turns, masks, strict=True):
        observations, *arrays, infos = envs.step(messages)
        assert observations in envs.observation_space
        assert [array.dtype for array in arrays] == [float, bool, bool]
        for n, env in enumerate(singles):
            if mode is NEXT_STEP and ended[n]:
                observation, info = env.reset()
                step = (observation, 0.0, False, False, info)
            else:
                step = env.step(messages[n])
            ended[n] = step[2] or step[3]
            if mode is SAME_STEP and ended[n]:
                observation, info = env.reset()
                final = {"final_obs": step[0], "final_info": step[4]}
                step = (observation, *step[1:4], {**info, **final})
            told = (observations[n], *(array[n] for array in arrays), info_of(infos, n))
            assert exactly(told) == exactly(step)
        for reset in (mask, ended & ~mask) if mode is DISABLED else (mask,):
            if reset.any():
                newest, infos = envs.reset(options={"reset_mask": reset})
                expected = [
                    env.reset() if again else (observation, {})
                    for env, again, observation in zip(singles, reset, observations, strict=True)
                ]
                for n, (observation, info) in enumerate(expected):
                    assert exactly((newest[n], info_of(infos, n))) == exactly((observation, info))
                observations, ended = newest, ended & ~reset


@st.composite
def scripts(draw):
    """How many environments, a seed, and the messages and masks of some steps."""
    size, steps = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    message = st.sampled_from(["stop", "stop", "go on", "", "\U0001f600\x00"])

    def rows(values):
        row = st.lists(values, min_size=size, max_size=size)
        return draw(st.lists(row, min_size=steps, max_size=steps))

    seed = draw(st.integers(0, 2**32))
    return size, seed, rows(message), [np.array(row) for row in rows(st.booleans())]


@pytest.mark.parametrize("mode", MODES)
@given(script=scripts())
def test_it_is_environments_stepped_by_hand(mode, script):
    size, *rest = script
    play(TextVectorEnv([Talk] * size, autoreset_mode=mode), [Talk() for _ in range(size)], *rest)


@pytest.mark.parametrize("mode", MODES)
@given(script=scripts())
def test_gymnasiums_own_says_the_same_where_it_loses_nothing(mode, script):
    size, seed, turns, _ = script
    make = [lambda: Talk(odd=False)] * size
    ours, theirs = (kind(make, autoreset_mode=mode) for kind in (TextVectorEnv, SyncVectorEnv))
    calls = [ours.reset(seed=seed), theirs.reset(seed=seed)]
    assert_alike(*calls)
    for messages in turns:
        calls = [envs.step(messages) for envs in (ours, theirs)]
        assert_alike(*calls)
        ended = calls[0][2] | calls[0][3]
        if mode is DISABLED and ended.any():
            # Gymnasium takes the mask out of the caller's own options.
            assert_alike(*(e.reset(options={"reset_mask": ended}) for e in (ours, theirs)))


def assert_alike(ours, theirs):
    assert type(ours) is type(theirs)
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert_alike(ours[name], theirs[name])
    elif isinstance(ours, tuple):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_alike(one, other)
    elif isinstance(ours, np.ndarray):
        assert ours.dtype == theirs.dtype
        assert ours.tolist() == theirs.tolist()
    else:
        assert ours == theirs


def without(name):
    def spoil(observations, *arrays, infos):
        return observations, *arrays, {k: v for k, v in infos.items() if k.strip("_") != name}

    return spoil


FAULTS = {
    "no final observation": (SAME_STEP, without("final_obs")),
    "no final info": (SAME_STEP, without("final_info")),
    "no info": (NEXT_STEP, lambda *told, infos: (*told, {})),
    "the wrong place": (DISABLED, lambda o, *arrays, infos: (o[::-1], *arrays, infos)),
    "the wrong reward": (NEXT_STEP, lambda o, r, *ends, infos: (o, r[::-1], *ends, infos)),
    "no end": (SAME_STEP, lambda o, r, t, u, infos: (o, r, t & False, u, infos)),
    "no last observation": (
        NEXT_STEP,
        lambda o, r, t, u, infos: (tuple(np.where(t | u, "", o).tolist()), r, t, u, infos),
    ),
}


@pytest.mark.parametrize(("mode", "spoil"), FAULTS.values(), ids=FAULTS)
def test_the_comparison_sees_what_is_lost_or_moved(mode, spoil):
    class Faulty(TextVectorEnv):
        def step(self, actions):
            *told, infos = super().step(actions)
            return spoil(*told, infos=infos)

    turns = [["go on", "stop"], ["go on", "go on"], ["stop", "go on"]]
    masks = [np.zeros(2, dtype=bool)] * 3
    play(TextVectorEnv([Talk] * 2, autoreset_mode=mode), [Talk(), Talk()], 5, turns, masks)
    with pytest.raises(AssertionError):
        play(Faulty([Talk] * 2, autoreset_mode=mode), [Talk(), Talk()], 5, turns, masks)


@given(st.lists(st.none() | st.dictionaries(st.sampled_from("abc"), st.sampled_from(ODD))))
def test_infos_come_back_as_they_were(infos):
    batched = batch_infos(infos)
    for number, info in enumerate(infos):
        assert exactly(info_of(batched, number)) == exactly(info or {})


def test_numbers_of_one_type_and_arrays_of_one_shape_are_arrays():
    infos = [{"n": 1, "x": 0.5, "v": np.arange(2)}, None, {"n": 2, "x": 1.5, "v": np.arange(2)}]
    batched = batch_infos(infos)
    assert [batched[name].dtype.kind for name in "nxv"] == ["i", "f", "i"]
    assert batched["v"].tolist() == [[0, 1], [0, 0], [0, 1]]
    assert batched["_n"].tolist() == [True, False, True]
    ragged = batch_infos([{"v": np.arange(2)}, {"v": np.arange(3)}])["v"]
    assert [row.tolist() for row in ragged] == [[0, 1], [0, 1, 2]]


def test_a_name_that_would_be_a_mask_is_refused():
    with pytest.raises(ValueError, match="'_n' would hide which environments have 'n'"):
        batch_infos([{"n": 1}, {"_n": 2}])

    class Final(Talk):
        def observe(self, task):
            return "go"

        def reset(self, **options):
            observation, info = super().reset(**options)
            return observation, {**info, "final_obs": "mine"}

    envs = TextVectorEnv([Final], autoreset_mode=SAME_STEP)
    envs.reset()
    with pytest.raises(ValueError, match="environment 0: info: 'final_obs' is what the mode"):
        envs.step(["stop"])


def test_seeds_and_tasks_are_each_environments_own():
    envs, single = TextVectorEnv([Talk] * 3), Talk()
    assert envs.reset(seed=[7, 5, 7])[0] == tuple(single.reset(seed=s)[0] for s in (7, 5, 7))
    assert envs.reset(seed=np.int64(5))[0][2] == single.reset(seed=7)[0]
    options = {"tasks": ["talk-3", TASKS.task("train", 9), None], "split": "test"}
    observations, infos = envs.reset(seed=1, options=options)
    assert infos["task"].tolist() == ["talk-3", "talk-9", "talk-last"]
    assert observations[0].startswith("Say 3. ")
    assert options.keys() == {"tasks", "split"}, "the options are the caller's"
    assert envs.reset(options={"task": "talk-8"})[1]["task"].tolist() == ["talk-8"] * 3
    mask = np.array([False, True, False])
    _, infos = envs.reset(options={"tasks": ["talk-1", "talk-2", None], "reset_mask": mask})
    assert infos["task"].tolist() == [None, "talk-2", None]
    assert [env.task.id for env in envs.envs] == ["talk-8", "talk-2", "talk-8"]
    assert envs.step(["a", "b", "c"])[4]["turn"].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tasks": ["talk-1"]}, TaskError, "'tasks' holds one for each of 2, got 1"),
        ({"tasks": "talk-1"}, TaskError, "'tasks' is a list, got str"),
        ({"tasks": ["talk-1"] * 2, "task": "talk-1"}, TaskError, "'task' and 'tasks', got both"),
        ({"tasks": [None, "nope"]}, TaskError, "^environment 1: no task 'nope'"),
        ({"tsk": "talk-1"}, TaskError, "^environment 0: reset: unknown option 'tsk'"),
        ({"reset_mask": [1, 0]}, TypeError, "reset_mask: expected an array of bool, got one of i"),
        ({"reset_mask": [True]}, ValueError, "reset_mask: expected 2 bools"),
        ({"reset_mask": [False, False]}, ValueError, "at least one of them true"),
    ],
)
def test_bad_options_of_reset(options, error, message):
    envs = TextVectorEnv([Talk] * 2)
    envs.reset(seed=0)
    with pytest.raises(error, match=message):
        envs.reset(options=options)
    with pytest.raises(ValueError, match="seed: expected one for each of 2, got 3"):
        envs.reset(seed=[1, 2, 3])


@pytest.mark.parametrize(
    ("actions", "error", "message"),
    [
        (["a"], ValueError, "actions: expected one for each of 2, got 1"),
        ("ab", TypeError, "expected a text for each environment, got 'ab'"),
        (["a", b"b"], TypeError, "action 1: expected str, got bytes"),
    ],
)
def test_bad_actions_are_refused_before_any_step(actions, error, message):
    envs = TextVectorEnv([Talk] * 2)
    envs.reset(seed=0)
    with pytest.raises(error, match=message):
        envs.step(actions)
    assert envs.step(("a", np.str_("b")))[4]["turn"].tolist() == [1, 1]


def test_what_has_ended_must_be_reset_where_nobody_else_does():
    envs = TextVectorEnv([Talk] * 3, autoreset_mode="Disabled")
    with pytest.raises(ResetNeeded, match="environments 0, 1, 2: no episode runs"):
        envs.step(["go"] * 3)
    with pytest.raises(ResetNeeded, match="first reset must be one of all"):
        envs.reset(options={"reset_mask": [True, True, False]})
    envs.reset(seed=0)
    envs.step(["stop", "go", "stop"])
    with pytest.raises(ResetNeeded, match="environments 0, 2: no episode runs"):
        envs.step(["go"] * 3)
    envs.reset(options={"reset_mask": [True, False, True]})
    assert envs.step(["go"] * 3)[4]["turn"].tolist() == [1, 2, 1]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_an_environment_that_raises(mode, kind):
    message = "raise" if kind is RuntimeError else "interrupt"
    envs = TextVectorEnv([Talk] * 3, autoreset_mode=mode)
    envs.reset(seed=0)
    with pytest.raises(kind) as caught:
        envs.step(["go", message, "go"])
    if kind is RuntimeError:
        assert str(caught.value) == "environment 1: out of order"
        assert "in respond" in "".join(traceback.format_exception(caught.value))
    # Environment 0 has taken its step, environment 2 has not: going on would mix them up.
    with pytest.raises(ResetNeeded, match="environments 0, 1, 2"):
        envs.step(["go"] * 3)
    envs.reset(options={"reset_mask": [True, True, False]})
    with pytest.raises(ResetNeeded, match="environments 2:"):
        envs.step(["go"] * 3)
    envs.reset()
    assert envs.step(["go"] * 3)[4]["turn"].tolist() == [1, 1, 1]


def test_an_exception_whose_text_is_no_message_gets_a_note():
    class Key(Talk):
        def respond(self, action):
            return {}[action]

    envs = TextVectorEnv([Talk, Key])
    envs.reset()
    with pytest.raises(KeyError) as caught:
        envs.step(["a", "b"])
    assert caught.value.args == ("b",)
    assert caught.value.__notes__ == ["environment 1"]


def test_closing_closes_all():
    envs = TextVectorEnv([Talk] * 3)
    envs.reset()
    envs.close()
    envs.close()
    assert [env.closed for env in envs.envs] == [1, 1, 1]
    for call in (envs.reset, lambda: envs.step(["a"] * 3)):
        with pytest.raises(ClosedEnvironmentError, match="closed"):
            call()


class Stuck(Talk):
    def close(self):
        super().close()
        raise RuntimeError("stuck")


@pytest.mark.parametrize(
    ("kinds", "error"), [([Stuck, Talk], RuntimeError), ([Stuck, Talk, Stuck], ExceptionGroup)]
)
def test_one_that_cannot_be_closed_does_not_keep_the_others_open(kinds, error):
    envs = TextVectorEnv(kinds)
    with pytest.raises(error):
        envs.close()
    envs.close()
    assert [env.closed for env in envs.envs] == [1] * len(kinds)


def test_what_was_made_is_closed_where_another_cannot_be_made():
    made = []

    def make():
        if len(made) == 2:
            raise OVDError("no more")
        made.append(Stuck())
        return made[-1]

    with pytest.raises(OVDError, match=r"^environment 2: no more$"):
        TextVectorEnv([make] * 3)
    assert [env.closed for env in made] == [1, 1]


def test_bad_environments_and_modes():
    one = Talk()
    with pytest.raises(OVDError, match="a new environment from each, number 2 is number 0"):
        TextVectorEnv([lambda: one, Talk, lambda: one])
    with pytest.raises(OVDError, match="at least one environment"):
        TextVectorEnv([])
    with pytest.raises(OVDError, match="expected one of NextStep, SameStep, Disabled, got 'Never'"):
        TextVectorEnv([Talk], autoreset_mode="Never")
    with pytest.raises(OVDError, match="num_envs: expected a whole number of at least 1, got 0"):
        ovd_envs.make_vec("ovd/Math-v0", 0)
    with pytest.raises(OVDError, match=r"^environment 0: environment 'ovd/Math-v0' has no option"):
        ovd_envs.make_vec("ovd/Math-v0", 2, levl="mixed")


@pytest.mark.parametrize("mode", MODES)
def test_make_vec_here_and_in_gymnasium(mode):
    options = {"attempts": 2, "split": "test", "autoreset_mode": mode}
    ours = ovd_envs.make_vec("ovd/Math-v0", 2, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        theirs = gymnasium.make_vec("ovd_envs:ovd/Math-v0", 2, **options)
        again = gymnasium.make_vec(ours.spec)
    for envs in (ours, theirs, again):
        assert isinstance(envs, VectorEnv)
        assert isinstance(envs, TextVectorEnv)
        assert envs.num_envs == 2
        assert envs.metadata["autoreset_mode"] is mode
        assert envs.action_space.contains(("a", "b"))
        assert repr(envs) == "TextVectorEnv(ovd/Math-v0, num_envs=2)"
        assert envs.reset(seed=4)[0] == ours.reset(seed=4)[0]
        assert envs.get_attr("attempts") == (2, 2)
    assert json.loads(ours.spec.to_json())["kwargs"]["attempts"] == 2


def test_gymnasiums_wrappers_go_around_it():
    envs = RecordEpisodeStatistics(
        ovd_envs.make_vec("ovd/Math-v0", 3, autoreset_mode="SameStep", attempts=2)
    )
    envs = DictInfoToList(envs)
    envs.reset(seed=0, options={"tasks": ["math-addition/test/0"] * 3})
    *_, infos = envs.step(["\\boxed{70}", "hm", "\\boxed{1}"])
    assert infos[0]["final_obs"] == ""
    assert infos[0]["final_info"]["outcome"] == "right"
    assert infos[0]["episode"]["r"] == 1
    assert [info["turn"] for info in infos] == [0, 1, 1]
    assert "final_info" not in infos[1]


def test_questions_and_a_search_engine():
    envs = ovd_envs.make_vec("ovd/WorldQA-v0", 2, people=50, turns=2, autoreset_mode="SameStep")
    envs.reset(seed=0)
    golds = [env.task.answers[0] for env in envs.envs]
    pages = [env.task.metadata["path"][0]["title"] for env in envs.envs]
    envs.step([f"<search>{page}</search>" for page in pages])
    _, rewards, terminations, _, infos = envs.step([f"<answer>{gold}</answer>" for gold in golds])
    assert rewards.tolist() == [1, 1]
    assert terminations.all()
    assert [list(answers) for answers in infos["final_info"]["answers"]] == [[g] for g in golds]
