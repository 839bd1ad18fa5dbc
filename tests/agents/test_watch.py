"""The live view: what of which episode is on the screen, whatever its size and the text."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

import agents.watch as module
from agents.episode import Episode, Segment, Turn
from agents.scripted import ScriptedAgent
from agents.totals import Totals
from agents.watch import LiveEpisodes
from ovd_envs.task import Task


def episode(number=0, *turns, end="", reward=0.0, **more):
    return Episode(
        task=Task(f"t/test/{number}", "How many?", ("1",)),
        env="e",
        agent="a",
        observation=f"Question {number}?",
        turns=[Turn(*turn) for turn in turns],
        end_reason=end,
        reward=reward,
        **more,
    )


def live(*episodes, total=9, kept=()):
    view = LiveEpisodes(Totals.of(total, kept), Console(file=io.StringIO()))
    agent = view.following(ScriptedAgent(lambda episode: "said"))
    agent.act(episodes)
    return view


def lines(view, width=80, height=24):
    """The lines of a screen of this size."""
    out = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    out.print(view.view(width, height))
    shown = out.file.getvalue().splitlines()
    assert len(shown) <= height
    return [line.rstrip() for line in shown]


def heads(view, width=80, height=24):
    return [line.split()[0] for line in lines(view, width, height) if line.startswith("t/test/")]


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when they are told to."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_each_episode_has_its_task_its_turn_and_the_end_of_what_is_new():
    running = episode(7, ("I look.", "A page. " * 60 + "Its end."))
    ended = episode(8, ("The answer.", ""), end="answered", reward=1.0)
    failed = episode(9, end="error", error="Traceback\nValueError: no \x1b[2J page\n")
    shown = lines(live(running, ended, failed))
    assert shown[0].startswith("0/9 done · 0 tokens/s · 0:00 · 3 running")
    [start] = [n for n, line in enumerate(shown) if line.startswith("t/test/7 · 0")]
    assert shown[start].endswith("turn 2")
    assert shown[start + 1] == "› I look."
    assert shown[start + 2].startswith("‹ …")
    assert "A page. Its end." in "".join(shown)
    [start] = [n for n, line in enumerate(shown) if line.startswith("t/test/8 · 0")]
    assert shown[start].endswith("turn 1 · reward 1 · answered")
    assert shown[start + 1] == "› The answer."
    assert "! ValueError: no ␛[2J page" in shown


def test_before_its_first_message_an_episode_shows_the_question():
    assert "‹ Question 3?" in lines(live(episode(3)))


def test_totals_count_what_was_kept_and_what_is_under_way():
    running = episode(1, segments=[Segment([1, 2], [0, 1], [0.0, -1.0])])
    kept = [episode(n, end="answered", reward=n / 2) for n in (0, 1)]
    view = live(running, total=5, kept=kept)
    view._totals.began -= 1_000_000
    assert lines(view)[0].startswith("2/5 done · reward 0.250 · 0 tokens/s")
    view._totals.began += 999_999.9
    rate = int(lines(view)[0].split(" · ")[2].split()[0])
    assert 2 <= rate <= 10, "1 token in a tenth of a second"


@pytest.mark.parametrize(
    ("width", "height", "fit"), [(80, 24, 7), (40, 10, 3), (200, 60, 12), (20, 3, 1), (9, 1, 0)]
)
def test_as_many_as_fit(width, height, fit):
    view = live(*(episode(n, ("said " * 50, "heard " * 50)) for n in range(12)))
    shown = lines(view, width, height)
    assert sum(line[:1] in ("…", "t") for line in shown) == fit
    assert max(map(len, shown)) <= width


def test_few_episodes_have_more_lines_each():
    text = " ".join(f"word{n}" for n in range(200))
    [one] = [len(lines(live(episode(0, (text, "")))))]
    many = len(lines(live(*(episode(n, (text, "")) for n in range(7)))))
    assert (one, many) == (1 + 9, 1 + 7 * 3)


def test_an_episode_keeps_its_place_and_one_that_has_ended_leaves_it_to_who_waits(clock):
    everyone = [episode(n) for n in range(6)]
    view = live(*everyone)
    assert heads(view, 80, 10) == ["t/test/0", "t/test/1", "t/test/2"]
    everyone[1].end_reason = "answered"
    view.ended(everyone[1])
    assert heads(view, 80, 10) == ["t/test/0", "t/test/1", "t/test/2"], "its end is to be seen"
    clock[0] += module.HOLD_SECONDS + 0.1
    assert heads(view, 80, 10) == ["t/test/0", "t/test/3", "t/test/2"]
    assert heads(view, 80, 24) == [f"t/test/{n}" for n in (0, 3, 2, 4, 5)], "a larger screen"
    assert heads(view, 80, 10) == ["t/test/0", "t/test/3", "t/test/2"], "a smaller one"
    for one in everyone:
        one.end_reason = "answered"
        view.ended(one)
    clock[0] += 100
    assert heads(view, 80, 10) == ["t/test/0", "t/test/3", "t/test/2"], "nobody waits"


def test_episodes_that_have_ended_are_let_go():
    view = live(*(many := [episode(n) for n in range(500)]))
    for one in many:
        one.end_reason = "answered"
        view.ended(one)
    lines(view)
    assert len(view._alive) == 0
    assert len(view._places) == 7


def test_the_agent_acts_as_ever():
    class Agent:
        name = "pupil"
        finished = ()

        def act(self, episodes):
            return [f"act {e.task.id}" for e in episodes]

        def submit(self, episode):
            return f"future {episode.task.id}"

        def finish(self, episodes):
            self.finished += tuple(episodes)

    agent, one = Agent(), episode(1)
    view = LiveEpisodes(Totals(3), Console(file=io.StringIO()))
    followed = view.following(agent)
    assert followed.name == "pupil"
    assert followed.act([one]) == ["act t/test/1"]
    assert followed.submit(episode(2)) == "future t/test/2"
    followed.finish([one])
    assert agent.finished == (one,)
    assert heads(view) == ["t/test/1", "t/test/2"]
    assert not hasattr(view.following(ScriptedAgent([])), "submit")


@given(
    st.text(max_size=400),
    st.text(max_size=400),
    st.text(max_size=30),
    st.integers(1, 90),
    st.integers(1, 30),
)
@settings(deadline=None, max_examples=80)
def test_no_text_is_wider_than_the_screen(said, heard, name, width, height):
    one = episode(0, (said, heard))
    one.task = Task(name, "?", ("1",))
    done = episode(1, (said, heard), end=name or "x", error=heard or None)
    view = live(one, done)
    screen = view.view(width, height).renderables
    assert len(screen) <= height
    for line in screen:
        assert not set("\n\t\x1b") & set(line.plain)
        assert cell_len(line.plain) <= width
