"""`ovd run` and `ovd play`: files, resuming, Ctrl-C, errors; with a scripted student."""

import io
import json
from concurrent.futures import Future

import pytest

import agents
from agents import saved_run
from agents.commands import register_commands
from agents.episode import read_episodes
from agents.scripted import ScriptedAgent
from ovd_envs import OVDError, TaskError, make
from tests.command_line import invoke

ENV = "ovd/Math-v0"


@pytest.fixture
def ovd(capsys):
    """Runs a command line; gives its exit code and what it printed."""
    return lambda *arguments: (invoke(register_commands, *arguments), capsys.readouterr())


@pytest.fixture
def student(monkeypatch):
    """A student that answers right where the sum is even; counts what it was asked."""
    asked = []

    def message(episode):
        asked.append(episode.seed)
        gold = int(episode.task.answers[0])
        return f"\\boxed{{{gold if gold % 2 == 0 else -1}}}"

    def load_student(name, **options):
        return ScriptedAgent(message, name)

    monkeypatch.setattr(agents, "load_student", load_student)
    return asked


def run(out, *more):
    return ("run", ENV, "--student", "fake", "--out", out, *more)


def test_run_saves_every_episode_task_by_task(ovd, student, tmp_path):
    out = tmp_path / "episodes.jsonl"
    code, printed = ovd(*run(out, "--tasks", 5, "--group-size", 2, "--batch-size", 3, "--json"))
    episodes = list(read_episodes(out))
    tasks = make(ENV).tasks.distinct("test", 5)
    assert [(e.task.id, e.index) for e in episodes] == [(t.id, i) for t in tasks for i in (0, 1)]
    right = sum(2 for task in tasks if int(task.answers[0]) % 2 == 0)
    summary = json.loads(printed.out)
    assert code == 0
    assert summary["mean_reward"] == pytest.approx(right / 10)
    assert (summary["episodes"], summary["new"], summary["tasks"]) == (10, 10, 5)


def test_run_again_asks_for_nothing_and_a_larger_run_for_the_rest_only(ovd, student, tmp_path):
    out = tmp_path / "episodes.jsonl"
    ovd(*run(out, "--tasks", 3))
    before = out.read_bytes()
    student.clear()
    ovd(*run(out, "--tasks", 3))
    assert student == []
    assert out.read_bytes() == before
    ovd(*run(out, "--tasks", 5))
    assert student == [(0, 0, 3, 0), (0, 0, 4, 0)]
    assert out.read_bytes().startswith(before)


def test_ctrl_c_keeps_what_has_ended_and_the_same_command_goes_on(
    ovd, student, tmp_path, monkeypatch
):
    whole, stopped = tmp_path / "whole.jsonl", tmp_path / "stopped.jsonl"
    ovd(*run(whole, "--tasks", 6, "--batch-size", 2))
    load = agents.load_student

    def load_impatient(name, **options):
        agent = load(name)
        act, calls = agent.act, []

        def act_twice(episodes):
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return act(episodes)

        agent.act = act_twice
        return agent

    monkeypatch.setattr(agents, "load_student", load_impatient)
    with pytest.raises(KeyboardInterrupt, match=r"4 of 6 episodes are in .*stopped\.jsonl"):
        ovd(*run(stopped, "--tasks", 6, "--batch-size", 2))
    assert len(list(read_episodes(stopped))) == 4
    monkeypatch.setattr(agents, "load_student", load)
    student.clear()
    ovd(*run(stopped, "--tasks", 6, "--batch-size", 2))
    assert len(student) == 2

    def content(path):
        return [
            (e.id, e.seed, e.task, e.reward, [t.action for t in e.turns])
            for e in read_episodes(path)
        ]

    assert content(stopped) == content(whole)


def test_ctrl_c_among_episodes_that_go_on_each_for_itself(ovd, student, tmp_path, monkeypatch):
    whole, stopped = tmp_path / "whole.jsonl", tmp_path / "stopped.jsonl"
    ovd(*run(whole, "--tasks", 9))
    load = agents.load_student

    class Later(ScriptedAgent):
        """Asked for one at a time, as vLLM and chat APIs are; interrupted at the sixth."""

        left = 5

        def submit(self, episode):
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            future = Future()
            future.set_result(self.act([episode])[0])
            return future

    monkeypatch.setattr(agents, "load_student", lambda name, **_: Later(load(name).script, name))
    with pytest.raises(
        KeyboardInterrupt, match=r"\d of 9 episodes are in .*stopped\.jsonl"
    ) as said:
        ovd(*run(stopped, "--tasks", 9, "--batch-size", 3))
    kept = len(list(read_episodes(stopped)))
    assert f"{kept} of 9" in str(said.value)
    assert 3 <= kept <= 5  # those under way are given up
    monkeypatch.setattr(agents, "load_student", load)
    student.clear()
    ovd(*run(stopped, "--tasks", 9))
    assert len(student) == 9 - kept
    assert [(e.id, e.answer) for e in read_episodes(stopped)] == [
        (e.id, e.answer) for e in read_episodes(whole)
    ]


