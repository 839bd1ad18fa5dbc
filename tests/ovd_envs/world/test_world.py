"""Pages as passages: they say their facts, have one title each, and are found by their names."""

import tracemalloc
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovd_envs.errors import OVDError
from ovd_envs.search.bm25 import BM25Engine
from ovd_envs.world import RELATIONS, PageKey, Ref, World
from ovd_envs.world.facts import KINDS, OUTDATED
from ovd_envs.world.prose import SENTENCES, with_article, write


@pytest.fixture(scope="module")
def world():
    return World()


@pytest.fixture(scope="module")
def documents(world):
    return {document.id: document for document in world.documents()}


def test_there_are_pages_of_every_sort(world, documents):
    sorts = Counter(page.type for page in world.page_keys())
    assert set(sorts) == {"entity", "archive", "name"}
    assert sorts["entity"] == sum(world.counts.values()) == 746
    assert sum(sorts.values()) == len(documents) > 2 * world.people


def test_ids_titles_and_addresses_come_once(world, documents):
    found = list(documents.values())
    assert len({d.title for d in found}) == len({d.url for d in found}) == len(found)
    assert len(found) == sum(1 for _ in world.documents())


def test_every_fact_is_said_on_its_page(world, documents):
    for page in world.page_keys():
        if page.type == "name":
            continue
        text = documents[page.id].text
        assert world.name(page.ref) in text
        for relation, fact in world.told(page).items():
            assert world.text(fact) in text, (page.id, relation)


def test_an_archived_copy_says_so_and_tells_the_former_value(world, documents):
    old = [page for page in world.page_keys() if page.type == "archive"]
    assert len(old) > 50
    for page in old:
        document = documents[page.id]
        now = world.text(world.facts(page.ref)[OUTDATED[page.ref.kind]])
        year = str(world.archive_year(page.ref))
        assert document.title.endswith(f"(archived copy of {year})")
        assert "out of date" in document.text
        assert year in document.text
        assert now not in document.text
        assert now in documents[page.ref.id].text


def test_a_page_of_a_last_name_lists_its_bearers(world, documents):
    lists = [page for page in world.page_keys() if page.type == "name"]
    assert len(lists) > 20
    for page in lists:
        for index in world.person_names.bearers(page.ref.number):
            assert world.person_names(index) in documents[page.id].text
            assert world.name_page(index) == page


def test_passages_are_short(documents):
    lengths = [len(document.text.split()) for document in documents.values()]
    sentences = [document.text.count(".") for document in documents.values()]
    assert min(lengths) >= 20
    assert max(lengths) <= 70
    assert 33 <= sum(lengths) / len(lengths) <= 45
    assert min(sentences) >= 3
    assert max(sentences) <= 7


@pytest.mark.parametrize("kind", KINDS)
def test_every_wording_of_a_sentence_says_the_same(kind):
    values = {r.name: f"<{r.name}>" for r in RELATIONS.values() if r.of == kind}
    values |= {"name": "<name>", "short": "<name>", "former": "<former>"}
    if kind == "person":
        values["a_profession"] = "<profession>"
    stated = set()
    for wordings in SENTENCES[kind]:
        said = [
            {value for value in values.values() if value in wording.format_map(values)} - {"<name>"}
            for wording in wordings
        ]
        assert len(wordings) >= 2
        assert all(one == said[0] for one in said), wordings
        stated |= said[0]
    assert stated >= {f"<{r.name}>" for r in RELATIONS.values() if r.of == kind}


@given(st.sampled_from(KINDS), st.integers(0, 2**64 - 1))
def test_prose_keeps_its_first_sentence_and_loses_none(kind, choice):
    values = {r.name: f"<{r.name}>" for r in RELATIONS.values() if r.of == kind}
    values |= {"name": "<name>", "short": "<short>", "former": "<former>", "a_profession": "<p>"}
    said = write(kind, values, choice)
    assert len(said) == len(SENTENCES[kind])
    assert said[0] in {wording.format_map(values) for wording in SENTENCES[kind][0]}


def test_all_wordings_are_used(world, documents):
    firsts = Counter()
    for index in range(world.people):
        values = {r: world.text(f) for r, f in world.facts(Ref("person", index)).items()}
        values |= {"name": world.name(Ref("person", index))}
        for number, wording in enumerate(SENTENCES["person"][0]):
            firsts[number] += documents[f"person-{index}"].text.startswith(
                wording.format_map(values)
            )
    assert sum(firsts.values()) == world.people
    assert min(firsts.values()) > world.people / 8


def test_articles():
    assert with_article("archivist") == "an archivist"
    assert with_article("baker") == "a baker"


@given(st.integers(0, 10**9), st.integers(50, 600), st.data())
@settings(max_examples=30, deadline=None)
def test_ids_lead_back_to_their_pages(seed, people, data):
    world = World(seed, people=people)
    pages = list(world.page_keys())
    page = data.draw(st.sampled_from(pages))
    assert world.page_key(page.id) == page
    assert world.document(page.id).id == page.id
    assert world.paths[world.path(page)] == page
    assert len(world.paths) == len(pages)


@pytest.mark.parametrize(
    "id",
    [
        *("", "person", "person-", "person-400", "person--1", "person-01", "person-1x", "town-33"),
        *("archive-person-1", "archive-town-1", "archive-book-0", "archive-name-0", "name-1"),
        *("name-160", "archive-", "archive-archive-person-0", "person-٣", "planet-1", "/wiki/x"),
    ],
)
def test_there_is_no_page_of_another_id(world, id):
    with pytest.raises(OVDError, match="the world has no page"):
        world.document(id)
    with pytest.raises(OVDError, match="the world has no page"):
        world.page(id)


def test_an_entity_without_archived_copy_has_no_title_for_it(world):
    with pytest.raises(OVDError, match="no archived copy"):
        world.title(PageKey("archive", Ref("person", 1)))


def test_addresses_are_those_of_the_server_that_is_named(world):
    for document in islice(world.documents("http://127.0.0.1:8000"), 5):
        assert document.url.startswith("http://127.0.0.1:8000/wiki/")
    assert world.document("person-3").url.startswith("http://world.invalid/wiki/")


def test_a_large_corpus_is_made_one_by_one():
    world = World(people=100_000)
    for _ in islice(world.documents(), 100):  # what is made once, is made now
        pass
    tracemalloc.start()
    for _ in islice(world.documents(), 5_000):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000  # bytes, for passages of 1,500,000
    assert sum(world.counts.values()) > 180_000


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_name_finds_its_page(split):
    world = World(11, split=split)
    engine = BM25Engine.from_documents(world.documents())
    pages = [page for page in world.page_keys() if page.type == "entity"]
    results = engine.search([world.name(page.ref) for page in pages], 3)
    found = sum(
        page.id in [r.id for r in shown] for page, shown in zip(pages, results, strict=True)
    )
    assert found >= 0.99 * len(pages)
