"""The loop: act, judge, demonstrate, choose rows, step, keep. Data flow one way."""

from __future__ import annotations

import contextlib
import copy
import math
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import ovd_envs
from agents.episode import Episode
from agents.transformers_backend import choose_dtype
from teachers.protocol import Continuing, Demonstrator, Judge
from teachers.registry import make_demonstrator, make_judge
from training.adapters import load_trainable
from training.ahead import AheadCollector
from training.checkpoint import read_checkpoint, write_checkpoint
from training.collector import Collector
from training.config import Config, ConfigError, parse_options
from training.evaluation import evaluate
from training.group_maker import GroupMaker
from training.learner import Learner
from training.metrics import group_metrics
from training.protocol import Algorithm
from training.registry import algorithms
from training.reporter import Reporter, Silent
from training.run import Run, RunError
from training.sampler import make_sampler, make_student
from training.staleness import check_staleness


class Trainer:
    """Trains the student of ``config`` in the run folder ``path``.

    With ``resume`` a run that is there already goes on exactly where it stopped: from its last
    checkpoint the kept groups of later steps are replayed, to the same bits on a CPU. Raises
    ``OVDError`` for whatever the configuration names that is not there.
    """

    def __init__(
        self,
        config: Config,
        path: str | Path,
        *,
        resume: bool = False,
        reporter: Reporter | None = None,
    ) -> None:
        self.run = Run(path)
        self.resuming = resume and self.run.has_results
        self.config = _same_config(self.run.config(), config) if self.resuming else config
        self.reporter: Reporter = reporter or Silent()
        self.algorithm = _algorithm(self.config)
        self.env = ovd_envs.make(self.config.env, **self.config.env_options)
        self.judge, self.demonstrator = _teachers(self.config, self.algorithm)

    def train(self) -> dict[str, Any]:
        """Train to the last step; the summary that is also written to the run."""
        with self.run.locked():
            self._prepare()
            with contextlib.closing(self.collector):
                self._evaluate(0)
                for step in range(1, self.config.optimizer.steps + 1):
                    if step > self.restored:
                        self._step(step)
                        self._checkpoint(step)
                    self._evaluate(step)
            self.run.verdicts().remove()  # a kill may have left those of kept groups
            summary = self.run.summary()  # there already where a finished run is resumed
            if summary is None:
                summary = self._summary()
                self.run.save_summary(summary)
        return summary

    def _prepare(self) -> None:
        """Load the student, begin or reopen the run, and restore the last checkpoint."""
        config = self.config
        facts = self.run.facts() if self.resuming else {}
        device = facts.get("device") or config.device
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        threads = facts.get("threads") or config.threads or torch.get_num_threads()
        torch.set_num_threads(threads)
        dtype = facts.get("dtype") or str(choose_dtype(config.dtype, device)).removeprefix("torch.")
        torch.manual_seed(config.seed)
        model, tokenizer, place = load_trainable(
            config.student, config.optimizer.lora, dtype=dtype, device=device
        )
        self.tokenizer = tokenizer
        self.sampler = make_sampler(
            config,
            model,
            tokenizer,
            place,
            dtype=dtype,
            dialect=config.rollout.dialect or self.env.dialect,
        )
        self.dialect = self.sampler.dialect
        if config.rollout.max_staleness:
            # A tokenizer is told how to read a text before it reads it: two threads would both.
            self.dialect = copy.deepcopy(self.sampler.dialect)
        if not self.resuming:
            names = ("ovd", "torch", "transformers", "peft", "gymnasium")
            self.run.create(
                config,
                {
                    "dtype": dtype,
                    "threads": threads,
                    "device": device,
                    "model": place,
                    "machine": platform.processor() or platform.machine(),
                    "versions": {name: metadata.version(name) for name in names},
                },
            )
        own = config.backend.name == "transformers"  # the trained model is what samples
        self.learner = Learner(
            model,
            config.optimizer,
            temperature=config.rollout.temperature,
            importance_cap=None if own else config.optimizer.importance_cap,
        )
        self.run.cut_torn_line()
        self.logged = {row["step"]: row for row in self.run.metrics()}
        self.restored, self.checkpoint_seconds = 0, 0.0
        if found := self.run.checkpoints():
            self.restored = read_checkpoint(found[-1][1], self.learner)
            # What a kill left of the older ones.
            self.run.remove_old_checkpoints(config.checkpoint.keep)
        self.collector = self._make_collector()

    def _make_collector(self) -> Collector:
        maker = GroupMaker(
            self.config,
            self.sampler,
            self.env.tasks,
            self.algorithm,
            self.judge,
            self.demonstrator,
            self.run.verdicts(),
        )
        kind = AheadCollector if self.config.rollout.max_staleness else Collector
        return kind(maker, self.run, self.learner.model, self.restored, self.reporter)

    def _step(self, step: int) -> None:
        """One step: groups (kept ones, where this step was begun before), rows, update."""
        began = time.perf_counter()
        collected = self.collector.groups(step)
        groups = collected.groups
        waited = time.perf_counter()
        stale = check_staleness(groups, step, self.config.rollout.max_staleness)
        rows = self.algorithm.rows(groups, self.dialect)
        self.reporter.phase("learning", 0)
        with self.collector.updating():
            learned = self.learner.step(rows, step)
        ended = time.perf_counter()
        if step in self.logged:  # replayed: its line is there already
            return
        tokens = sum(j.episode.num_sampled_tokens for group in groups for j in group.student)
        metrics = {
            "step": step,
            **group_metrics(self.algorithm, groups, rows),
            **learned,
            **stale,
            "time": {
                "collect": waited - began,
                "learn": ended - waited,
                "checkpoint": self.checkpoint_seconds,
                "tokens_per_second": tokens / collected.seconds,
            },
        }
        self.checkpoint_seconds = 0.0
        self.run.add_metrics(metrics)
        self.logged[step] = metrics
        self.reporter.stepped(metrics)

    def _checkpoint(self, step: int) -> None:
        """Write a checkpoint where one is due."""
        if step % self.config.checkpoint.every and step != self.config.optimizer.steps:
            return
        began = time.perf_counter()
        self.reporter.phase("saving", 0)
        with (
            self.collector.steady(),
            self.run.new_checkpoint(step, self.config.checkpoint.keep) as folder,
        ):
            write_checkpoint(folder, self.learner, self.tokenizer, step)
        self.checkpoint_seconds = time.perf_counter() - began

    def _evaluate(self, step: int) -> None:
        """Evaluate where one is due and not kept already."""
        config = self.config
        due = step % config.evaluation.every == 0 or step == config.optimizer.steps
        if not config.evaluation.tasks or not due or step < self.restored:
            return
        result = self.run.evaluation(step)
        if result is None:
            with self.collector.evaluating():
                result, episodes = self._run_evaluation()
            result = {"step": step, **result}
            self.run.save_evaluation(step, result, episodes)
        self.reporter.evaluated(result)

    def _run_evaluation(self) -> tuple[dict[str, Any], list[Episode]]:
        config = self.config
        tasks = self.env.tasks.distinct(config.evaluation.split, config.evaluation.tasks)
        self.reporter.phase("evaluating", len(tasks))
        return evaluate(
            make_student(self.sampler, config, temperature=0),
            config.env,
            tasks,
            seed=config.seed,
            env_options=config.env_options,
            batch_size=config.rollout.batch_size,
            progress=lambda _: self.reporter.advance(),
        )

    def _summary(self) -> dict[str, Any]:
        rows = self.run.metrics()
        names = ("collect", "learn", "checkpoint")
        seconds = math.fsum(row["time"][name] for row in rows for name in names)
        evaluations = {result["step"]: result for result in self.run.evaluations()}
        keys = ("accuracy", "n", "interval", "reward")

        def short(step: int) -> dict[str, Any] | None:
            found = evaluations.get(step)
            return {key: found[key] for key in keys} if found else None

        return {
            "before": short(0),
            "after": short(self.config.optimizer.steps),
            "train_seconds": round(seconds + self.checkpoint_seconds, 3),
            "steps": len(rows),
            "student_episodes": sum(row["student_episodes"] for row in rows),
            "teacher_episodes": sum(row["teacher_episodes"] for row in rows),
        }