def test_an_episode_that_failed_is_counted_and_tried_again(ovd, student, tmp_path, monkeypatch):
    out = tmp_path / "episodes.jsonl"
    load, broken = agents.load_student, [True]

    def load_flaky(name, **options):
        script = load(name).script

        def message(episode):
            if broken[0] and episode.seed[2] == 1:
                raise ConnectionError("the server is down")
            return script(episode)

        return ScriptedAgent(message, name)

    monkeypatch.setattr(agents, "load_student", load_flaky)
    code, printed = ovd(*run(out, "--tasks", 3, "--json"))
    assert code == 1
    assert json.loads(printed.out)["errors"] == 1
    assert "ConnectionError: the server is down" in printed.err
    broken[0] = False
    student.clear()
    code, printed = ovd(*run(out, "--tasks", 3, "--json"))
    assert (code, len(student), json.loads(printed.out)["errors"]) == (0, 1, 0)
    assert len(list(read_episodes(out))) == 3


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (["--temperature", "0.5"], "temperature 1.0, this run has 0.5"),
        (["--max-tokens", "9"], "max_tokens 256, this run has 9"),
        (["-e", "attempts=2"], "env_options"),
        (["--seed", "1"], "none of this run's"),
        (["--tasks", "2"], "none of this run's"),
        (["--split", "train"], "none of this run's"),
        (["--student", "other"], "agent 'fake', this run has 'other'"),
    ],
)
def test_a_file_of_another_run_is_refused_and_kept(ovd, student, tmp_path, other, message):
    out = tmp_path / "episodes.jsonl"
    ovd(*run(out, "--tasks", 3))
    before = out.read_bytes()
    with pytest.raises(OVDError, match=message):
        ovd(*run(out, "--tasks", 3, *other))
    assert out.read_bytes() == before


def test_tasks_from_a_file(ovd, student, tmp_path):
    rows = [
        {"id": "mine-1", "question": "1 + 1?", "answers": ["2"]},
        {"id": "mine-2", "question": "2 + 3?", "answer": "5"},
    ]
    tasks, out = tmp_path / "tasks.jsonl", tmp_path / "episodes.jsonl"
    tasks.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ovd(*run(out, "--tasks", tasks))
    first, second = read_episodes(out)
    assert (first.task.id, first.task.question, first.reward) == ("mine-1", "1 + 1?", 1.0)
    assert (second.task.id, second.task.answers, second.reward) == ("mine-2", ("5",), 0.0)


def test_a_model_of_the_same_name_at_another_address_is_another(ovd, student, tmp_path):
    out = tmp_path / "episodes.jsonl"
    ovd(*run(out, "--tasks", 3, "--backend", "openai:http://one/v1"))
    before = out.read_bytes()
    for other in ("openai:http://two/v1", "transformers"):
        with pytest.raises(OVDError, match="api 'openai:http://one/v1', this run has"):
            ovd(*run(out, "--tasks", 4, "--backend", other))
    assert out.read_bytes() == before


def test_a_file_of_tasks_that_has_changed_is_another_run(ovd, student, tmp_path):
    tasks, out = tmp_path / "tasks.jsonl", tmp_path / "episodes.jsonl"
    tasks.write_text('{"question": "1 + 1?", "answer": "2"}\n')  # no ids: named by file and row
    ovd(*run(out, "--tasks", tasks))
    before = out.read_bytes()
    for changed in (
        '{"question": "2 + 2?", "answer": "4"}\n',
        '{"question": "1 + 1?", "answer": "3"}\n',
    ):
        tasks.write_text(changed)
        with pytest.raises(OVDError, match="none of this run's"):
            ovd(*run(out, "--tasks", tasks))
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("", "holds none"),
        ('{"question": "1 + 1?", "answer": "2"}\n{oops\n', "row 2"),
        ('{"question": "1 + 1?"}\n', "row 1"),
    ],
)
def test_a_bad_task_file_is_named(ovd, student, tmp_path, content, message):
    path = tmp_path / "tasks.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(OVDError, match=message) as caught:
        ovd(*run(tmp_path / "out.jsonl", "--tasks", path))
    assert "tasks.jsonl" in str(caught.value)


@pytest.mark.parametrize("tasks", ["0", "1000000"])
def test_a_number_of_tasks_that_is_not_there_is_refused(ovd, student, tmp_path, tasks):
    with pytest.raises(OVDError, match=tasks):
        ovd(*run(tmp_path / "out.jsonl", "--tasks", tasks))


def test_watch_shows_each_episode(ovd, student, tmp_path):
    _, printed = ovd(*run(tmp_path / "out.jsonl", "--tasks", 2, "--watch"))
    for task in make(ENV).tasks.distinct("test", 2):
        assert task.question in printed.err


