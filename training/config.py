"""The configuration of a run: YAML, checked by pydantic, every mistake named in one line."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ovd_envs.errors import OVDError


class ConfigError(OVDError):
    """A configuration that names something unknown or gives a value that cannot be."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Named(BaseModel):
    """A registered thing by name, and its options: ``steps`` or ``{name: steps, ...}``."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def options(self) -> dict[str, Any]:
        """Everything but the name."""
        return dict(self.model_extra or {})


class RolloutConfig(_Section):
    """How the student acts while it is trained."""

    tasks_per_step: int = Field(default=16, ge=1)
    """Groups of a step."""
    group_size: int = Field(default=4, ge=1)
    """Episodes of a group."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature; the loss divides by it too."""
    max_tokens: int = Field(default=256, ge=1)
    """Tokens of one turn."""
    max_context: int | None = Field(default=None, ge=2)
    """Tokens of an episode, observations included; ``null``: what the model can take."""
    max_episode_tokens: int | None = Field(default=None, ge=1)
    """Tokens of all replies of an episode together; ``null``: without limit."""
    batch_size: int = Field(default=64, ge=1)
    """Episodes that run at a time."""
    max_staleness: int = Field(default=0, ge=0)
    """Steps that the weights which sampled an episode may be behind those that learn from it; more
    than 0 lets the student act for coming steps while this one is learned."""
    dialect: Literal["chat", "chat-no-thinking", "inline"] | None = None
    """How the conversation becomes tokens; ``null``: as the environment prefers."""


class LoraConfig(_Section):
    """Low-rank adapters (peft) instead of full-parameter training."""

    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    targets: str | list[str] = "all-linear"


#: How much of an average a step keeps.
Decay = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(_Section):
    """AdamW, its schedule, and the constants of the loss."""

    steps: int = Field(default=100, ge=1)
    """Steps of the run."""
    learning_rate: float = Field(default=1e-5, gt=0)
    warmup_steps: int = Field(default=0, ge=0)
    """Steps over which the learning rate rises linearly from 0."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How it falls afterwards, to 0 at the end of the run."""
    weight_decay: float = Field(default=0.0, ge=0)
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    max_grad_norm: float = Field(default=1.0, gt=0)
    clip: float = Field(default=0.2, gt=0)
    """PPO's clip range."""
    importance_cap: float = Field(default=2.0, ge=1)
    """Most that a token counts for having been sampled by another engine than the trained model,
    or by older weights (``rollout.max_staleness``)."""
    kl: float = Field(default=0.001, ge=0)
    """Weight of the KL to the run's first student; 0 holds no reference."""
    updates_per_step: int = Field(default=1, ge=1)
    """Optimizer updates on the rows of one step."""
    micro_batch_tokens: int = Field(default=2048, ge=1)
    """Tokens in one forward and backward; changes memory, not the result (up to rounding)."""
    share_prompts: bool = True
    """Read the prompt that rows of a group share once, where the model's layers allow it."""
    lora: LoraConfig | None = None

    @field_validator("importance_cap", mode="before")
    @classmethod
    def _some_cap(cls, value: Any) -> Any:
        if value is None:
            raise ValueError(
                "expected a number of at least 1 (without it, what other engines or older weights, "
                "rollout.max_staleness, have sampled would count as the trained model's own)"
            )
        return value


class EvaluationConfig(_Section):
    """The student alone, greedy, on tasks it is never trained on."""

    tasks: int = Field(default=200, ge=0)
    """Number of tasks; 0 evaluates nothing."""
    every: int = Field(default=10, ge=1)
    """Steps between two evaluations; there is one before the first step and one after the last."""
    split: str = "test"


class CheckpointConfig(_Section):
    """When weights and optimizer state are written. Steps between are replayed on resume."""

    every: int = Field(default=20, ge=1)
    keep: int = Field(default=1, ge=1)
    """Checkpoints that keep their optimizer state; older ones are removed."""


