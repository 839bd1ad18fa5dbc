"""A tiny student on disk, processes that train it, and one thread for the tests' own sums."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.tiny import tiny_model, tiny_tokenizer
from tests.training.ovd_process import Server


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """What is computed here is small: threads would only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def student_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model and its tokenizer as plain transformers saves them."""
    folder = tmp_path_factory.mktemp("student")
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def ovd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """``ovd.start(...)`` and ``ovd.run(...)``: the command line in processes of its own."""
    server = Server(tmp_path_factory.mktemp("ovd"))
    yield server
    server.close()


def tiny_config(student: Path, **changes: Any) -> dict[str, Any]:
    """A run of seconds, with both signs of advantage; ``rollout={...}`` and so on change it."""
    config: dict[str, Any] = {
        "student": str(student),
        "env": "ovd/Math-v0",
        "algorithm": {"name": "ovd", "baseline": "group", "keep_rejected": True},
        "judge": "steps",
        "demonstrator": "scripted",
        "rollout": {"tasks_per_step": 2, "group_size": 2, "max_tokens": 6},
        "optimizer": {"steps": 6, "learning_rate": 3e-3, "kl": 0.01, "schedule": "linear"},
        "evaluation": {"tasks": 3, "every": 3},
        "checkpoint": {"every": 2},
        "dtype": "float32",
        "threads": 1,
    }
    for name, value in changes.items():
        section = name in ("rollout", "optimizer", "evaluation", "checkpoint")
        config[name] = {**config[name], **value} if section else value
    return config


def write_config(path: Path, student: Path, **changes: Any) -> Path:
    """``tiny_config`` as a file."""
    path.write_text(yaml.safe_dump(tiny_config(student, **changes)))
    return path


@pytest.fixture
def config_file(tmp_path: Path, student_folder: Path) -> Callable[..., Path]:
    """Writes ``tiny_config`` with changes; its path."""
    return lambda **changes: write_config(tmp_path / "tiny.yaml", student_folder, **changes)
