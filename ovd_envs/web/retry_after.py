"""When a server that is busy asks us to come back."""

from __future__ import annotations

import math
import time
from email.utils import parsedate_to_datetime


def retry_after(header: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, a number of them or a date (RFC 9110, section
    10.2.3); ``None`` where there is none or it cannot be read.
    """
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