def _algorithm(config: Config) -> Algorithm:
    """The algorithm that was chosen. Raises ``ConfigError`` where its groups are too small."""
    algorithm = _make_algorithm(config)
    smallest = getattr(algorithm, "smallest_group", 1)
    if config.rollout.group_size < smallest:
        raise ConfigError(
            f"rollout.group_size: algorithm {config.algorithm.name!r} expects at least {smallest}, "
            f"got {config.rollout.group_size}; nothing would be learned"
        )
    return algorithm


def _make_algorithm(config: Config) -> Algorithm:
    factory: Any = algorithms.get(config.algorithm.name)
    if hasattr(factory, "model_validate"):
        made: Algorithm = parse_options(factory, config.algorithm.options, where="algorithm")
        return made
    try:
        return factory(**config.algorithm.options)  # type: ignore[no-any-return]
    except TypeError as error:
        raise ConfigError(f"algorithm {config.algorithm.name!r}: {error}") from error


def _teachers(config: Config, algorithm: Algorithm) -> tuple[Judge | None, Demonstrator | None]:
    """The judge and the demonstrator that the algorithm needs. Raises ``ConfigError``."""
    judge = demonstrator = None
    by_turn = getattr(algorithm, "needs_turn_scores", False)
    if algorithm.needs_judge:
        if config.judge is None:
            raise ConfigError(
                f"algorithm {config.algorithm.name!r} needs a judge: 'judge' is missing"
            )
        judge = make_judge(config.judge.name, **config.judge.options)
        if by_turn and getattr(judge, "score_level", "episode") != "turn":
            raise ConfigError(
                f"algorithm {config.algorithm.name!r}: replace: suffix keeps the turns before the "
                f"first bad one, but judge {config.judge.name!r} scores whole episodes alone "
                "(expected a judge with score_level: turn, as steps and path have)"
            )
    if algorithm.needs_demonstrator:
        if config.demonstrator is None:
            raise ConfigError(
                f"algorithm {config.algorithm.name!r} needs a demonstrator: 'demonstrator' is "
                "missing (or replace: drop)"
            )
        demonstrator = make_demonstrator(config.demonstrator.name, **config.demonstrator.options)
        if by_turn and not isinstance(demonstrator, Continuing):
            raise ConfigError(
                f"algorithm {config.algorithm.name!r}: replace: suffix needs a demonstrator that "
                f"goes on from a student's turns (continue_from), {config.demonstrator.name!r} "
                "begins at the beginning"
            )
    return judge, demonstrator


def _same_config(kept: Config, given: Config) -> Config:
    """The run's own configuration. Raises ``RunError`` naming where the given one differs."""
    old, new = _flat(kept.model_dump(mode="json")), _flat(given.model_dump(mode="json"))
    for key in {**new, **old}:
        before, value = old.get(key), new.get(key)
        if before != value:
            raise RunError(
                f"--resume: {key} is {before!r} in the run and {value!r} here; "
                "a run goes on as it began"
            )
    return kept


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict) and value:
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
