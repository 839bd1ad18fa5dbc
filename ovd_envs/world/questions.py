"""Questions about a world, their answers, and the pages from which each answer follows."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from ovd_envs.errors import TaskError
from ovd_envs.stable import Draw
from ovd_envs.world.facts import RELATIONS, Fact, Ref
from ovd_envs.world.wordings import ASK, CALLED, COMPARE, NOUN, SAME
from ovd_envs.world.world import PageKey, World

MOST_HOPS = 4

#: Names that stand for all kinds of one form.
FORMS = ("chain", "compare", "same")

#: So many draws in a row that cannot be asked mean that a kind has no question in this world.
_PATIENCE = 10_000


class Step(NamedTuple):
    """One step of a gold path: on the page of ``subject`` it says the ``value`` of ``relation``."""

    subject: Ref
    relation: str
    value: Fact


class Question(NamedTuple):
    """A question with its answer and the steps that lead to it."""

    text: str
    answer: str
    kind: str
    path: tuple[Step, ...]


@cache
def kinds_of(hops: int) -> tuple[str, ...]:
    """Every kind of question of so many hops.

    A chain is its relations in order, "birthplace>river"; "compare:birth_year" asks which of two
    was earlier or later, "same:birthplace" whether two have it in common (two hops each).
    """
    chains = _chains(hops)
    if hops != 2:
        return chains
    return (*chains, *(f"compare:{r}" for r in COMPARE), *(f"same:{r}" for r in SAME))


def form_of(kind: str) -> str:
    """The form of a kind: one of ``FORMS``."""
    head, colon, _ = kind.partition(":")
    return head if colon else "chain"


def hops_of(kind: str) -> int | None:
    """The number of hops of a kind; ``None`` where there is no such kind."""
    return next((hops for hops in range(1, MOST_HOPS + 1) if kind in kinds_of(hops)), None)


@cache
def _chains(hops: int) -> tuple[str, ...]:
    if hops == 1:
        return tuple(RELATIONS)
    longer: list[str] = []
    for chain in _chains(hops - 1):
        last = RELATIONS[chain.rpartition(">")[2]]
        for relation in RELATIONS.values():
            # The spouse of a spouse is whom the question is about.
            if relation.of == last.to and not relation.name == last.name == "spouse":
                longer.append(f"{chain}>{relation.name}")
    return tuple(longer)


def draw_question(world: World, kind: str, draw: Draw) -> Question:
    """A question of this kind.

    Not asked is what misses a fact, leads in a circle, or tells its own answer. Raises
    ``TaskError`` where the world, too small, seems to have no such question.
    """
    form, relation = form_of(kind), kind.rpartition(":")[2]
    # "Yes" or "no" is decided once: were it drawn again after a failure, one would be rarer.
    coin = draw.chance(0.5)
    for _ in range(_PATIENCE):
        if form == "chain":
            question = _chain(world, kind, draw)
        else:
            question = (_compare if form == "compare" else _same)(world, relation, coin, draw)
        if question is not None:
            return question
    raise TaskError(f"a world of {world.people} people has no question of the kind {kind!r}")


def _some(world: World, kind: str, draw: Draw) -> Ref:
    return Ref(kind, draw.integer(0, world.counts[kind] - 1))


def _called(world: World, ref: Ref, draw: Draw) -> str:
    return draw.choice(CALLED[ref.kind]).format(world.name(ref))


def _chain(world: World, kind: str, draw: Draw) -> Question | None:
    relations = kind.split(">")
    fact: Fact = _some(world, RELATIONS[relations[0]].of, draw)
    path: list[Step] = []
    text = ""
    for relation in relations:
        assert isinstance(fact, Ref)
        subject = fact
        found = world.facts(subject).get(relation)
        if found is None or found == subject or any(found == step.subject for step in path):
            return None
        text = text or _called(world, subject, draw)
        last = len(path) == len(relations) - 1
        text = draw.choice(ASK[relation] if last else NOUN[relation]).format(text)
        path.append(Step(subject, relation, found))
        fact = found
    answer = world.text(fact)
    if answer.lower() in text.lower():
        return None
    return Question(text, answer, kind, tuple(path))


def _compare(world: World, relation: str, later: bool, draw: Draw) -> Question | None:
    first = _some(world, RELATIONS[relation].of, draw)
    second = _some(world, RELATIONS[relation].of, draw)
    steps = [Step(ref, relation, world.facts(ref)[relation]) for ref in (first, second)]
    years = [int(world.text(step.value)) for step in steps]
    if years[0] == years[1]:
        return None
    answer = world.name(first if (years[0] > years[1]) == later else second)
    wording = draw.choice(COMPARE[relation][later])
    text = wording.format(world.name(first), world.name(second))
    return Question(text, answer, f"compare:{relation}", tuple(steps))


def _same(world: World, relation: str, same: bool, draw: Draw) -> Question | None:
    shared = world.shared[relation]
    kind = RELATIONS[relation].of
    first = _some(world, kind, draw)
    target = shared(first.number)
    if same:
        second = Ref(kind, shared.source(target, draw.integer(0, shared.count(target) - 1)))
    else:
        second = _some(world, kind, draw)
    if second == first or (shared(second.number) == target) != same:
        return None
    text = draw.choice(SAME[relation]).format(world.name(first), world.name(second))
    steps = (Step(ref, relation, world.facts(ref)[relation]) for ref in (first, second))
    return Question(text, "yes" if same else "no", f"same:{relation}", tuple(steps))


def metadata_of(world: World, question: Question) -> Mapping[str, Any]:
    """What a task tells of its question: hops, kind, path, support and distractors.

    "path" lists the steps in order; "support" and "supporting_titles" name the documents that they
    are read from; "distractors" are documents that are easily taken for those: out-of-date copies,
    people with the same last name or one that is a letter off, the list of a last name.
    """
    path = [
        {
            "page": step.subject.id,
            "title": world.name(step.subject),
            "subject": world.name(step.subject),
            "relation": step.relation,
            "value": world.text(step.value),
        }
        for step in question.path
    ]
    support = list(dict.fromkeys(step.subject.id for step in question.path))
    distractors: dict[str, None] = {}
    for step in question.path:
        distractors.update(dict.fromkeys(_distractors(world, step.subject)))
    return {
        "hops": len(path),
        "kind": question.kind,
        "path": path,
        "support": support,
        "supporting_titles": list(dict.fromkeys(str(step["title"]) for step in path)),
        "distractors": [id for id in distractors if id not in support],
    }


def _distractors(world: World, ref: Ref) -> list[str]:
    found: list[str] = []
    if world.archived(ref) is not None:
        found.append(PageKey("archive", ref).id)
    if ref.kind == "person":
        found += [Ref("person", other).id for other in world.namesakes(ref.number)]
        listed = world.name_page(ref.number)
        if listed is not None:
            found.append(listed.id)
    return found
