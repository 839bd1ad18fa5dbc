"""Statistics against published values, brute force and enumeration."""

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovd_envs.statistics import Z95, mean_interval, paired_test, pass_at_k, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # Newcombe 1998 (Statistics in Medicine 17, 857-872), table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_as_published(successes, n, low, high):
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def score_bound(successes, n, z, *, upper):
    """Where the score test just does not reject, by bisection."""
    share = successes / n

    def rejected(p):
        return abs(share - p) > z * math.sqrt(p * (1 - p) / n)

    inside, outside = share, (1.0 if upper else 0.0)
    for _ in range(200):
        middle = (inside + outside) / 2
        if rejected(middle):
            outside = middle
        else:
            inside = middle
    return inside


@settings(max_examples=200, deadline=None)
@given(data=st.data(), n=st.integers(1, 400), z=st.sampled_from([Z95, 1.0, 2.5758]))
def test_wilson_inverts_the_score_test(data, n, z):
    successes = data.draw(st.integers(0, n))
    low, high = wilson(successes, n, z)
    assert 0 <= low <= successes / n <= high <= 1
    assert low == pytest.approx(score_bound(successes, n, z, upper=False), abs=1e-6)
    assert high == pytest.approx(score_bound(successes, n, z, upper=True), abs=1e-6)
    assert wilson(n - successes, n, z) == pytest.approx((1 - high, 1 - low))


def test_what_is_no_share_is_refused():
    for successes, n in ((0, 0), (-1, 3), (4, 3)):
        with pytest.raises(ValueError, match="expected 0 <= successes <= n"):
            wilson(successes, n)


def test_the_interval_of_a_mean():
    values = [0.0, 0.5, 1.0, 0.25]
    mean, deviation = 0.4375, math.sqrt(0.546875 / 3)
    low, high = mean_interval(values)
    assert (low + high) / 2 == pytest.approx(mean)
    assert (high - low) / 2 == pytest.approx(1.96 * deviation / 2, rel=1e-4)
    assert mean_interval([0.3]) == (0.3, 0.3)


RESULTS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=14)


@settings(max_examples=100, deadline=None)
@given(pairs=RESULTS)
def test_mcnemar_by_brute_force(pairs):
    """p by flipping a coin, in every possible way, for each task on which the two differ."""
    first, second = zip(*pairs, strict=True)
    result = paired_test(first, second)
    differing = [b - a for a, b in pairs if a != b]
    observed = abs(sum(differing))
    flips = list(itertools.product((-1, 1), repeat=len(differing)))
    as_extreme = sum(abs(sum(flip)) >= observed for flip in flips)
    assert result["p"] == pytest.approx(as_extreme / len(flips))
    assert result["gained"] == sum(d > 0 for d in differing)
    assert result["lost"] == sum(d < 0 for d in differing)
    assert result["difference"] == pytest.approx(sum(differing) / len(pairs))


@settings(max_examples=100, deadline=None)
@given(pairs=RESULTS)
def test_the_interval_of_a_difference_is_that_of_a_mean_of_differences(pairs):
    first, second = zip(*pairs, strict=True)
    result = paired_test(first, second)
    n, each = len(pairs), [b - a for a, b in pairs]
    mean = sum(each) / n
    deviation = math.sqrt(sum((d - mean) ** 2 for d in each) / n)
    half = 1.959964 * deviation / math.sqrt(n)
    assert result["low"] == pytest.approx(max(mean - half, -1), abs=1e-6)  # shares differ by 1
    assert result["high"] == pytest.approx(min(mean + half, 1), abs=1e-6)  # at most
    turned = paired_test(second, first)
    assert turned["difference"] == pytest.approx(-result["difference"])
    assert turned["p"] == pytest.approx(result["p"])


def test_a_pair_needs_two():
    for first, second in (([], []), ([True], [True, False])):
        with pytest.raises(ValueError, match="as many results in both"):
            paired_test(first, second)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_pass_at_k_counts_the_draws_of_k_samples(n):
    for correct in range(n + 1):
        samples = [True] * correct + [False] * (n - correct)
        for k in range(1, n + 1):
            draws = list(itertools.combinations(samples, k))
            share = sum(map(any, draws)) / len(draws)
            assert pass_at_k(n, correct, k) == pytest.approx(share)


def test_pass_at_k_is_unbiased():
    rng, chance, k = random.Random(0), 0.3, 2
    estimates = [
        pass_at_k(6, sum(rng.random() < chance for _ in range(6)), k) for _ in range(20_000)
    ]
    assert sum(estimates) / len(estimates) == pytest.approx(1 - (1 - chance) ** k, abs=0.01)


def test_pass_at_k_of_more_than_there_are_is_refused():
    for n, correct, k in ((3, 1, 4), (3, 1, 0), (3, 4, 1)):
        with pytest.raises(ValueError, match="expected 1 <= k <= n"):
            pass_at_k(n, correct, k)
