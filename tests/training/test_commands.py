"""`ovd train` and `ovd eval` as a user meets them: what they print, and one line for a mistake."""

import fcntl
import json
import os
import re
import shutil
import struct
import termios
import threading

import pytest

from agents.episode import read_episodes
from tests.training.conftest import write_config
from training.run import Run

ENV = "ovd/Math-v0"


@pytest.fixture(scope="module")
def finished(ovd, student_folder, tmp_path_factory):
    """(run folder, process) of a run of two steps whose output was no terminal."""
    folder = tmp_path_factory.mktemp("finished")
    config = write_config(
        folder / "tiny.yaml",
        student_folder,
        optimizer={"steps": 2},
        rollout={"max_context": 76},  # a prompt and not quite six tokens
    )
    code, process = ovd.run("train", config, cwd=folder)
    assert code == 0, process.err
    return folder / "runs" / "tiny", process


def refused(ovd, *arguments, **options):
    """The one line that `ovd` says of a mistake."""
    code, process = ovd.run(*arguments, **options)
    assert code == 2, process.err
    assert process.out == ""
    lines = process.err.splitlines()
    assert len(lines) == 1, process.err
    assert lines[0].startswith("error: ")
    return lines[0].removeprefix("error: ")


# ovd train


def test_train_tells_its_steps_and_ends_with_a_table(finished):
    run, process = finished
    out = process.out
    assert re.search(r"^evaluation after step 0: student alone 0\.0% \[.*\] of 3$", out, re.M)
    for step in (1, 2):
        assert re.search(rf"^step {step}/2 alpha 0\.00 reward 0\.00 .*loss [+-]\d", out, re.M)
    assert "the student alone, greedy, on held-out tasks" in out
    assert re.search(r"before .* 0\.0% .* 0\.0% - 56\.1% .* 3", out)
    assert re.search(r"after .* 0\.0% .* 0\.0% - 56\.1% .* 3", out)
    assert "2 steps in 0:0" in out
    assert "the same tasks, before and after" in out
    assert out.count("reward 0") >= 6  # three tasks, before and after
    assert f"run folder: {run.relative_to(run.parents[1])}" in out
    assert f"next: ovd eval {ENV} --student runs/tiny" in out
    # Nothing of the libraries' own progress bars.
    assert "it/s" not in process.err + out
    assert "Traceback" not in process.err


def test_train_as_json_prints_only_that(ovd, config_file, tmp_path):
    config = config_file(optimizer={"steps": 1})
    code, process = ovd.run("train", config, "--run", tmp_path / "run", "--json")
    assert code == 0, process.err
    assert json.loads(process.out) == json.loads((tmp_path / "run" / "summary.json").read_text())


def test_train_without_evaluation_has_no_table(ovd, config_file, tmp_path):
    config = config_file(optimizer={"steps": 1}, evaluation={"tasks": 0})
    code, process = ovd.run("train", config, "--run", tmp_path / "run")
    assert code == 0, process.err
    assert "before" not in process.out
    assert "run folder" in process.out


