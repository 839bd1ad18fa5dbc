"""What vLLM is asked for, in process and over HTTP alike."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agents.protocol import Request

if TYPE_CHECKING:
    from agents.dialect import Dialect


#: How vLLM holds replies to a schema: without blanks between the parts, of which a small model may
#: write no end. The choice of library that can be told so must be made here.
STRUCTURED_OUTPUTS = {"backend": "xgrammar", "disable_any_whitespace": True}


def seed_of(key: Sequence[int]) -> int:
    """The seed of a reply: the same key, the same seed; 63 bits."""
    text = ",".join(map(str, key)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def sampling_options(dialect: Dialect, request: Request) -> dict[str, Any]:
    """What vLLM has to be asked for ``request``, in the words of its ``SamplingParams``."""
    held = {} if request.schema is None else {"structured_outputs": {"json": dict(request.schema)}}
    return {
        **held,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "seed": seed_of(request.key),
        "stop": list(request.stop),
        # The dialect says what ends a reply; the ids keep it.
        "stop_token_ids": sorted(dialect.stop_ids),
        "ignore_eos": True,
        "logprobs": 0,
        "detokenize": bool(request.stop),
        "skip_special_tokens": False,
    }
