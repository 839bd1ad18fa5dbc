"""BM25: what is found, any text as a query, the order of equal scores, languages, threads."""

import math
import random
import resource
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovd_envs.errors import OVDError
from ovd_envs.search import SearchEngine, SearchError
from ovd_envs.search import bm25 as module
from ovd_envs.search.bm25 import BM25Engine, BM25Writer
from ovd_envs.search.corpus import Document
from ovd_envs.search.documents import DuplicateId

PAGES = [
    Document("ada", "Ada Brindle", "A clockmaker from Harrow who repaired running clocks."),
    Document("tove", "Tove Lindqvist", "She painted Ada Brindle, a neighbour, in Ålesund."),
    Document("jun", "Jun Okafor", "An engineer. Zoë Neíron and he built the tower of Ålesund."),
    Document("who", "The Who", "An English rock band."),
    Document("blank", "", ""),
]


@pytest.fixture(scope="module")
def pages():
    return BM25Engine.from_documents(PAGES)


def ids(engine, query, k=10):
    return [result.id for result in engine.search([query], k)[0]]


def test_it_is_an_engine(pages):
    assert isinstance(pages, SearchEngine)
    (found,) = pages.search(["painted"], 3)
    (result,) = found
    assert (result.id, result.title, result.text) == ("tove", PAGES[1].title, PAGES[1].text)
    assert result.score > 0


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("clocks repairing", "ada"),  # stems
        ("Alesund painter painting", "tove"),  # accents
        ("zoe neiron", "jun"),
        ("Ne\u0301iron Nei\u0301ron", "jun"),  # accents apart from their letters
        ("ＡＤＡ", "ada"),  # wide letters
        ("the who", "who"),
        ("the", "who"),  # stop words count where there are no others
        ("ada brindle", "ada"),  # a title counts twice
    ],
)
def test_what_is_found_first(pages, query, first):
    assert ids(pages, query)[0] == first


@pytest.mark.parametrize("query", ["", " \n", "?!", "\0", "()", "🙂", "xyzzy"])
def test_what_means_nothing_finds_nothing(pages, query):
    assert ids(pages, query) == []


@pytest.mark.parametrize(
    "query",
    [
        '"tower',
        "tower AND",
        "title:tower^^^",
        "+tower -tower",
        "(tower OR [tower TO *]",
        "tower~9999 *:*",
        "tower\0",
        "tower \ud800",
        "\u202etower\u202c שלום",
        "text:tower IN [a b]",
        "\\tower/ {tower}",
    ],
)
def test_operators_are_words(pages, query):
    assert "jun" in ids(pages, query)


@settings(max_examples=300, deadline=None)
@given(
    st.text(st.one_of(st.characters(exclude_categories=()), st.sampled_from('"+-*:^~()[]{}\\/ ')))
)
def test_any_text_is_a_query(pages, query):
    assert ids(pages, query) == ids(pages, query)
    assert ids(pages, f"{query} tower {query}")  # what else is in it takes nothing away


def test_a_very_long_query(pages):
    rng = random.Random(0)
    words = " ".join(f"{rng.getrandbits(30):x}" for _ in range(12_000))
    assert len(words) > 90_000
    assert ids(pages, f"tower {words}")[0] == "jun"
    assert ids(pages, "tower" * 20_000) == []


def test_k(pages):
    assert len(ids(pages, "a", 1)) == 1
    assert len(ids(pages, "a", 10**9)) == 2
    assert pages.search([], 3) == []
    for k in (0, -1):
        with pytest.raises(OVDError, match="k: expected at least 1"):
            pages.search(["a"], k)


def test_the_empty_index_finds_nothing():
    assert BM25Engine.from_documents([]).search(["a"], 3) == [[]]


def test_doubles_are_refused():
    with pytest.raises(DuplicateId, match="documents 1 and 2 have the same id 'a'"):
        BM25Engine.from_documents([Document("a", "", "x"), Document("a", "", "y")])


