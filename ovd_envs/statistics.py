"""Numbers with their spread: intervals for a share, a paired comparison, pass@k."""

from __future__ import annotations

import math
from collections.abc import Sequence

#: Two-sided 95 % quantile of the normal distribution.
Z95 = 1.959963984540054


def wilson(successes: float, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval for a share of ``n`` trials (Wilson 1927), 95 % by default.

    Raises ``ValueError`` where n < 1 or the successes are not within 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"expected 0 <= successes <= n and n >= 1, got {successes} of {n}")
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def mean_interval(values: Sequence[float], z: float = Z95) -> tuple[float, float]:
    """95 % interval of a mean by the normal approximation, for rewards that are not 0 or 1.

    With one value the interval is that value's own.
    """
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return mean, mean
    variance = math.fsum((v - mean) ** 2 for v in values) / (n - 1)
    half = z * math.sqrt(variance / n)
    return mean - half, mean + half


def paired_test(first: Sequence[bool], second: Sequence[bool]) -> dict[str, float]:
    """Compare two runs over the same tasks: difference of shares, its interval, McNemar's p.

    The interval is the normal one for paired shares; p is the exact two-sided binomial test on
    the tasks on which the two differ (McNemar 1947). Raises ``ValueError`` for unequal lengths.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"expected as many results in both, got {len(first)} and {len(second)}")
    n = len(first)
    gained = sum(b and not a for a, b in zip(first, second, strict=True))
    lost = sum(a and not b for a, b in zip(first, second, strict=True))
    difference = (gained - lost) / n
    spread = math.sqrt(max(gained + lost - (gained - lost) ** 2 / n, 0.0)) / n
    discordant = gained + lost
    tail = sum(math.comb(discordant, k) for k in range(min(gained, lost) + 1)) / 2**discordant
    return {
        "difference": difference,
        "low": max(difference - Z95 * spread, -1.0),
        "high": min(difference + Z95 * spread, 1.0),
        "gained": gained,
        "lost": lost,
        "p": min(1.0, 2 * tail),
    }


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Unbiased estimate of the chance that one of k samples is right, from n samples of which
    ``correct`` are (Chen et al. 2021, arXiv 2107.03374, eq. 1). Raises ``ValueError`` if k > n.
    """
    if not 1 <= k <= n or not 0 <= correct <= n:
        raise ValueError(f"expected 1 <= k <= n and 0 <= correct <= n, got k {k}, n {n}, {correct}")
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)
