"""Permutations and assignments: complete, invertible, even, and independent of one another."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from ovd_envs.world.shuffle import Assignment, Shuffle, noise

sizes = st.integers(1, 700)
keys = st.text(max_size=5)


@given(sizes, keys)
def test_a_shuffle_is_a_permutation_with_its_inverse(size, key):
    shuffle = Shuffle(size, key)
    images = [shuffle(i) for i in range(size)]
    assert sorted(images) == list(range(size))
    assert [shuffle.inverse(image) for image in images] == list(range(size))


@given(st.integers(1, 2**48), keys, st.data())
def test_large_shuffles_have_their_inverse(size, key, data):
    index = data.draw(st.integers(0, size - 1))
    shuffle = Shuffle(size, key)
    assert 0 <= shuffle(index) < size
    assert shuffle.inverse(shuffle(index)) == index


@given(sizes, st.integers(1, 60), keys)
@settings(max_examples=50)
def test_an_assignment_is_even_and_knows_its_sources(size, targets, key):
    assignment = Assignment(size, targets, key)
    counts = Counter(assignment(i) for i in range(size))
    assert max(counts.values()) - min(counts[t] for t in range(targets)) <= 1
    for target in range(targets):
        assert assignment.count(target) == counts[target]
        sources = [assignment.source(target, n) for n in range(counts[target])]
        assert len(set(sources)) == counts[target]
        assert all(assignment(source) == target for source in sources)


def test_two_assignments_tell_nothing_of_each_other():
    # With a permutation that only multiplies and adds, the one would settle the other here.
    size, targets = 4096, 32
    for number in range(10):
        first = Assignment(size, targets, f"first {number}")
        second = Assignment(size, targets, f"second {number}")
        pairs = Counter((first(i), second(i)) for i in range(size))
        expected = size / targets**2
        chi2 = sum(
            (pairs[a, b] - expected) ** 2 / expected for a in range(targets) for b in range(targets)
        )
        # 961 degrees of freedom: mean 961, standard deviation 44.
        assert 700 < chi2 < 1230, chi2


def test_neighbours_go_to_places_far_apart():
    shuffle = Shuffle(10_000, "neighbours")
    distances = [abs(shuffle(i) - shuffle(i + 1)) for i in range(9_999)]
    assert sum(distances) / len(distances) > 2_500  # 3333 by chance


def test_noise_is_the_known_function():
    # The finalizer of SplitMix64 for seed 0: its published first outputs.
    assert [noise(0, n) for n in (1, 2, 3)] == [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
        0x06C45D188009454F,
    ]
