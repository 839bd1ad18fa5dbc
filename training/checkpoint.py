"""Checkpoints: a model that plain transformers loads, and the exact state of the optimizer.

Safetensors and JSON only; nothing is pickled.
"""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ovd_envs.errors import OVDError
from training.learner import Learner


def write_checkpoint(folder: Path, learner: Learner, tokenizer: Any, step: int) -> None:
    """Write model, tokenizer, optimizer state and step into ``folder``. Raises ``OSError``."""
    try:
        learner.model.save_pretrained(folder / "model", safe_serialization=True)
        tokenizer.save_pretrained(folder / "model")
        state = {name: tensor.contiguous() for name, tensor in learner.state().items()}
        save_file(state, folder / "optimizer.safetensors")
    except Exception as error:
        # A full disk reaches us in these dresses: safetensors' own and tokenizers' bare Exception.
        if type(error) in (SafetensorError, Exception):
            raise OSError(errno.ENOSPC, str(error)) from error
        raise
    (folder / "state.json").write_text(json.dumps({"step": step}) + "\n")


def read_checkpoint(folder: Path, learner: Learner) -> int:
    """Put ``learner`` where it was when ``folder`` was written; the step.

    Raises ``OVDError`` where the checkpoint does not fit the model.
    """
    try:
        learner.load_state(load_file(folder / "optimizer.safetensors"))
        return int(json.loads((folder / "state.json").read_text())["step"])
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        raise OVDError(f"checkpoint {folder}: cannot be read ({error})") from error
