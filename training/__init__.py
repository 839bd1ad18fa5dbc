"""Who learns: algorithms, loss, trainer, evaluation and the run folder."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.config import Config, load_config
    from training.evaluation import compare, evaluate
    from training.groups import Group, Judged
    from training.learner import Learner
    from training.protocol import Algorithm
    from training.rows import Row, episode_rows, merge_rows
    from training.run import Run
    from training.trainer import Trainer

# Loaded at first use: torch and transformers take seconds.
_LAZY = {
    "Algorithm": "training.protocol",
    "Config": "training.config",
    "Group": "training.groups",
    "Judged": "training.groups",
    "Learner": "training.learner",
    "Row": "training.rows",
    "Run": "training.run",
    "Trainer": "training.trainer",
    "compare": "training.evaluation",
    "episode_rows": "training.rows",
    "evaluate": "training.evaluation",
    "load_config": "training.config",
    "merge_rows": "training.rows",
}

__all__ = [
    "Algorithm",
    "Config",
    "Group",
    "Judged",
    "Learner",
    "Row",
    "Run",
    "Trainer",
    "compare",
    "episode_rows",
    "evaluate",
    "load_config",
    "merge_rows",
]


def __getattr__(name: str) -> Any:
    # A submodule imported by its full name stands here already, and never reaches this.
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'training' has no attribute {name!r}")
