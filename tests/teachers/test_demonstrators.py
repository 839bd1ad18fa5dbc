import random
from concurrent.futures import Future

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.episode import Episode
from agents.protocol import Act
from ovd_envs.errors import OVDError
from ovd_envs.grading import grade_message
from ovd_envs.math_tasks import LEVELS, ArithmeticTasks
from ovd_envs.task import Task
from teachers import AgentDemonstrator, Demonstrator, ScriptedSolver
from teachers.equations import equations
from tests.teachers.conftest import make_episode


def addition(a, b):
    step = f"{a} + {b} = {a + b}"
    metadata = {"level": "addition", "solution": [step], "operands": [a, b]}
    return Task(f"add/{a}/{b}", f"What is {a} + {b}?", (str(a + b),), metadata)


def solve(task, seed=0, working="direct"):
    return ScriptedSolver(working).solve(task, random.Random(seed))


@given(
    st.integers(10, 99), st.integers(10, 99), st.integers(), st.sampled_from(["direct", "split"])
)
def test_sums_are_shown_right(a, b, seed, working):
    text = solve(addition(a, b), seed, working)
    assert grade_message([str(a + b)], text, kind="number").correct
    assert text.endswith(f"\\boxed{{{a + b}}}")
    found = equations(text)
    assert len(found) == (2 if working == "split" else 1)
    assert all(e.correct for e in found)


@pytest.mark.parametrize("working", ["direct", "split"])
def test_at_least_eight_wordings(working):
    assert len({solve(addition(37, 58), seed, working) for seed in range(300)}) >= 8


def test_replies_are_short_to_the_student():
    from tokenizers import Tokenizer

    from agents.models import cache_dir

    path = cache_dir() / "models" / "smollm2-135m" / "tokenizer.json"
    if not path.is_file():
        pytest.skip(f"needs {path}, which loading smollm2-135m once makes")
    tokenizer = Tokenizer.from_file(str(path))
    for working in ("direct", "split"):
        for seed in range(200):
            text = solve(addition(99, 90 + seed % 10), seed, working)
            assert len(tokenizer.encode(text).ids) < 45, text


@pytest.mark.parametrize("level", LEVELS)
def test_every_level_is_solved(level):
    source = ArithmeticTasks(level)
    for index in range(50):
        task = source.task("train", index)
        text = solve(task, index)
        assert grade_message(task.answers, text, kind="number").correct
        assert [e.correct for e in equations(text)] == [True] * len(task.metadata["solution"])


def test_the_wording_hangs_on_seed_turn_and_task_alone():
    solver = ScriptedSolver()
    task = addition(37, 58)
    episodes = [
        Episode(task=task, env="e", agent="a", seed=(1, 2, 3, i), index=i) for i in range(40)
    ]
    together = [act.text for act in solver.act(episodes)]
    alone = [solver.act([episode])[0].text for episode in reversed(episodes)][::-1]
    assert together == alone
    assert len(set(together)) >= 8
    assert ScriptedSolver().act(episodes[:1])[0].text == together[0]


def test_without_a_solution_the_gold_answer_is_shown():
    text = solve(Task("t", "Why?", ("42", "forty-two")))
    assert text.endswith("\\boxed{42}")
    assert not equations(text)


def test_neither_solution_nor_answer():
    with pytest.raises(OVDError, match="'t' has neither"):
        solve(Task("t", "Why?", ()))


def test_a_solution_that_is_text_is_not_taken_for_steps():
    text = solve(Task("t", "Why?", ("42",), {"solution": "We see 40 + 2 = 42."}))
    assert text.endswith("\\boxed{42}")
    assert len(text) < 60


def test_prose_is_written_as_it_is_where_asked_or_alone():
    prose = "We see that 40 + 2 = 42."
    alone = Task("t", "Why?", ("42",), {"rationale": prose})
    both = Task("t", "Why?", ("42",), {"rationale": prose, "solution": ["21 * 2 = 42"]})
    for task, working in [(alone, "direct"), (alone, "split"), (both, "rationale")]:
        text = solve(task, working=working)
        assert text.startswith(f"{prose}\n")
        assert text.endswith("\\boxed{42}")
    assert "21 * 2 = 42" in solve(both)
    boxed = Task("t", "Why?", ("42",), {"rationale": "So \\boxed{42} it is."})
    assert solve(boxed) == "So \\boxed{42} it is."


