"""The configuration: every mistake named in one line, and what is written reads the same again."""

import math

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from training.config import Config, ConfigError, dump_config, load_config, parse_config

GOOD = {"student": "tiny", "env": "ovd/Math-v0"}


def refused(data):
    with pytest.raises(ConfigError) as raised:
        parse_config(data, where="a.yaml")
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith("a.yaml: ")
    return message.removeprefix("a.yaml: ")


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"studnet": "x"}, "unknown key 'studnet', did you mean 'student'?"),
        ({"optimizer": {"step": 3}}, "unknown key 'optimizer.step', did you mean 'steps'?"),
        (
            {"optimizer": {"lora": {"rnk": 3}}},
            "unknown key 'optimizer.lora.rnk', did you mean 'rank'?",
        ),
        ({"checkpoint": {"zzz": 1}}, "unknown key 'checkpoint.zzz', expected one of every, keep"),
        ({"rollout": {"group_size": 0}}, "rollout.group_size: input should be greater than"),
        ({"rollout": {"temperature": 0}}, "rollout.temperature: input should be greater than 0"),
        ({"rollout": {"top_p": 0.9}}, "unknown key 'rollout.top_p'"),
        ({"optimizer": {"learning_rate": "fast"}}, "optimizer.learning_rate: "),
        ({"optimizer": {"schedule": "cosin"}}, "optimizer.schedule: "),
        ({"optimizer": {"betas": [1.5, 0.9]}}, "optimizer.betas.0: "),
        ({"threads": 100_000}, "threads: "),  # torch would end in a segmentation fault
        ({"optimizer": []}, "optimizer: "),
        ({"judge": {"theta": 3}}, "'judge.name' is missing"),
        ({"split": "test"}, "evaluation.split and split are both 'test'"),
        ({"dtype": "float16"}, "dtype: "),
        ({1: 2}, "1"),
        ({None: 2}, ""),
    ],
)
def test_a_mistake_is_named(extra, said):
    assert said in refused({**GOOD, **extra})


def test_what_is_missing_is_named():
    assert refused({"env": "e"}) == "'student' is missing"


def test_the_value_that_came_is_named():
    assert refused({**GOOD, "seed": -1}).endswith("got -1")


def write(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("student: a\nenv: [b\nseed: 1\n", "c.yaml, line 3: not valid YAML"),
        ("student: a\n\tenv: b\n", "c.yaml, line 2: not valid YAML"),
        ("- a\n- b\n", "c.yaml: expected keys and values, got list"),
        ("", "c.yaml: expected keys and values, got NoneType"),
        ("student: !!python/object/apply:os.system [ls]\n", "not valid YAML"),
        ("student: a\nenv: b\nseed: x\n", "c.yaml: seed: "),
    ],
)
def test_a_file_that_cannot_be_read_as_a_configuration(tmp_path, text, said):
    with pytest.raises(ConfigError) as raised:
        load_config(write(tmp_path, text))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"student: \xe9\n")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(tmp_path / "latin.yaml")


def test_a_key_twice_is_a_mistake(tmp_path):
    """YAML forbids it; PyYAML would let the last one win in silence."""
    path = write(tmp_path, "student: a\nenv: b\nseed: 1\noptimizer: {steps: 1}\nseed: 2\n")
    with pytest.raises(ConfigError, match=r"line 5.*'seed'"):
        load_config(path)


def test_overrides(tmp_path):
    path = write(tmp_path, "student: a\nenv: b\njudge: steps\noptimizer: {steps: 3}\n")
    config = load_config(
        path,
        [
            "optimizer.steps=5",
            "optimizer.learning_rate=1e-4",
            "optimizer.lora.rank=4",
            "env_options.level=word-1",
            "judge.theta=[1, 2]",
            "demonstrator=scripted",
            "rollout.max_context=null",
        ],
    )
    assert (config.optimizer.steps, config.optimizer.learning_rate) == (5, 1e-4)
    assert config.optimizer.lora is not None
    assert config.optimizer.lora.rank == 4
    assert config.env_options == {"level": "word-1"}
    assert config.judge is not None
    assert (config.judge.name, config.judge.options) == ("steps", {"theta": [1, 2]})
    assert config.demonstrator is not None
    assert config.demonstrator.name == "scripted"
    assert load_config(path).optimizer.steps == 3


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optimizer.steps", "expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("optimizer.steps=[", "not valid YAML"),
        ("optimizer.steps.more=1", "'steps' holds a value, not keys"),
        ("optimizer.stepz=1", "did you mean 'steps'?"),
        ("optimizer..steps=1", "unknown key"),
        ("optimizer.steps=0", "optimizer.steps: "),
    ],
)
def test_an_override_that_cannot_be(tmp_path, override, said):
    path = write(tmp_path, "student: a\nenv: b\noptimizer: {steps: 3}\n")
    with pytest.raises(ConfigError) as raised:
        load_config(path, [override])
    assert said in str(raised.value)


PLAIN = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5) | st.floats(-2, 2)
OPTIONS = st.dictionaries(
    st.text(min_size=1, max_size=6).filter(lambda k: k != "name"),
    PLAIN | st.lists(PLAIN, max_size=2),
    max_size=3,
)
CONFIGS = st.fixed_dictionaries(
    {"student": st.text(min_size=1, max_size=8), "env": st.text(min_size=1, max_size=8)},
    optional={
        "env_options": OPTIONS,
        "judge": OPTIONS.map(lambda o: {**o, "name": "j"}) | st.just("steps"),
        "algorithm": OPTIONS.map(lambda o: {**o, "name": "a"}),
        "optimizer": st.fixed_dictionaries(
            {},
            optional={
                "steps": st.integers(1, 10**6),
                "learning_rate": st.floats(1e-12, 1),
                "max_grad_norm": st.floats(1e-3, 10) | st.just(math.inf),
                "lora": st.none() | st.just({"rank": 3, "targets": ["q_proj"]}),
                "betas": st.just([0.9, 0.95]),
            },
        ),
        "seed": st.integers(0, 2**40),
        "threads": st.none() | st.integers(1, 4),
    },
)


@settings(max_examples=150, deadline=None)
@given(data=CONFIGS)
def test_what_is_written_reads_the_same_again(tmp_path_factory, data):
    config = parse_config(data)
    path = tmp_path_factory.mktemp("c") / "config.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    again = load_config(path)
    assert again == config
    assert again.model_dump() == config.model_dump()


def test_every_default_is_written():
    written = yaml.safe_load(dump_config(parse_config(GOOD)))
    assert written.keys() == Config.model_fields.keys()
    assert written["optimizer"]["kl"] == 0.001
    assert written["algorithm"] == {"name": "ovd"}


def test_a_configuration_is_not_changed_in_place():
    config = parse_config(GOOD)
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3
    with pytest.raises(ValueError, match="frozen"):
        config.optimizer.steps = 3
