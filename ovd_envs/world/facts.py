"""The entities of a world and their facts, each computed from (seed, kind, index).

Every fact is stated from one side only: who is mayor of a town is a fact of the town. What many
have in common (birthplaces, professions, ...) is shared out evenly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ovd_envs.errors import OVDError
from ovd_envs.stable import stable_hash
from ovd_envs.world import vocabulary
from ovd_envs.world.names import SPLITS, PairedNames, PersonalNames, make_words
from ovd_envs.world.shuffle import Assignment, Shuffle, noise

#: The year in which a world exists.
NOW = 2030

FEWEST_PEOPLE = 50

KINDS = ("person", "town", "company", "book", "event")


class Ref(NamedTuple):
    """An entity: its kind and its number within the kind."""

    kind: str
    number: int

    @property
    def id(self) -> str:
        """The id of its page, such as "person-17"."""
        return f"{self.kind}-{self.number}"


#: The value of a relation: another entity, or a plain text (a year, a profession, ...).
Fact = Ref | str


class Relation(NamedTuple):
    """What can be said of an entity of kind ``of``; ``to`` is the kind of its value."""

    name: str
    of: str
    to: str | None


RELATIONS: Mapping[str, Relation] = {
    relation.name: relation
    for relation in (
        Relation("birthplace", "person", "town"),
        Relation("birth_year", "person", None),
        Relation("profession", "person", None),
        Relation("employer", "person", "company"),
        Relation("spouse", "person", "person"),
        Relation("hobby", "person", None),
        Relation("region", "town", None),
        Relation("river", "town", None),
        Relation("mayor", "town", "person"),
        Relation("settled", "town", None),
        Relation("sight", "town", None),
        Relation("headquarters", "company", "town"),
        Relation("founder", "company", "person"),
        Relation("founded", "company", None),
        Relation("product", "company", None),
        Relation("logo", "company", None),
        Relation("author", "book", "person"),
        Relation("published", "book", None),
        Relation("publisher", "book", "company"),
        Relation("genre", "book", None),
        Relation("setting", "book", "town"),
        Relation("host", "event", "town"),
        Relation("since", "event", None),
        Relation("organiser", "event", "company"),
        Relation("theme", "event", None),
        Relation("prize", "event", None),
    )
}

#: One in so many people has a page that was archived under a former employer, and one in so many
#: towns under a former mayor.
ARCHIVED = {"person": 8, "town": 3}

#: The relation whose former value an archived page tells.
OUTDATED = {"person": "employer", "town": "mayor"}

#: One in so many towns and companies had another name.
RENAMED = 4


class Facts:
    """Names and facts of the entities of one world.

    Args:
        seed: which world.
        people: how many people; towns, companies, books and events go with it.
        split: "train" or "test"; names of different splits share no word, whatever the seeds.

    Raises:
        OVDError: naming the option, for one that is out of range.
    """

    def __init__(self, seed: int = 0, *, people: int = 400, split: str = "train") -> None:
        for option, value in (("seed", seed), ("people", people)):
            if type(value) is not int:
                raise OVDError(f"{option}: expected a whole number, got {value!r}")
        if split not in SPLITS:
            raise OVDError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
        if people < FEWEST_PEOPLE:
            raise OVDError(f"people: expected at least {FEWEST_PEOPLE}, got {people}")
        self.seed, self.people, self.split = seed, people, split
        towns = companies = max(8, people // 12)
        books, events = people // 2, people // 5
        self.counts: Mapping[str, int] = dict(
            zip(KINDS, (people, towns, companies, books, events), strict=True)
        )
        self._key = f"{split} {seed}"
        self._keys = {kind: stable_hash(f"{self._key} {kind}") for kind in (*KINDS, "couple")}
        self._make_names()
        self._couples = Shuffle(people, f"{self._key} spouse")
        self._mayors = Shuffle(people, f"{self._key} mayor")
        self._founders = Shuffle(people, f"{self._key} founder")
        self._authors = Shuffle(people, f"{self._key} author")
        # Few enough regions that some towns share one, and enough that none is a good guess.
        places = max(min(towns * 2 // 3, 40), towns // 10)
        #: The values of the plain relations that are no years, each equally frequent.
        self.values: Mapping[str, Sequence[str]] = {
            "profession": self._some(vocabulary.PROFESSIONS, people),
            "hobby": self._some(vocabulary.HOBBIES, people),
            "region": self._words("region", places),
            "river": self._words("river", places),
            "sight": self._some(vocabulary.SIGHTS, towns),
            "product": self._some(vocabulary.PRODUCTS, companies),
            "logo": self._some(vocabulary.LOGOS, companies),
            "genre": self._some(vocabulary.GENRES, books),
            "theme": self._some(vocabulary.THEMES, events),
            "prize": self._some(vocabulary.PRIZES, events),
        }
        shared = [r for r in RELATIONS.values() if r.name in self.values]
        shared += [RELATIONS[name] for name in ("birthplace", "employer", "headquarters")]
        shared += [RELATIONS[name] for name in ("publisher", "setting", "host", "organiser")]
        #: The relations of which many entities have the same value.
        self.shared: Mapping[str, Assignment] = {
            relation.name: Assignment(
                self.counts[relation.of],
                len(self.values[relation.name])
                if relation.to is None
                else self.counts[relation.to],
                f"{self._key} {relation.name}",
            )
            for relation in shared
        }
        self._makers: Mapping[str, Callable[[int], dict[str, Fact]]] = {
            "person": self._person,
            "town": self._town,
            "company": self._company,
            "book": self._book,
            "event": self._event,
        }

    def name(self, ref: Ref) -> str:
        """The name of an entity; no other entity of the world has it."""
        return self._names[ref.kind](ref.number)

    def facts(self, ref: Ref) -> dict[str, Fact]:
        """All facts of an entity, by relation; people without a spouse have none of that name."""
        return self._makers[ref.kind](ref.number)

    def text(self, fact: Fact) -> str:
        """A fact's value as it is written."""
        return fact if isinstance(fact, str) else self._names[fact.kind](fact.number)

    def noise(self, ref: Ref) -> int:
        """64 random bits of an entity, from which wordings are chosen."""
        return noise(self._keys[ref.kind], ref.number)

    def linking_to(self, ref: Ref, most: int) -> list[Ref]:
        """Entities with ``ref`` as the value of a relation that many share; ``most`` of each."""
        return [
            Ref(RELATIONS[name].of, shared.source(ref.number, number))
            for name, shared in self.shared.items()
            if RELATIONS[name].to == ref.kind
            for number in range(min(most, shared.count(ref.number)))
        ]

    def former_name(self, ref: Ref) -> str | None:
        """What a town or company was called before; no other entity has or had that name."""
        if ref.kind not in self._former_names or ref.number % RENAMED != 1:
            return None
        return self._former_names[ref.kind][ref.number // RENAMED]

    def archived(self, ref: Ref) -> tuple[int, Fact] | None:
        """Year of the archived copy of a page and what it tells of ``OUTDATED``, if it has one."""
        if ref.kind not in ARCHIVED or ref.number % ARCHIVED[ref.kind]:
            return None
        code = self.noise(ref) >> 8
        now = self.facts(ref)[OUTDATED[ref.kind]]
        assert isinstance(now, Ref)
        count = self.counts[now.kind]
        before = Ref(now.kind, (now.number + 1 + code % (count - 1)) % count)
        return NOW - 3 - code % 10, before

    def _make_names(self) -> None:
        count = self.counts
        people = PersonalNames(
            self._words("first name", min(max(40, self.people // 3), 4000)),
            self._words("last name", min(self.people * 2 // 5, 20_000)),
            size=self.people,
            key=f"{self._key} person",
        )
        single: dict[str, tuple[str, ...]] = {}
        self._former_names: dict[str, tuple[str, ...]] = {}
        for kind in ("town", "company"):
            words = self._words(kind, count[kind] + 1 + count[kind] // RENAMED)
            single[kind], self._former_names[kind] = words[: count[kind]], words[count[kind] :]
        self.person_names = people
        self._names: Mapping[str, Callable[[int], str]] = {
            "person": people,
            "town": single["town"].__getitem__,
            "company": single["company"].__getitem__,
            "book": self._pairs("book", "book", "subtitle"),
            "event": self._pairs("event", "event", "occasion"),
        }

    def _words(self, role: str, count: int) -> tuple[str, ...]:
        return make_words(role, count, seed=self.seed, split=self.split)

    def _pairs(self, kind: str, first: str, second: str) -> PairedNames:
        size = self.counts[kind]
        return PairedNames(
            self._words(first, min(max(20, size // 2), 4000)),
            self._words(second, min(max(20, size // 2), 20_000)),
            size=size,
            key=f"{self._key} {kind}",
        )

    def _some(self, values: Sequence[str], entities: int) -> Sequence[str]:
        """The values in an order of this world's own; so few that some entities share one."""
        order = sorted(values, key=lambda value: stable_hash(f"{self._key} {value}"))
        return order[: entities * 2 // 3]

    def _plain(self, relation: str, index: int) -> str:
        return self.values[relation][self.shared[relation](index)]

    def _link(self, relation: str, index: int) -> Ref:
        return Ref(RELATIONS[relation].to or "", self.shared[relation](index))

    def _birth_year(self, person: int) -> int:
        # The two of a couple are at most six years apart.
        couple = noise(self._keys["couple"], self._couples(person) >> 1)
        return NOW - 98 + couple % 60 + noise(self._keys["person"], person) % 7

    def _spouse(self, person: int) -> int | None:
        place = self._couples(person) ^ 1
        married = noise(self._keys["couple"], place >> 1) >> 32 & 3
        return self._couples.inverse(place) if married and place < self.people else None

    def _founded(self, company: int) -> int:
        founder = self._birth_year(self._founders(company))
        return founder + 20 + noise(self._keys["company"], company) % 13

    def _between(self, low: int, high: int, ref: Ref) -> str:
        return str(low + self.noise(ref) % (high - low + 1))

    def _person(self, index: int) -> dict[str, Fact]:
        facts: dict[str, Fact] = {
            "birthplace": self._link("birthplace", index),
            "birth_year": str(self._birth_year(index)),
            "profession": self._plain("profession", index),
            "employer": self._link("employer", index),
            "hobby": self._plain("hobby", index),
        }
        spouse = self._spouse(index)
        if spouse is not None:
            facts["spouse"] = Ref("person", spouse)
        return facts

    def _town(self, index: int) -> dict[str, Fact]:
        return {
            "region": self._plain("region", index),
            "river": self._plain("river", index),
            "mayor": Ref("person", self._mayors(index)),
            "settled": self._between(1100, 1850, Ref("town", index)),
            "sight": self._plain("sight", index),
        }

    def _company(self, index: int) -> dict[str, Fact]:
        return {
            "headquarters": self._link("headquarters", index),
            "founder": Ref("person", self._founders(index)),
            "founded": str(self._founded(index)),
            "product": self._plain("product", index),
            "logo": self._plain("logo", index),
        }

    def _book(self, index: int) -> dict[str, Fact]:
        # One author in three has two books.
        author = self._authors(index % (self.counts["book"] * 3 // 4))
        publisher = self._link("publisher", index)
        earliest = max(self._birth_year(author) + 20, self._founded(publisher.number))
        return {
            "author": Ref("person", author),
            "published": self._between(earliest, NOW, Ref("book", index)),
            "publisher": publisher,
            "genre": self._plain("genre", index),
            "setting": self._link("setting", index),
        }

    def _event(self, index: int) -> dict[str, Fact]:
        organiser = self._link("organiser", index)
        earliest = self._founded(organiser.number)
        return {
            "host": self._link("host", index),
            "since": self._between(earliest, NOW, Ref("event", index)),
            "organiser": organiser,
            "theme": self._plain("theme", index),
            "prize": self._plain("prize", index),
        }