def test_the_score_is_bm25():
    """Robertson's formula with k1 1.2 and b 0.75, on lengths that tantivy keeps exactly."""
    texts = ["red blue", "red red green", "green", "blue blue blue red"]
    engine = BM25Engine.from_documents(
        [Document(str(n), "", text) for n, text in enumerate(texts)], language="none"
    )
    words = [text.split() for text in texts]
    average = sum(map(len, words)) / len(words)

    def score(query, document):
        total = 0.0
        for word, times in Counter(query.split()).items():
            df = sum(word in w for w in words)
            idf = math.log(1 + (len(words) - df + 0.5) / (df + 0.5))
            tf = document.count(word)
            norm = 1.2 * (1 - 0.75 + 0.75 * len(document) / average)
            total += times * idf * tf * 2.2 / (tf + norm)
        return total

    for query in ("red", "blue red", "green green blue"):
        (found,) = engine.search([query], 4)
        assert found
        for result in found:
            assert result.score == pytest.approx(score(query, words[int(result.id)]), rel=1e-5)


def test_languages():
    german = [Document("1", "", "Die Häuser der Städte"), Document("2", "", "Ein Hund")]
    assert ids(BM25Engine.from_documents(german, language="german"), "Haus Stadt") == ["1"]
    assert ids(BM25Engine.from_documents(german, language="none"), "Haus Stadt") == []
    with pytest.raises(OVDError, match=r"expected one of arabic, .*'none', got 'klingon'"):
        BM25Engine.from_documents(german, language="klingon")


def made(documents, *, threads, parts):
    """An engine whose index was written in parts, in disorder, by some threads."""
    engine = BM25Engine.__new__(BM25Engine)
    writer = BM25Writer(None, "english", memory=15_000_000 * threads, threads=threads)
    numbers = list(range(len(documents)))
    if parts:
        random.Random(parts).shuffle(numbers)
    for place, number in enumerate(numbers):
        writer.add(number, documents[number])
        if parts and place % (len(documents) // parts) == 1:
            writer._writer.commit()
    engine._use(writer.finish(), documents, "english")
    return engine


def test_equal_scores_are_in_the_order_of_the_corpus():
    rng = random.Random(1)
    words = ["red", "blue", "green", "stone", "river"]
    documents = [Document(str(n), "", " ".join(rng.choices(words, k=4))) for n in range(4000)]
    engines = [made(documents, threads=t, parts=p) for t, p in ((1, 0), (1, 5), (4, 3))]
    assert engines[0]._searcher.num_segments == 1
    assert engines[1]._searcher.num_segments > 1
    for query in ("red", "blue stone", "river river red"):
        for k in (1, 3, 50, 150, 5000):
            reference = [(r.score, int(r.id)) for r in engines[0].search([query], k)[0]]
            assert reference == sorted(reference, key=lambda hit: (-hit[0], hit[1]))
            for engine in engines[1:]:
                assert ids(engine, query, k) == [str(n) for _, n in reference]


def test_from_several_threads_and_in_batches(monkeypatch):
    rng = random.Random(2)
    words = [f"w{n}" for n in range(50)]
    documents = [Document(str(n), "", " ".join(rng.choices(words, k=6))) for n in range(500)]
    engine = BM25Engine.from_documents(documents)
    queries = [" ".join(rng.choices(words, k=3)) for _ in range(200)]
    alone = [engine.search([query], 5)[0] for query in queries]
    assert engine.search(queries, 5) == alone
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda q: engine.search([q], 5)[0], queries)) == alone
    monkeypatch.setattr(module, "_MANY", 0)
    assert engine.search(queries, 5) == alone


_STARVED = """
import resource, sys
from pathlib import Path
from ovd_envs.search.bm25 import BM25Writer
from ovd_envs.search.corpus import Document
from ovd_envs.search.protocol import SearchError
writer = BM25Writer(Path(sys.argv[1]), "none")
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    for n in range(20_000):
        writer.add(n, Document(str(n), "", f"{n * 7919:x} {n * 104729:x} {n * 1299709:x}"))
    writer.finish()
except SearchError as error:
    print("refused:", error)
"""


def test_a_disk_that_is_full(tmp_path):
    assert resource.RLIMIT_FSIZE
    done = subprocess.run(
        [sys.executable, "-c", _STARVED, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("refused: the index cannot be written"), done


@pytest.mark.parametrize("harm", ["missing", "cut"])
def test_a_damaged_index_is_refused(tmp_path, harm):
    from ovd_envs.search.index import build_index

    folder = tmp_path / "x.index"
    build_index(PAGES, folder)
    for path in (folder / "bm25").iterdir():
        if path.suffix == ".term":
            path.unlink() if harm == "missing" else path.write_bytes(b"")
    with pytest.raises(SearchError, match=r"x\.index: the index is damaged"):
        BM25Engine(folder).search(["ada"], 1)