@pytest.mark.parametrize(
    ("more", "pace"),
    [
        ((), {"mode": None, "workers": "threads", "batch_size": 64}),
        (("--mode", "free"), {"mode": "free", "workers": "threads", "batch_size": 64}),
        (
            ("--workers", "2", "--batch-size", 3),
            {"mode": None, "workers": 2, "batch_size": 3},
        ),
    ],
)
def test_how_the_episodes_are_run(ovd, student, tmp_path, monkeypatch, more, pace):
    def spy(*arguments, **options):
        passed.update({name: options[name] for name in pace})
        return run_seeded(*arguments, **{**options, "workers": "threads"})

    passed: dict[str, object] = {}
    run_seeded = saved_run.run_seeded
    monkeypatch.setattr(saved_run, "run_seeded", spy)
    code, printed = ovd(*run(tmp_path / "e.jsonl", "--tasks", 3, *more, "--json"))
    assert (code, passed) == (0, pace)
    assert json.loads(printed.out)["episodes"] == 3


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--mode", "lockstep", "--workers", "processes"), "^workers 'processes': expected mode"),
        (("--mode", "lockstep", "--workers", "2"), "^workers 2: expected mode free, got lockstep$"),
        (("--mode", "fast"), "^mode: expected lockstep or free, got 'fast'$"),
        (("--workers", "0"), "^workers: expected threads, processes or a number"),
        (("--workers", "-1"), "^workers: expected threads, processes or a number"),
    ],
)
def test_what_cannot_be_run_is_told_before_a_model_is_loaded(ovd, tmp_path, more, message):
    # No such model: it would be what is told.
    with pytest.raises(OVDError, match=message):
        ovd("run", ENV, "--student", "/none/there", "--out", tmp_path / "e.jsonl", *more)
    assert not (tmp_path / "e.jsonl").exists()


def test_play_from_a_pipe_saves_an_episode_in_the_same_form(ovd, tmp_path, monkeypatch):
    out = tmp_path / "mine.jsonl"
    for number in (1, 2):
        monkeypatch.setattr("sys.stdin", io.StringIO("hm\n\\boxed{-3}\n"))
        code, printed = ovd("play", ENV, "--seed", 7, "-e", "attempts=2", "--out", out)
        assert code == 0
        assert len(list(read_episodes(out))) == number
    first, second = read_episodes(out)
    assert first.id != second.id
    assert first.task == second.task
    assert [turn.action for turn in first.turns] == ["hm", "\\boxed{-3}"]
    assert (first.agent, first.env, first.reward) == ("human", ENV, 0.0)
    gold = first.task.answers[0]
    assert f"gold answer: {gold}" in printed.out
    assert gold not in printed.out.split("gold answer")[0].replace(first.task.question, "")


def test_play_a_named_task(ovd, monkeypatch):
    task = make(ENV).tasks.task("test", 3)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"\\boxed{{{task.answers[0]}}}\n"))
    _, printed = ovd("play", ENV, "--task", task.id)
    assert task.question in printed.out
    assert "reward 1" in printed.out
    with pytest.raises(TaskError, match="nowhere"):
        ovd("play", ENV, "--task", "nowhere")


def test_play_with_an_input_that_ends_too_early_saves_nothing(ovd, tmp_path, monkeypatch):
    out = tmp_path / "mine.jsonl"
    monkeypatch.setattr("sys.stdin", io.StringIO("hm\n"))
    with pytest.raises(OVDError, match=r"ended in turn 2.*nothing was saved"):
        ovd("play", ENV, "-e", "attempts=2", "--out", out)
    assert not out.exists()


def test_play_tells_of_a_bad_file_before_the_person_starts(ovd, tmp_path):
    out = tmp_path / "notes.txt"
    out.write_text("notes\n")
    with pytest.raises(OVDError, match="row 1"):
        ovd("play", ENV, "--out", out)


@pytest.mark.parametrize(
    ("more", "name"),
    [
        (("-e", "protocol=search-r1"), "inline"),
        (("-e", "protocol=search-r1", "--dialect", "chat"), "chat"),
        (("-e", "protocol=tags"), "chat"),
        (("-e", "protocol=tags", "--dialect", "inline"), "inline"),
    ],
)
def test_the_dialect_is_the_environment_s_own_unless_one_is_given(
    ovd, monkeypatch, tmp_path, more, name
):
    def load_student(name, *, dialect, **options):
        loaded.append(dialect)
        return ScriptedAgent(lambda episode: "<answer>x</answer>", name)

    loaded: list[str] = []
    monkeypatch.setattr(agents, "load_student", load_student)
    command = (
        *("run", "ovd/WorldQA-v0", "--student", "fake", "--tasks", "1", "-e", "people=100"),
        *("--out", tmp_path / "e.jsonl"),
    )
    code, _ = ovd(*command, *more)
    assert code == 0
    [episode] = read_episodes(tmp_path / "e.jsonl")
    assert episode.info["settings"]["dialect"] == name
    assert loaded == [name]
    # The episodes of one file are of one dialect.
    other = "chat" if name == "inline" else "inline"
    with pytest.raises(OVDError, match=f"an episode with dialect '{name}', this run has"):
        ovd(*command, *more, "--dialect", other)
