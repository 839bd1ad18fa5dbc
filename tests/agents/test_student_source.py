"""What a command's options and a run's record come to, for every command that takes a student."""

import pytest

import agents
from agents import student_source
from agents.student import Student
from agents.student_source import StudentSource, choose_student
from agents.transformers_backend import TransformersBackend
from ovd_envs import OVDError
from tests.tiny import tiny_model, tiny_tokenizer

ENV = "ovd/Math-v0"
SOURCE = StudentSource(
    model="there/step-4/model",
    dtype="float32",
    max_tokens=33,
    max_context=120,
    max_episode_tokens=44,
    dialect="inline",
    env=ENV,
    env_options={"attempts": 3, "level": "word-1"},
)


@pytest.fixture(autouse=True)
def _one_run(monkeypatch):
    monkeypatch.setattr(student_source, "readers", [lambda name: SOURCE if name == "run" else None])


def test_what_is_not_given_is_the_runs():
    chosen = choose_student("run", None, {"level": "word-2"})
    assert (chosen.env, chosen.max_tokens, chosen.dialect) == (ENV, 33, "inline")
    assert chosen.env_options == {"attempts": 3, "level": "word-2"}
    assert chosen.settings["checkpoint"] == "there/step-4/model"


def test_what_is_given_wins_and_options_belong_to_their_environment():
    chosen = choose_student("run", "ovd/WorldQA-v0", {"people": 100}, max_tokens=5, dialect="chat")
    assert (chosen.env, chosen.max_tokens, chosen.dialect) == ("ovd/WorldQA-v0", 5, "chat")
    assert chosen.env_options == {"people": 100}


def test_a_plain_model():
    chosen = choose_student("smollm2-135m", ENV, {})
    assert (chosen.max_tokens, chosen.dialect, chosen.env_options) == (256, "chat", {})
    assert chosen.settings["checkpoint"] is None
    with pytest.raises(OVDError, match=r"^ENV: expected the name .* 'smollm2-135m' is no run"):
        choose_student("smollm2-135m", None, {})


def test_it_is_loaded_with_the_budgets_of_the_run(monkeypatch):
    asked = {}
    backend = TransformersBackend(tiny_model(), tiny_tokenizer())

    def load_student(name, **options):
        asked.update(options, name=name)
        return Student(backend)

    monkeypatch.setattr(agents, "load_student", load_student)
    chosen = choose_student("run", None, {})
    student = chosen.load(temperature=0.5, batch_size=7, backend="vllm")
    assert asked == {
        "name": "there/step-4/model",
        "temperature": 0.5,
        "max_tokens": 33,
        "dtype": "float32",
        "batch_size": 7,
        "dialect": "inline",
        "backend": "vllm",
    }
    assert (student.name, student.max_context, student.max_episode_tokens) == ("run", 120, 44)
    # A model that takes less than the run allowed keeps its own limit.
    limit = choose_student("other", ENV, {}).load(temperature=0, batch_size=1, backend="x")
    assert limit.max_context == backend.context_length
