"""The run folder: whole files or none, one process at a time."""

import pytest

from ovd_envs.errors import OVDError
from tests.tiny import tiny_model, tiny_tokenizer
from tests.training.made import group_of, student
from training.checkpoint import read_checkpoint, write_checkpoint
from training.config import OptimizerConfig, dump_config, parse_config
from training.learner import Learner
from training.run import Run, RunError

CONFIG = parse_config({"student": "s", "env": "e"})


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path / "run")
    run.create(CONFIG, {"dtype": "float32"})
    return run


def test_a_run_is_made_once(run):
    assert run.exists
    assert run.config() == CONFIG
    assert run.facts() == {"dtype": "float32"}
    run.create(CONFIG, {"dtype": "bfloat16"})  # nothing has come of it
    assert run.facts() == {"dtype": "bfloat16"}
    run.add_metrics({"step": 1})
    with pytest.raises(RunError, match="--resume goes on with it"):
        run.create(CONFIG, {})


def test_other_files_are_left_alone(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.yaml").write_text("student: my own\n")
    with pytest.raises(RunError, match="found other files"):
        Run(folder).create(CONFIG, {})
    assert (folder / "config.yaml").read_text() == "student: my own\n"
    assert not Run(folder).exists


def test_what_a_kill_at_the_beginning_left_is_no_other_file(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".lock").touch()
    (folder / ".run.json.123-abcd").write_text("{")
    (folder / "config.yaml").write_text(dump_config(CONFIG))
    Run(folder).create(CONFIG, {})
    assert Run(folder).exists


def test_reading_what_is_not_there(tmp_path, run):
    for read in (Run(tmp_path / "none").config, Run(tmp_path / "none").facts):
        with pytest.raises(RunError, match="none"):
            read()
    assert run.metrics() == []
    assert run.groups(1) is None
    assert run.evaluation(1) is None
    assert run.evaluations() == []
    assert run.checkpoints() == []
    assert run.summary() is None
    with pytest.raises(RunError, match="no checkpoint yet"):
        run.latest_model()


def test_one_process_at_a_time(run):
    other = Run(run.path)
    with run.locked(), pytest.raises(RunError, match="another process is training"):
        other.locked().__enter__()
    with run.locked():
        pass


@pytest.mark.parametrize("place", ["/proc/ovd-run", "file", "file/below"])
def test_a_place_that_cannot_be_written(tmp_path, place):
    (tmp_path / "file").touch()
    with (
        pytest.raises(RunError, match="cannot be written") as raised,
        Run(tmp_path / place).locked(),
    ):
        pass
    assert "\n" not in str(raised.value)


def test_metrics_grow_by_whole_lines(run):
    run.add_metrics({"step": 1})
    path = run.path / "metrics.jsonl"
    with path.open("ab") as handle:
        handle.write(b'{"step": 2')
    assert run.metrics() == [{"step": 1}]
    run.cut_torn_line()
    assert path.read_bytes() == b'{"step": 1}\n'
    run.cut_torn_line()
    run.add_metrics({"step": 2})
    assert run.metrics() == [{"step": 1}, {"step": 2}]
    path.write_bytes(b'{"step": 1}\nnonsense\n{"step": 3}\n')
    with pytest.raises(OVDError, match="row 2"):
        run.metrics()
    path.write_bytes(b'{"torn')
    assert run.metrics() == []
    run.cut_torn_line()
    assert path.read_bytes() == b""


def test_a_full_disk_is_named(run):
    (run.path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(RunError, match=r"metrics\.jsonl: cannot be written \(No space"):
        run.add_metrics({"step": 1})


def test_groups_and_evaluations_come_back(run):
    groups = [group_of([0.0, 1.0], [None, 9]), group_of([0.5], [3], number=1)]
    run.save_groups(3, groups)
    assert run.groups(3) == groups
    episodes = [student(1.0)]
    run.save_evaluation(10, {"step": 10}, episodes)
    run.save_evaluation(2, {"step": 2}, episodes)
    assert run.evaluation(10) == {"step": 10}
    assert [result["step"] for result in run.evaluations()] == [2, 10]
    (run.path / "evaluations" / "step-000010.json").write_text("[")
    with pytest.raises(RunError, match=r"step-000010\.json: not valid JSON"):
        run.evaluation(10)


def write(run, step, keep=1):
    with run.new_checkpoint(step, keep) as folder:
        (folder / "model").mkdir()
        (folder / "state.json").write_text(str(step))


def test_checkpoints_appear_whole_and_old_ones_go(run):
    for step in (2, 4, 10):
        with run.new_checkpoint(step, 2) as folder:
            assert step not in dict(run.checkpoints())
            (folder / "state.json").write_text(str(step))
    assert [step for step, _ in run.checkpoints()] == [4, 10]
    assert run.latest_model() == run.path / "checkpoints" / "step-000010" / "model"
    assert {p.name for p in (run.path / "checkpoints").iterdir()} == {"step-000004", "step-000010"}
    run.remove_old_checkpoints(1)
    assert [step for step, _ in run.checkpoints()] == [10]


@pytest.mark.parametrize(
    ("fault", "raised"), [(OSError(28, "No space left"), RunError), (KeyError("x"), KeyError)]
)
def test_a_checkpoint_that_fails_leaves_the_old_one(run, fault, raised):
    write(run, 2)

    def fail():
        with run.new_checkpoint(4, 1) as folder:
            (folder / "state.json").write_text("half")
            raise fault

    with pytest.raises(raised):
        fail()
    assert [step for step, _ in run.checkpoints()] == [2]
    assert {p.name for p in (run.path / "checkpoints").iterdir()} == {"step-000002"}


def test_a_disk_that_fills_up_under_the_tokenizer_is_named(run):
    """Its library raises a bare Exception then, safetensors an error of its own."""

    class Full:
        def save_pretrained(self, folder):
            raise Exception("No space left on device (os error 28)")

    learner = Learner(tiny_model(), OptimizerConfig(kl=0))

    def fail(tokenizer):
        with run.new_checkpoint(2, 1) as folder:
            write_checkpoint(folder, learner, tokenizer, 2)

    with pytest.raises(RunError, match="No space left on device"):
        fail(Full())
    assert run.checkpoints() == []
    with pytest.raises(AttributeError):  # a bug keeps its name
        fail(None)


@pytest.mark.parametrize("name", ["optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("content", [None, b"", b"nonsense", b"\xff\xff"])
def test_a_checkpoint_that_is_damaged_is_named(run, name, content):
    learner = Learner(tiny_model(), OptimizerConfig(kl=0))
    with run.new_checkpoint(2, 1) as folder:
        write_checkpoint(folder, learner, tiny_tokenizer(), 2)
    place = run.path / "checkpoints" / "step-000002"
    assert read_checkpoint(place, learner) == 2
    if content is None:
        (place / name).unlink()
    else:
        (place / name).write_bytes(content)
    with pytest.raises(OVDError, match=r"step-000002: cannot be read \(") as raised:
        read_checkpoint(place, learner)
    assert "\n" not in str(raised.value)


def test_a_checkpoint_of_another_model_is_refused(run):
    learner = Learner(tiny_model(), OptimizerConfig(kl=0))
    with run.new_checkpoint(2, 1) as folder:
        write_checkpoint(folder, learner, tiny_tokenizer(), 2)
    other = Learner(tiny_model(vocabulary=300), OptimizerConfig(kl=0))
    with pytest.raises(OVDError, match="cannot be read"):
        read_checkpoint(run.path / "checkpoints" / "step-000002", other)


def test_a_half_written_checkpoint_is_none(run):
    write(run, 2)
    half = run.path / "checkpoints" / ".writing-x"
    half.mkdir()
    (half / "state.json").write_text("half")
    (run.path / "checkpoints" / "step-000007").write_text("a file, not a folder")
    assert [step for step, _ in run.checkpoints()] == [2]
    write(run, 4)
    assert not half.exists()
