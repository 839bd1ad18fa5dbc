"""What samples the student's replies: the model that is trained, or an engine that follows it."""

from __future__ import annotations

from typing import Any, Protocol

import agents
from agents.models import adapter_settings
from agents.protocol import Backend, capabilities_of
from agents.student import Student
from agents.transformers_backend import TransformersBackend
from ovd_envs.options import check_options
from training.config import Config, ConfigError

#: What the run tells every engine: by option of a backend, the key that says it.
_OF_THE_RUN = {
    "dtype": "dtype",
    "device": "device",
    "batch_size": "rollout.batch_size",
    "dialect": "rollout.dialect",
    "lora_rank": "optimizer.lora.rank",
}


class Sampler(Backend, Protocol):
    """A backend that can be given new weights."""

    def follow(self, model: Any, version: int) -> None:
        """Sample from the weights of ``model`` from now on; completions carry ``version``.

        Raises ``OVDError`` where they did not arrive: nothing is then sampled from old ones.
        """


def make_sampler(
    config: Config, model: Any, tokenizer: Any, place: str, *, dtype: str, dialect: str
) -> Sampler:
    """The backend that ``config.backend`` names; it begins with the weights of ``model``.

    Raises ``ConfigError`` for one that takes no weights: nothing could be trained on, and for an
    option that would mean nothing.
    """
    _check_options(config)
    if config.backend.name == "transformers":
        return TransformersBackend(
            model,
            tokenizer,
            name=config.student,
            batch_size=config.rollout.batch_size,
            dialect=dialect,
        )
    load = agents.backends.get(config.backend.name)
    able = capabilities_of(load)
    if not (able.token_ids and able.logprobs and able.follow):
        raise ConfigError(
            f"backend {config.backend.name!r}: nothing can be trained with it, for it does not "
            "give exact tokens with their log-probabilities and take new weights (expected "
            "transformers, vllm or vllm-server)"
        )
    adapted = hasattr(model, "peft_config")
    options = config.backend.options
    if adapted and config.backend.name == "vllm":
        options["lora_rank"] = next(iter(model.peft_config.values())).r
    options |= {
        "dtype": dtype,
        "device": config.device,
        "batch_size": config.rollout.batch_size,
        "dialect": dialect,
    }
    check_options(f"backend {config.backend.name!r}", load, options, [place])
    base = _base(place)
    backend: Any = load(base, **options)
    backend.name = config.student
    if base != place:  # the student begins with an adapter on that base
        backend.follow(model, 0)
    return backend  # type: ignore[no-any-return]


def make_student(sampler: Sampler, config: Config, temperature: float) -> Student:
    """The student that acts through ``sampler``, with the budgets of the configuration."""
    return Student(
        sampler,
        temperature=temperature,
        max_tokens=config.rollout.max_tokens,
        max_context=config.rollout.max_context,
        max_episode_tokens=config.rollout.max_episode_tokens,
    )


def _check_options(config: Config) -> None:
    """Raise ``ConfigError`` for an option of the backend that nobody would read."""
    for option in config.backend.options:
        if option in _OF_THE_RUN:
            raise ConfigError(
                f"backend {config.backend.name!r}: {option} is that of the run; expected "
                f"{_OF_THE_RUN[option]} instead"
            )
        if config.backend.name == "transformers":
            raise ConfigError(
                f"backend 'transformers': no option {option!r}; what samples is the very model "
                "that is trained"
            )


def _base(place: str) -> str:
    """The model at ``place``; where there is an adapter, the one that it is made for."""
    adapter = adapter_settings(place)
    return place if adapter is None else str(adapter["base_model_name_or_path"])