class Config(_Section):
    """A whole run."""

    student: str
    """Alias, folder or hub name of the model to train."""
    env: str
    """A registered environment."""
    env_options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the environment."""
    split: str = "train"
    """Split of the tasks to train on."""
    backend: Named = Named(name="transformers")
    """What samples: the trained model itself, or an engine that follows it (vllm, vllm-server)."""
    algorithm: Named = Named(name="ovd")
    judge: Named | None = None
    demonstrator: Named | None = None
    rollout: RolloutConfig = RolloutConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    seed: int = Field(default=0, ge=0)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of forward and backward; "auto" is bfloat16 where it is faster. Master weights are fp32."""
    device: str | None = None
    """"cpu", "cuda", ...; ``null`` takes a GPU where there is one."""
    threads: int | None = Field(default=None, ge=1, le=1024)
    """Threads of torch on a CPU; ``null``: as many as torch takes. Recorded, and kept on resume."""
    display_episodes: int = Field(default=3, ge=0)
    """Episodes shown side by side, before and after, when the run has ended."""

    @model_validator(mode="after")
    def _splits_differ(self) -> Config:
        if self.evaluation.tasks and self.evaluation.split == self.split:
            raise ValueError(f"evaluation.split and split are both {self.split!r}: expected two")
        return self

    @model_validator(mode="after")
    def _something_samples_beside(self) -> Config:
        if self.rollout.max_staleness and self.backend.name == "transformers":
            raise ValueError(
                "rollout.max_staleness: expected 0 with backend transformers, whose model is the "
                f"very one that learns, got {self.rollout.max_staleness}; vllm and vllm-server "
                "sample beside it"
            )
        return self


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice, of which the last would win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    problem = f"the key {key.value!r} comes twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration in a YAML file, with ``a.b=value`` overrides (values are YAML).

    Raises ``ConfigError`` naming the file, the key, what was expected and what came.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text") from error
    try:
        data = _Loader(text).get_single_data()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{path}{where}: not valid YAML ({problem})") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected keys and values, got {type(data).__name__}")
    for override in overrides:
        _override(data, override)
    return parse_config(data, where=str(path))


def parse_config(data: Mapping[str, Any], *, where: str = "config") -> Config:
    """A configuration from plain data. Raises ``ConfigError``."""
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{where}: {explain(error, Config)}") from error


def parse_options(model: type[BaseModel], options: Mapping[str, Any], *, where: str) -> Any:
    """An options model from plain data. Raises ``ConfigError`` in one line."""
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        raise ConfigError(f"{where}: {explain(error, model)}") from error


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first fault of a validation in one line: the key, what was expected, what came."""
    fault = error.errors()[0]
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        known = _keys(model, fault["loc"][:-1])
        near = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"
        return f"unknown key {key!r}, {hint}"
    if fault["type"] == "missing":
        return f"{key!r} is missing"
    message = fault["msg"].removeprefix("Value error, ")
    if not key:
        return message
    return f"{key}: {message[0].lower()}{message[1:]}, got {fault['input']!r}"


def _keys(model: type[BaseModel], path: Sequence[Any]) -> list[str]:
    """The known keys of the section at ``path``."""
    for part in path:
        annotation = (
            model.model_fields[str(part)].annotation if part in model.model_fields else None
        )
        options = [annotation, *getattr(annotation, "__args__", ())]
        found = [o for o in options if isinstance(o, type) and issubclass(o, BaseModel)]
        if not found:
            return []
        model = found[0]
    return list(model.model_fields)


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {override!r}: expected KEY=VALUE, e.g. optimizer.steps=10")
    *path, last = key.strip().split(".")
    place = data
    for part in path:
        below = place.get(part)
        if below is None:
            below = {}
        elif isinstance(below, str):  # the short form of a named thing: "judge: steps"
            below = {"name": below}
        elif not isinstance(below, dict):
            raise ConfigError(f"--set {override!r}: {part!r} holds a value, not keys")
        place[part] = below
        place = below
    try:
        place[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r}: not valid YAML") from error


def dump_config(config: Config) -> str:
    """The whole configuration, defaults included, as YAML."""
    # ASCII: of other characters PyYAML writes some (U+0085) so that they do not read the same.
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
