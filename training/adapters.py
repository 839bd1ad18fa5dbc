"""LoRA adapters: a new one on the student, or the one that the student starts with."""

from __future__ import annotations

from typing import Any

import torch

from agents.transformers_backend import load_model
from training.config import ConfigError, LoraConfig


def load_trainable(
    name: str, lora: LoraConfig | None, *, dtype: str, device: str
) -> tuple[Any, Any, str]:
    """(model to train, tokenizer, where they came from), as ``load_model``.

    With ``lora`` only an adapter is trained: a new one, or, where the student is an adapter
    itself (the checkpoint of such a run), that one. Without, all weights are trained, and a
    student's adapter becomes part of them. Raises ``OVDError`` where there is no such model and
    where the device cannot be used or the student's adapter is not the one that ``lora``
    describes.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device: {device!r} cannot be used ({error})") from error
    model, tokenizer, place = load_model(name, dtype=dtype, device=device)
    if not hasattr(model, "peft_config"):
        return (_new_adapter(model, lora) if lora else model), tokenizer, place
    from peft import PeftModel

    started = model.peft_config[model.active_adapters()[0]]
    if lora and (lora.rank, lora.alpha) != (started.r, started.lora_alpha):
        raise ConfigError(
            f"optimizer.lora: the adapter of student {name!r} has rank {started.r} and alpha "
            f"{started.lora_alpha}, got {lora.rank} and {lora.alpha}"
        )
    # transformers loads an adapter for reading; to train or merge it, it is put on its base anew.
    base, _, _ = load_model(started.base_model_name_or_path, dtype=dtype, device=device)
    adapted = PeftModel.from_pretrained(base, place, is_trainable=lora is not None)
    if lora:
        return adapted.eval(), tokenizer, place
    merged = adapted.merge_and_unload()
    return merged.requires_grad_(True).eval(), tokenizer, place


def _new_adapter(model: Any, lora: LoraConfig) -> Any:
    from peft import LoraConfig as PeftLoraConfig
    from peft import get_peft_model

    options = PeftLoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=lora.targets,
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model, options)
    except ValueError as error:
        raise ConfigError(f"optimizer.lora.targets: {lora.targets!r} ({error})") from error