def test_split_falls_back_where_there_is_nothing_to_add():
    task = Task("t", "?", ("6",), {"solution": ["9 - 3 = 6"], "operands": [9, 3]})
    assert [e.text for e in equations(solve(task, working="split"))] == ["9 - 3 = 6"]


def test_unknown_working():
    with pytest.raises(OVDError, match="expected one of direct, split, rationale, got 'rows'"):
        ScriptedSolver("rows")


class Counting:
    """Answers right at the second attempt of each task."""

    name = "counting"

    def act(self, episodes):
        return [Act(f"\\boxed{{{e.task.answers[0] if e.index % 2 else 0}}}") for e in episodes]


def requests(count):
    source = ArithmeticTasks("addition")
    return [(source.task("train", i), (5, 6, i, 7)) for i in range(count)]


def test_demonstrations_come_in_the_order_of_their_requests():
    shown = AgentDemonstrator(ScriptedSolver("split"), "teacher")
    assert isinstance(shown, Demonstrator)
    wanted = requests(30)
    episodes = shown.demonstrate("ovd/Math-v0", wanted, {"level": "addition"})
    assert [(e.task, e.seed) for e in episodes] == wanted
    assert {(e.agent, e.index, e.reward) for e in episodes} == {("teacher", 7, 1.0)}


def test_a_demonstration_does_not_depend_on_the_others():
    shown = AgentDemonstrator(ScriptedSolver(), batch_size=7)
    wanted = requests(20)
    together = shown.demonstrate("ovd/Math-v0", wanted)
    alone = [shown.demonstrate("ovd/Math-v0", [request])[0] for request in reversed(wanted)]
    assert [e.answer for e in together] == [e.answer for e in alone[::-1]]
    assert shown.demonstrate("ovd/Math-v0", []) == []


def test_the_best_of_several_attempts_is_kept():
    wanted = requests(5)
    assert {e.reward for e in AgentDemonstrator(Counting()).demonstrate("ovd/Math-v0", wanted)} == {
        1.0
    }  # index 7 is odd
    even = [(task, (*seed[:-1], 4)) for task, seed in wanted]
    one = AgentDemonstrator(Counting()).demonstrate("ovd/Math-v0", even)
    two = AgentDemonstrator(Counting(), attempts=2).demonstrate("ovd/Math-v0", even)
    assert {e.reward for e in one} == {0.0}
    assert {e.reward for e in two} == {1.0}
    assert {e.index for e in two} == {4}
    with pytest.raises(OVDError, match="attempts"):
        AgentDemonstrator(Counting(), attempts=0)


def test_an_agent_that_answers_each_by_itself_may_do_so():
    class Later(ScriptedSolver):
        def act(self, episodes):
            raise AssertionError("asked for several at once")

        def submit(self, episode):
            future = Future()
            future.set_result(ScriptedSolver().act([episode])[0])
            return future

    wanted = requests(5)
    one, other = (
        AgentDemonstrator(agent, "teacher").demonstrate("ovd/Math-v0", wanted)
        for agent in (ScriptedSolver(), Later())
    )
    assert [(e.seed, e.agent, e.answer) for e in one] == [
        (e.seed, e.agent, e.answer) for e in other
    ]


def test_an_agent_that_fails_gives_an_episode_with_its_error():
    class Failing:
        name = "failing"

        def act(self, episodes):
            raise ValueError("no idea")

    [episode] = AgentDemonstrator(Failing(), attempts=3).demonstrate("ovd/Math-v0", requests(1))
    assert "no idea" in episode.error


def test_later_attempts_are_worded_anew():
    episode = make_episode("x", observations=["Try again."])
    solver = ScriptedSolver()
    texts = set()
    for _ in range(12):
        texts.add(solver.act([episode])[0].text)
        episode.turns.append(episode.turns[0])
    assert len(texts) > 3
