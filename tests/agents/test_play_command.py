"""`ovd play --with-student` from the command line, with a real model in a folder and with a run."""

import io

import pytest
import typer

import agents
from agents.commands import register_commands
from agents.episode import read_episodes
from agents.scripted import ScriptedAgent
from agents.student_source import StudentSource, find_source, readers
from ovd_envs import OVDError
from tests.tiny import tiny_model, tiny_tokenizer
from training.commands import _run_student
from training.config import parse_config
from training.run import Run

ENV = "ovd/Math-v0"


@pytest.fixture
def play(capsys, monkeypatch):
    """Runs `ovd play` with these lines as a pipe; gives what it printed."""
    app = typer.Typer()
    register_commands(app)
    command = typer.main.get_command(app)

    def call(lines, *arguments):
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        with command.make_context("ovd", ["play", *map(str, arguments)]) as context:
            command.invoke(context)
        return capsys.readouterr().out

    return call


def test_with_a_model_in_a_folder(play, tmp_path):
    model, out = tmp_path / "tiny", tmp_path / "mine.jsonl"
    tiny_model().save_pretrained(model)
    tiny_tokenizer().save_pretrained(model)
    printed = play(
        ["mine", "", "/student"],
        *(ENV, "--with-student", model, "--seed", 7, "-e", "attempts=4"),
        *("--max-tokens", 5, "--out", out),
    )
    [episode] = read_episodes(out)
    name = str(model)
    assert episode.agent == f"human+{name}"
    assert episode.info["written_by"] == ["human", name, name, name]
    assert 3 <= episode.num_sampled_tokens <= 15
    [segment] = episode.segments
    own = tiny_tokenizer().encode("mine<|im_end|>")
    start = next(n for n in range(len(segment.ids)) if segment.ids[n : n + len(own)] == own)
    assert segment.mask[: start + len(own)] == [0] * (start + len(own))
    assert "…" in printed.split(" would say")[0][-30:], "a long path is shortened"
    assert "turns written by: " in printed


def fake(monkeypatch):
    asked = {}

    def load_student(name, **options):
        asked.update(options, name=name)
        return ScriptedAgent(lambda episode: "\\boxed{1}", name)

    monkeypatch.setattr(agents, "load_student", load_student)
    return asked


def test_a_run_brings_its_model_and_its_own_options(play, tmp_path, monkeypatch):
    asked = fake(monkeypatch)
    run = Run(tmp_path / "run")
    config = parse_config(
        {
            "student": "smollm2-135m",
            "env": ENV,
            "env_options": {"attempts": 3},
            "judge": "steps",
            "algorithm": "grpo",
            "rollout": {"max_tokens": 33, "max_context": 500, "dialect": "inline"},
        }
    )
    run.create(config, {"dtype": "float32"})
    with pytest.raises(OVDError, match="no checkpoint yet"):
        play(["", "", ""], ENV, "--with-student", run)
    (run.path / "checkpoints" / "step-000004").mkdir(parents=True)
    assert find_source(str(run)) == StudentSource(
        model=str(run.path / "checkpoints" / "step-000004" / "model"),
        dtype="float32",
        max_tokens=33,
        max_context=500,
        dialect="inline",
        env=ENV,
        env_options={"attempts": 3},
    )
    printed = play(["", "mine", ""], ENV, "--with-student", run, "--temperature", 0)
    assert "3 turns" in printed, "the run's attempts"
    assert asked == {
        "name": str(run.path / "checkpoints" / "step-000004" / "model"),
        "temperature": 0.0,
        "max_tokens": 33,
        "dtype": "float32",
        "batch_size": 1,
        "dialect": "inline",
        "backend": "transformers",
    }
    printed = play([""], ENV, "--with-student", run, "-e", "attempts=1", "--max-tokens", 8)
    assert "1 turn " in printed, "an option that is given wins"
    assert asked["max_tokens"] == 8


def test_any_other_name_is_a_model():
    assert _run_student in readers
    assert find_source("smollm2-135m") == StudentSource("smollm2-135m")


def test_a_pipe_that_ends_too_early_saves_nothing(play, tmp_path, monkeypatch):
    fake(monkeypatch)
    out = tmp_path / "mine.jsonl"
    with pytest.raises(OVDError, match=r"ended in turn 2.*nothing was saved"):
        play([""], ENV, "--with-student", "pupil", "-e", "attempts=3", "--out", out)
    assert not out.exists()


def test_a_pipe_is_echoed_and_what_it_holds_is_not_obeyed(play, monkeypatch):
    fake(monkeypatch)
    printed = play(["a \x1b[2J b"], ENV, "--with-student", "pu\x1bpil")
    assert "you › a ␛[2J b" in printed
    assert "\x1b" not in printed
