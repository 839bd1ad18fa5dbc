"""Names: invented words, each of one role and one split; whole names come once."""

import re
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovd_envs.errors import OVDError
from ovd_envs.world import World, prose, vocabulary, wordings
from ovd_envs.world.names import ENDINGS, SPLITS, PairedNames, make_words, split_of


def entities(world):
    return [page.ref for page in world.page_keys() if page.type == "entity"]


def name_words(world):
    """Every word of a name, former names, regions and rivers included."""
    names = [world.name(ref) for ref in entities(world)]
    names += [former for ref in entities(world) if (former := world.former_name(ref))]
    names += [*world.values["region"], *world.values["river"]]
    return {word.lower() for name in names for word in name.split()}


def test_no_ending_is_the_end_of_another():
    everything = [ending for endings in ENDINGS.values() for ending in endings]
    assert len(set(everything)) == len(everything)
    for one, other in combinations(everything, 2):
        assert not one.endswith(other), (one, other)
        assert not other.endswith(one), (one, other)


@pytest.mark.parametrize("people", [50, 400, 3000])
def test_worlds_of_different_splits_share_no_word(people):
    train = set().union(*(name_words(World(seed, people=people)) for seed in range(4)))
    test = set().union(*(name_words(World(s, people=people, split="test")) for s in range(4)))
    assert not train & test
    assert len(train) > 100


def test_every_word_belongs_to_the_split_of_its_world():
    for split in SPLITS:
        assert {split_of(word) for word in name_words(World(7, split=split))} == {split}


def test_words_are_short_and_pronounceable():
    for word in name_words(World(people=5000)):
        assert re.fullmatch(r"[a-z]{5,9}", word), word
        assert not re.search(r"[^aeiouy]{4}", word), word


@given(st.integers(0, 10**9), st.integers(50, 1500))
@settings(max_examples=15, deadline=None)
def test_no_two_entities_have_one_name(seed, people):
    world = World(seed, people=people)
    names = [world.name(ref) for ref in entities(world)]
    names += [former for ref in entities(world) if (former := world.former_name(ref))]
    assert len(set(names)) == len(names)


def test_no_name_is_a_word_of_the_language():
    text = " ".join(
        [
            *(w for kind in prose.SENTENCES.values() for slot in kind for w in slot),
            *(w for asked in wordings.ASK.values() for w in asked),
            *(w for noun in wordings.NOUN.values() for w in noun),
            *(
                value
                for name in dir(vocabulary)
                if name.isupper()
                for value in getattr(vocabulary, name)
            ),
        ]
    )
    language = set(re.findall(r"[a-z]+", text.lower()))
    for split in SPLITS:
        assert not name_words(World(people=20_000, split=split)) & language


@given(st.integers(1, 400), st.integers(1, 30), st.text(max_size=3))
def test_paired_names_never_repeat(size, seconds, key):
    names = PairedNames(
        tuple(f"F{n}" for n in range(-(-size // seconds))),
        tuple(f"S{n}" for n in range(seconds)),
        size=size,
        key=key,
    )
    assert len({names(i) for i in range(size)}) == size


def test_last_names_are_shared_and_a_few_names_are_one_letter_apart():
    world = World()
    names = world.person_names
    shared = [i for i in range(400) if world.namesakes(i)]
    assert len(shared) > 300
    twins = [i for i in range(400) if names.twin_of(i) is not None]
    assert 4 <= len(twins) <= 8
    for twin in twins:
        one, other = names(twin), names(names.twin_of(twin))
        assert len(one) == len(other)
        assert sum(a != b for a, b in zip(one, other, strict=True)) == 1
        assert names.twin_of(twin) in world.namesakes(twin)
        assert twin in world.namesakes(names.twin_of(twin))


def test_bearers_of_a_last_name_bear_it():
    world = World(people=300)
    for last, word in enumerate(world.person_names.seconds):
        borne = [i for i in range(300) if world.person_names(i).split()[1] == word]
        assert world.person_names.bearers(last) == borne


def test_words_run_out_with_one_clear_line():
    with pytest.raises(OVDError, match="too large"):
        make_words("river", 100_000, seed=0, split="train")
    with pytest.raises(OVDError, match="too large"):
        World(people=1_000_000)
