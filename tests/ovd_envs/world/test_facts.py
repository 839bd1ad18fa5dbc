"""Facts: consistent, plausible, evenly shared, the same on every machine."""

import hashlib
import subprocess
import sys
from collections import Counter

import pytest

from ovd_envs.errors import OVDError
from ovd_envs.world import RELATIONS, Ref, World
from ovd_envs.world.facts import ARCHIVED, NOW, OUTDATED

WORLDS = [World(0), World(3, people=57), World(1, people=1000, split="test")]


def refs(world, kind):
    return [Ref(kind, index) for index in range(world.counts[kind])]


def year(world, ref, relation):
    return int(world.facts(ref)[relation])


@pytest.mark.parametrize("world", WORLDS)
def test_every_entity_has_the_facts_of_its_kind(world):
    for kind in world.counts:
        named = {r.name for r in RELATIONS.values() if r.of == kind} - {"spouse"}
        for ref in refs(world, kind):
            facts = world.facts(ref)
            assert set(facts) - {"spouse"} == named
            for relation, fact in facts.items():
                expected = RELATIONS[relation].to
                assert (fact.kind if isinstance(fact, Ref) else None) == expected
                if isinstance(fact, Ref):
                    assert 0 <= fact.number < world.counts[fact.kind]
                assert world.text(fact).strip()


@pytest.mark.parametrize("world", WORLDS)
def test_spouses_agree(world):
    married = 0
    for ref in refs(world, "person"):
        spouse = world.facts(ref).get("spouse")
        if spouse is not None:
            married += 1
            assert spouse != ref
            assert world.facts(spouse)["spouse"] == ref
            assert abs(year(world, ref, "birth_year") - year(world, spouse, "birth_year")) <= 6
    assert 0.5 < married / world.people < 0.95


@pytest.mark.parametrize("world", WORLDS)
def test_dates_are_plausible(world):
    for ref in refs(world, "person"):
        assert NOW - 98 <= year(world, ref, "birth_year") <= NOW - 30
    for ref in refs(world, "company"):
        born = year(world, world.facts(ref)["founder"], "birth_year")
        assert born + 20 <= year(world, ref, "founded") <= NOW
    for ref in refs(world, "book"):
        facts = world.facts(ref)
        assert year(world, facts["author"], "birth_year") + 20 <= year(world, ref, "published")
        founded = year(world, facts["publisher"], "founded")
        assert founded <= year(world, ref, "published") <= NOW
    for ref in refs(world, "event"):
        founded = year(world, world.facts(ref)["organiser"], "founded")
        assert founded <= year(world, ref, "since") <= NOW


@pytest.mark.parametrize("world", WORLDS)
def test_nobody_holds_two_offices_of_one_sort(world):
    for kind, relation in (("town", "mayor"), ("company", "founder")):
        holders = [world.facts(ref)[relation] for ref in refs(world, kind)]
        assert len(set(holders)) == len(holders)


@pytest.mark.parametrize("world", WORLDS)
def test_shared_values_are_shared_evenly(world):
    for relation in world.shared:
        kind = RELATIONS[relation].of
        counts = Counter(world.facts(ref)[relation] for ref in refs(world, kind))
        assert max(counts.values()) - min(counts.values()) <= 1


def test_archived_copies_tell_another_value_of_an_earlier_year():
    world = World(people=2000)
    for kind, relation in OUTDATED.items():
        found = [ref for ref in refs(world, kind) if world.archived(ref) is not None]
        assert len(found) == -(-world.counts[kind] // ARCHIVED[kind])
        for ref in found:
            when, before = world.archived(ref)
            assert before != world.facts(ref)[relation]
            assert before.kind == RELATIONS[relation].to
            assert NOW - 12 <= when <= NOW - 3


def test_pages_that_link_to_an_entity_do():
    world = World()
    for kind in world.counts:
        for ref in refs(world, kind):
            for other in world.linking_to(ref, most=2):
                assert ref in world.facts(other).values()


def test_relations_of_one_entity_tell_nothing_of_each_other():
    # People of one town work for many companies, about as many as chance would have it.
    world = World(people=2400)
    pairs = {(f["birthplace"], f["employer"]) for f in map(world.facts, refs(world, "person"))}
    cells = world.counts["town"] * world.counts["company"]
    expected = cells * (1 - (1 - 1 / cells) ** world.people)
    assert abs(len(pairs) - expected) < 0.02 * expected


DIGEST = "63d210680b0d02d157a3e5de85b52d7e4b1380bfceac2efe317baf19ec97424f"
_PRINT = (
    "import hashlib\n"
    "from ovd_envs.world import World\n"
    "digest = hashlib.sha256()\n"
    "for split in ('train', 'test'):\n"
    "    for document in World(5, people=200, split=split).documents():\n"
    "        digest.update(repr(document).encode())\n"
    "print(digest.hexdigest())\n"
)


@pytest.mark.parametrize("hash_seed", ["0", "12345"])
def test_the_same_world_in_every_process(hash_seed):
    # A world that differs from the recorded one is a new GENERATION of tasks.
    done = subprocess.run(
        [sys.executable, "-c", _PRINT],
        env={"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == DIGEST


def test_seeds_and_splits_differ():
    texts = {
        hashlib.sha256("".join(d.text for d in World(s, split=p).documents()).encode()).digest()
        for s in (0, 1, -1)
        for p in ("train", "test")
    }
    assert len(texts) == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"people": 49}, "people: expected at least 50, got 49"),
        ({"people": "400"}, "people: expected a whole number, got '400'"),
        ({"people": 400.0}, "people: expected a whole number, got 400.0"),
        ({"seed": True}, "seed: expected a whole number, got True"),
        ({"split": "dev"}, "split: expected one of train, test, got 'dev'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(OVDError) as error:
        World(**options)
    assert str(error.value) == message