def in_a_terminal(ovd, *arguments):
    """(exit code, what a terminal of 100 x 40 was told)."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    heard = []

    def listen():
        while True:
            try:
                data = os.read(master, 65536)
            except OSError:  # everybody on the other side has left
                return
            if not data:
                return
            heard.append(data)

    process = ovd.start(*arguments, terminal=os.ttyname(slave))
    thread = threading.Thread(target=listen)
    thread.start()
    code = process.wait()
    os.close(slave)
    thread.join(30)
    os.close(master)
    return code, b"".join(heard).decode()


def test_train_in_a_terminal_shows_the_run_live(ovd, config_file, tmp_path):
    config = config_file(optimizer={"steps": 3})
    code, text = in_a_terminal(ovd, "train", config, "--run", tmp_path / "run")
    assert code == 0, text
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert "Ctrl-C stops, --resume goes on" in plain
    assert "student alone, greedy: 0.0% [0.0%, 56.1%] of 3" in plain
    assert re.search(r"\d:\d\d gone, (-|\d:\d\d) left", plain)
    assert "it/s" not in plain
    assert "Traceback" not in plain
    end = plain[plain.rindex("the student alone, greedy, on held-out tasks") :]
    assert re.search(r"after .* 0\.0% - 56\.1%", end)
    # The table of the steps stays when the live view has gone.
    steps = plain[: plain.rindex("the student alone, greedy, on held-out")]
    assert re.search(r"3/3 +0\.00 +0\.00", steps[-2000:])
    # The cursor is there again.
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("student=/none/there", "model '/none/there': no such folder"),
        ("student=nobody/nothing", "model 'nobody/nothing'"),
        ("env=ovd/Maths-v0", "no environment 'ovd/Maths-v0': did you mean 'ovd/Math-v0'?"),
        (
            "algorithm.theta=12",
            "algorithm: theta: input should be less than or equal to 10, got 12",
        ),
        ("algorithm.scale=group", None),
        ("judge=stepz", "no judge 'stepz': did you mean 'steps'?"),
        ("optimizer.stepz=3", "unknown key 'optimizer.stepz', did you mean 'steps'?"),
        ("optimizer.steps", "--set 'optimizer.steps': expected KEY=VALUE"),
        ("env_options.source=none.jsonl", "none.jsonl"),
    ],
)
def test_train_names_what_cannot_be(ovd, config_file, tmp_path, change, said):
    run = tmp_path / "run"
    arguments = ["train", config_file(), "--run", run, "--set", change]
    if said is None:
        said = "baseline: student goes with scale: none"
        arguments += ["--set", "algorithm.baseline=student"]
    assert said in refused(ovd, *arguments)
    assert not run.exists() or {p.name for p in run.iterdir()} <= {".lock"}


def test_train_names_the_file_and_the_line(ovd, tmp_path):
    assert f"{tmp_path}/none.yaml: cannot be read" in refused(ovd, "train", tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("student: a\nenv: [b\nseed: 1\n")
    assert f"{broken}, line 3: not valid YAML" in refused(ovd, "train", broken)


def test_a_broken_row_of_a_task_file_is_named(ovd, config_file, tmp_path):
    data = tmp_path / "mine.jsonl"
    rows = [json.dumps({"question": f"Say {n}.", "answer": str(n)}) for n in range(30)]
    rows[16] = '{"question": "Say'
    data.write_text("\n".join(rows) + "\n")
    config = config_file(env_options={"source": str(data)})
    said = refused(ovd, "train", config, "--run", tmp_path / "run")
    assert f"{data}, row 17: not valid JSON" in said
    assert refused(ovd, "eval", ENV, "-s", "x", "--tasks", data) == said


@pytest.mark.parametrize("place", ["/proc/ovd", "a-file"])
def test_a_run_folder_that_cannot_be_written(ovd, config_file, tmp_path, place):
    (tmp_path / "a-file").touch()
    said = refused(ovd, "train", config_file(), "--run", tmp_path / place)
    assert "cannot be written" in said


def test_a_folder_with_other_files_is_left_alone(ovd, config_file, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine")
    said = refused(ovd, "train", config_file(), "--run", tmp_path / "run")
    assert "expected an empty or new folder, found other files" in said


# ovd eval


def eval_json(ovd, *arguments):
    code, process = ovd.run("eval", ENV, *arguments, "--json")
    assert code == 0, process.err
    return json.loads(process.out)


def test_eval_as_json(ovd, student_folder):
    result = eval_json(ovd, "--student", student_folder, "--tasks", 5, "--max-tokens", 4)
    assert result["accuracy"] == 0
    assert result["interval"] == pytest.approx([0, 0.4344825])
    assert result["n"] == 5
    assert (result["env"], result["student"]) == (ENV, str(student_folder))
    assert result["tokens"] <= 20


def test_eval_of_a_run_is_the_runs_own_evaluation(ovd, finished, tmp_path):
    run, _ = finished
    out = tmp_path / "e.jsonl"
    result = eval_json(ovd, "-s", run, "--tasks", 3, "--out", out, "--compare", run)
    own = Run(run).evaluation(2)
    assert [result[k] for k in ("accuracy", "n", "interval")] == [
        own[k] for k in ("accuracy", "n", "interval")
    ]
    theirs = list(read_episodes(Run(run).evaluation_episodes(2)))
    for episode, same in zip(read_episodes(out), theirs, strict=True):
        assert episode.task == same.task
        assert episode.segments[0].ids == same.segments[0].ids
        assert len(episode.segments[0].ids) == 76
    assert result["compare"]["with"] == str(run)
    assert {"n", "difference", "low", "high", "p", "gained", "lost"} <= set(result["compare"])
    # The same episodes again, as a file.
    again = eval_json(ovd, "-s", run, "--tasks", 3, "--compare", out)
    assert (again["compare"]["n"], again["compare"]["difference"]) == (3, 0)


def test_run_of_a_run_is_its_student_in_its_environment(ovd, finished, tmp_path):
    run, _ = finished
    out = tmp_path / "e.jsonl"
    greedy = ("--tasks", 3, "--temperature", 0, "--out", out, "--json")
    code, process = ovd.run("run", "--student", run, *greedy)
    assert code == 0, process.err
    assert json.loads(process.out)["new"] == 3
    theirs = list(read_episodes(Run(run).evaluation_episodes(2)))
    for episode, same in zip(read_episodes(out), theirs, strict=True):
        assert (episode.env, episode.agent) == (ENV, str(run))
        assert episode.segments[0].ids == same.segments[0].ids
        assert len(episode.segments[0].ids) == 76, "the run's context"
    # The run goes on: episodes of another checkpoint do not come into the same file.
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    before = ("run", "-s", copy, *greedy[:4], "--out", tmp_path / "copy.jsonl")
    assert ovd.run(*before)[0] == 0
    newest = Run(copy).latest_model().parent
    shutil.copytree(newest, newest.with_name("step-000009"))
    assert "step-000009/model'; expected another --out" in refused(ovd, *before)


def test_run_without_an_environment(ovd, tmp_path):
    said = refused(ovd, "run", "--student", "x", "--out", tmp_path / "e.jsonl")
    assert said == "ENV: expected the name of an environment, for 'x' is no run"


def test_eval_takes_questions_from_a_file(ovd, student_folder, tmp_path):
    data = tmp_path / "mine.jsonl"
    data.write_text(
        "".join(json.dumps({"question": f"Say {n}.", "answer": n}) + "\n" for n in range(4))
    )
    out = tmp_path / "e.jsonl"
    result = eval_json(ovd, "-s", student_folder, "--tasks", data, "--max-tokens", 4, "--out", out)
    assert result["n"] == 4
    assert [e.task.question for e in read_episodes(out)] == [f"Say {n}." for n in range(4)]


def test_eval_with_a_teacher_beside_the_student(ovd, student_folder, tmp_path):
    out = tmp_path / "e.jsonl"
    arguments = ("--student", student_folder, "--tasks", 3, "--max-tokens", 4, "--out", out)
    feedback = ("--teacher-feedback", "steps", "--gold-aware", "--attempts", 2)
    alone = eval_json(ovd, *arguments)
    result = eval_json(ovd, *arguments, *feedback)
    told = result.pop("teacher_feedback")
    del alone["seconds"], result["seconds"]
    assert result == alone  # what the student does alone is no other
    assert (told["judge"], told["gold_aware"], told["theta_test"]) == ("steps", True, 5)
    # A tiny student never pleases it.
    assert (told["retried"], told["retries"], told["judge_calls"]) == (3, 6, 9)
    assert told["tokens"] > alone["tokens"]
    assert len(list(read_episodes(out))) == len(list(read_episodes(tmp_path / "e.feedback.jsonl")))
    code, process = ovd.run("eval", ENV, *arguments, *feedback)
    assert code == 0, process.err
    assert "steps, which sees the gold answers; below 5 again, with its reason" in process.out
    assert re.search(r"judge calls\s.* 9 ", process.out)


def test_eval_with_several_samples(ovd, student_folder):
    common = ("-s", student_folder, "--tasks", 2, "--max-tokens", 3, "--samples", 3)
    result = eval_json(ovd, *common, "--temperature", 1)
    assert (result["n"], result["samples"]) == (2, 3)
    assert result["pass_at_k"].keys() == {"1", "2", "3"}
    assert "--temperature above 0" in refused(ovd, "eval", ENV, *common)


def test_eval_with_environments_in_processes(ovd, student_folder, tmp_path):
    common = ("-s", student_folder, "--tasks", 3, "--max-tokens", 4, "--out")
    ids = []
    for more in ((), ("--workers", 2)):
        out = tmp_path / f"{len(ids)}.jsonl"
        assert eval_json(ovd, *common, out, *more)["errors"] == 0
        ids.append([episode.segments[0].ids for episode in read_episodes(out)])
    assert ids[0] == ids[1]


def test_eval_prints_a_table(ovd, finished):
    run, _ = finished
    # Without ENV: the run's own.
    code, process = ovd.run(
        "eval", "-s", run.name, "--tasks", 3, "--compare", run.name, cwd=run.parent
    )
    assert code == 0, process.err
    assert re.search(r"accuracy .* 0\.0%  \[0\.0%, 56\.1%\]", process.out)
    assert re.search(r"against tiny .* \+0\.0%  \[\+0\.0%, \+0\.0%\]  p 1", process.out)
    assert "(0 gained, 0 lost, n 3)" in process.out


def test_eval_of_a_run_with_an_adapter(ovd, config_file, tmp_path):
    config = config_file(optimizer={"steps": 1, "lora": {"rank": 2}})
    run = tmp_path / "run"
    assert ovd.run("train", config, "--run", run)[0] == 0
    out = tmp_path / "e.jsonl"
    assert eval_json(ovd, "-s", run, "--tasks", 3, "--out", out)["n"] == 3
    own = read_episodes(Run(run).evaluation_episodes(1))
    for episode, same in zip(read_episodes(out), own, strict=True):
        assert episode.segments[0].ids == same.segments[0].ids


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-s", "/none/there"), "model '/none/there': no such folder"),
        (("-s", "x", "--tasks", "0"), "--tasks: expected at least 1"),
        (("-s", "x", "--tasks", "none.jsonl"), "none.jsonl: cannot be read"),
        (("-s", "x", "--split", "tets"), "split: expected one of"),
        (("-s", "x", "-e", "levle=word-1"), "did you mean 'level'?"),
        (("-s", "x", "-e", "level"), "expected KEY=VALUE"),
        (("-s", "x", "--compare", "none.jsonl"), "none.jsonl: cannot be read"),
        (("-s", "x", "--teacher-feedback", "steps"), "judge 'steps': reads the gold answers"),
        (("-s", "x", "--gold-aware"), "expected --teacher-feedback JUDGE with them"),
        (("-s", "x", "--teacher-feedback", "stepz"), "did you mean 'steps'?"),
        (
            ("-s", "x", "--teacher-feedback", "llm", "--judge-option", "show_gold=true"),
            "show_gold=True lets the teacher's feedback tell the answer",
        ),
        (
            ("-s", "x", "--teacher-feedback", "steps", "--samples", "2", "--temperature", "1"),
            "expected one sample of each task, got 2",
        ),
        (
            ("-s", "x", "--teacher-feedback", "steps", "--no-with-reason"),
            "a greedy student says the same again",
        ),
        (("-s", "x", "--mode", "lockstep", "--workers", "2"), "workers 2: expected mode free"),
    ],
)
def test_eval_names_what_cannot_be(ovd, arguments, said):
    assert said in refused(ovd, "eval", ENV, *arguments)


def test_eval_of_a_run_without_a_checkpoint(ovd, finished, tmp_path):
    run = Run(tmp_path / "begun")
    run.create(Run(finished[0]).config(), {})
    assert "no checkpoint yet" in refused(ovd, "eval", ENV, "-s", run)
    assert "has no evaluation yet" in refused(ovd, "eval", ENV, "-s", finished[0], "--compare", run)


def test_an_evaluation_that_no_longer_fits_the_comparison(ovd, finished, tmp_path, student_folder):
    data = tmp_path / "mine.jsonl"
    data.write_text(json.dumps({"question": "Say 1.", "answer": 1}) + "\n")
    code, process = ovd.run(
        *("eval", ENV, "-s", student_folder, "--tasks", data, "--max-tokens", 2),
        *("--compare", finished[0], "--out", tmp_path / "kept.jsonl"),
    )
    assert code == 2
    assert process.err.splitlines()[-1] == "error: the two evaluations have no task in common"
    assert len(list(read_episodes(tmp_path / "kept.jsonl"))) == 1
