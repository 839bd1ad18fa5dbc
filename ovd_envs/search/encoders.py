"""Encoders: functions from texts to vectors, by name (entry points "ovd.encoders").

Nothing here needs torch; the encoders that do come from the package ``agents``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ovd_envs.errors import OVDError
from ovd_envs.registry import Registry

#: Texts to vectors, one row a text: (n, d) of any float type, of any length.
Encode = Callable[[Sequence[str]], NDArray[np.floating]]


@dataclass(frozen=True, slots=True)
class Encoder:
    """How queries and passages become vectors; prefixes and the like belong to the functions."""

    name: str
    """What ``make_encoder`` takes to get it again, where it is registered."""
    queries: Encode
    passages: Encode

    @classmethod
    def of(cls, encode: Encode, name: str = "") -> Encoder:
        """One function for both."""
        return cls(name or getattr(encode, "__name__", type(encode).__name__), encode, encode)


#: A name stands for a function that returns an ``Encoder``; its first parameter is what stands
#: after the colon in "name:VALUE".
encoders: Registry[Callable[..., Encoder]] = Registry("ovd.encoders", "encoder")


def make_encoder(spec: str | Encoder) -> Encoder:
    """The encoder "NAME" or "NAME:VALUE".

    Raises ``RegistrationError`` for an unknown name and ``OVDError`` where a value is missing or
    not wanted.
    """
    if isinstance(spec, Encoder):
        return spec
    name, colon, value = spec.partition(":")
    factory = encoders.get(name)
    try:
        return factory(*((value,) if colon else ()))
    except TypeError as error:
        raise OVDError(f"encoder {spec!r}: {error}") from error


def encoded(encode: Encode, texts: Sequence[str], what: str) -> NDArray[np.float32]:
    """Unit vectors of ``texts``, (n, d); a zero vector stays zero.

    Raises ``OVDError`` where ``encode`` gives something else than finite numbers, a row a text.
    """
    vectors: NDArray[np.float32] = np.array(encode(texts), dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(texts) or vectors.shape[1] == 0:
        raise OVDError(f"{what}: expected vectors of shape ({len(texts)}, d), got {vectors.shape}")
    if not np.isfinite(vectors).all():
        bad = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise OVDError(f"{what}: a number that is not finite, for the text {texts[bad][:60]!r}")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    vectors /= lengths
    return vectors
