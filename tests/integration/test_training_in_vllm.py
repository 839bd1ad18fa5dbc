"""A run whose student acts in vLLM: what acts after a step are the weights of that step."""

import pytest

from agents.episode import read_episodes
from agents.transformers_backend import load_model
from tests.integration.needs import needs_vllm
from tests.integration.test_vllm_backend import TOLERANCE, full_logprobs
from training.config import parse_config
from training.trainer import Trainer

pytestmark = [needs_vllm, pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

IN_VLLM = {
    "student": "smollm2-135m",
    "env": "ovd/Math-v0",
    "env_options": {"level": "addition"},
    # Its own episodes are learned from too: a demonstration has no sampler to differ from.
    "algorithm": {"name": "ovd", "baseline": "group", "keep_rejected": True},
    "judge": "steps",
    "demonstrator": "scripted",
    "backend": "vllm",
    "dtype": "float32",
}


@pytest.mark.parametrize("lora", [None, {"rank": 4, "alpha": 64}])
def test_the_sampler_follows_the_trainer(tmp_path, lora):
    config = {
        **IN_VLLM,
        "rollout": {"tasks_per_step": 2, "group_size": 2, "max_tokens": 8},
        # Large enough that two steps move the log-probabilities by many tolerances.
        "optimizer": {"steps": 2, "learning_rate": 1e-4, "kl": 0, "lora": lora},
        "evaluation": {"tasks": 2, "every": 1},
        "checkpoint": {"every": 1},
    }
    trainer = Trainer(parse_config(config), tmp_path / "run")
    try:
        trainer.train()
    finally:
        trainer.sampler.close()

    def gap(model, episodes):
        """The mean absolute difference of the sampler's log-probabilities and the model's."""
        found = []
        for episode in episodes:
            [segment] = episode.segments
            start = segment.mask.index(1)
            prompt, reply = segment.ids[:start], segment.ids[start:]
            expected = full_logprobs(model, prompt, reply, 1.0)
            found += [abs(a - b) for a, b in zip(segment.logprobs[start:], expected, strict=True)]
        return sum(found) / len(found)

    run = trainer.run
    first, last = (list(read_episodes(run.evaluation_episodes(step))) for step in (0, 2))
    assert {turn.version for episode in last for turn in episode.turns} == {2}
    model, _, _ = load_model(str(run.latest_model()), dtype="float32", device="cpu")
    assert gap(model, last) < TOLERANCE
    assert gap(model, first) > 10 * TOLERANCE
    assert [0 < row["sampler_mismatch"] < TOLERANCE for row in run.metrics()] == [True, True]


def test_it_samples_while_the_trainer_learns(tmp_path):
    """Each message tells its weights, at most one step old; their age shows in the mismatch."""
    config = {
        **IN_VLLM,
        "rollout": {"tasks_per_step": 2, "group_size": 2, "max_tokens": 8, "max_staleness": 1},
        "optimizer": {"steps": 3, "learning_rate": 1e-4, "kl": 0},
        "evaluation": {"tasks": 2, "every": 2},
    }
    trainer = Trainer(parse_config(config), tmp_path / "run")
    try:
        trainer.train()
    finally:
        trainer.sampler.close()
    run = trainer.run
    rows = run.metrics()
    assert [row["step"] for row in rows] == [1, 2, 3]
    for row in rows:
        step = row["step"]
        turns = [t for g in run.groups(step) for j in g.student for t in j.episode.turns]
        [version] = {turn.version for turn in turns}
        assert max(step - 2, 0) <= version <= step - 1
        assert row["staleness_mean"] == row["staleness_max"] == step - 1 - version
        # The weights of its own version are known to the last digits, those of others are not.
        assert (row["sampler_mismatch"] < TOLERANCE) == (row["staleness_max"] == 0)
        assert row["judge_errors"] == row["episode_errors"] == 0
    # Step 2 is begun as soon as step 1 is collected, and learns long after.
    assert rows[1]["staleness_max"] == 1
    for step in (0, 2, 3):
        episodes = list(read_episodes(run.evaluation_episodes(step)))
        assert {turn.version for episode in episodes for turn in episode.turns} == {step}
