"""Dense search: exact, the same in any batch, vectors that go on after a stop."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovd_envs.errors import OVDError
from ovd_envs.search import SearchEngine, SearchError
from ovd_envs.search import dense as module
from ovd_envs.search.corpus import Document
from ovd_envs.search.dense import DenseEngine, add_vectors
from ovd_envs.search.documents import DuplicateId
from ovd_envs.search.encoders import Encoder, encoded, encoders, make_encoder
from ovd_envs.search.index import build_index, open_index
from ovd_envs.search.manifest import Manifest


def letters(texts):
    """A vector of how often each letter comes."""
    return np.array([[text.lower().count(c) for c in "abcdefghij"] for text in texts], float)


LETTERS = Encoder.of(letters, "letters")
PAGES = [Document("a", "", "aaa"), Document("b", "", "bb"), Document("ab", "ab", "ab")]


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(encoders, "_entries", dict(encoders._entries))
    encoders.register("letters", lambda: LETTERS, "counts letters")


@pytest.fixture
def index(tmp_path):
    build_index(PAGES, tmp_path / "x")
    return tmp_path / "x"


def ids(engine, query, k=10):
    return [result.id for result in engine.search([query], k)[0]]


@pytest.mark.parametrize("kind", ["memory", "folder"])
def test_the_nearest_first(index, kind):
    if kind == "memory":
        engine = DenseEngine.from_documents(PAGES, letters)
    else:
        assert add_vectors(index, "letters").vectors.encoder == "letters"
        engine = DenseEngine(index)
        assert engine.name == "dense:x"
    assert isinstance(engine, SearchEngine)
    assert ids(engine, "a") == ["a", "ab", "b"]
    assert ids(engine, "ab", 1) == ["ab"]
    (found,) = engine.search(["a"], 2)
    assert found[0].score == pytest.approx(1)
    assert found[1].score == pytest.approx(0.5**0.5, abs=1e-3)
    assert engine.search([], 3) == []
    with pytest.raises(OVDError, match="k: expected at least 1"):
        engine.search(["a"], 0)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 70), st.integers(1, 9), st.integers(0, 10**6))
def test_exact_and_the_same_in_any_batch(size, k, block, seed):
    """Against all products in double precision; many documents are equal."""
    rng = np.random.default_rng(seed)
    kinds = rng.normal(size=(size // 2 + 1, 5)).astype(np.float16)
    vectors = {str(n): kinds[rng.integers(len(kinds))] for n in range(size)}
    queries = {f"q{n}": rng.normal(size=5) for n in range(7)}
    encode = lambda texts: np.array([{**vectors, **queries}[text] for text in texts])  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", block)
        patch.setattr(module, "_QUERIES", 3)
        engine = DenseEngine.from_documents([Document(n, "", n) for n in vectors], encode)
        batch = engine.search(list(queries), k)
        assert batch == [engine.search([query], k)[0] for query in queries]
    unit = engine._vectors.astype(np.float64)
    for results, query in zip(batch, encoded(encode, list(queries), "q"), strict=True):
        scores = (unit * query.astype(np.float64)).sum(1)
        best = np.lexsort((np.arange(size), -scores))[:k]
        assert [int(r.id) for r in results] == list(best)
        assert [r.score for r in results] == [scores[n] for n in best]


def test_scores_closer_than_single_precision(monkeypatch):
    """Which of them come first hangs neither on the batch nor on the blocks."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=300)
    unit = np.array([base] * 400).astype(np.float16)
    for row in unit:
        row[rng.integers(300, size=2)] += np.float16(2e-3)
    names = [str(n) for n in range(len(unit))]
    vectors = dict(zip(names, unit, strict=True)) | {"query": base}
    encode = lambda texts: np.array([vectors[text] for text in texts])  # noqa: E731
    engine = DenseEngine.from_documents([Document(n, "", n) for n in names], encode)
    stored = engine._vectors.astype(np.float64)
    query = encoded(encode, ["query"], "q")[0].astype(np.float64)
    best = np.lexsort((np.arange(400), -(stored * query).sum(1)))
    for block in (7, 64, 1000):
        monkeypatch.setattr(module, "_BLOCK", block)
        for k in (1, 5, 50):
            assert ids(engine, "query", k) == [str(n) for n in best[:k]]


def test_queries_and_passages_may_be_encoded_apart():
    encoder = Encoder("swapped", lambda texts: letters(texts)[:, ::-1], letters)
    engine = DenseEngine.from_documents(PAGES, encoder)
    assert ids(engine, "j", 1) == ["a"]
    with pytest.raises(DuplicateId):
        DenseEngine.from_documents([PAGES[0], PAGES[0]], encoder)
    assert DenseEngine.from_documents([], encoder).search(["a"], 1) == [[]]


@pytest.mark.parametrize(
    ("encode", "message"),
    [
        (lambda texts: np.zeros((len(texts) + 1, 3)), r"expected vectors of shape \(3, d\)"),
        (lambda texts: np.zeros(3), r"expected vectors of shape \(3, d\), got \(3,\)"),
        (lambda texts: np.full((len(texts), 2), np.nan), "not finite, for the text 'aaa'"),
    ],
)
def test_an_encoder_that_gives_no_vectors(encode, message):
    with pytest.raises(OVDError, match=message):
        DenseEngine.from_documents(PAGES, encode)


def test_an_encoder_of_another_kind_is_refused(index):
    add_vectors(index, LETTERS)
    with pytest.raises(OVDError, match="expected vectors of 10 numbers, the encoder gave 3"):
        DenseEngine(index, lambda texts: np.ones((len(texts), 3))).search(["a"], 1)


def test_without_vectors(index):
    with pytest.raises(SearchError, match="no vectors; make them: ovd index CORPUS --out"):
        DenseEngine(index)


class Stopping:
    """Counts letters, and stops at the document ``at``."""

    def __init__(self, at=None):
        self.at, self.seen = at, []

    def __call__(self, texts):
        for text in texts:
            if text == self.at:
                raise KeyboardInterrupt
        self.seen += texts
        return letters(texts)


@pytest.mark.parametrize("tail", [b"", b"\x01"], ids=["whole", "cut"])
def test_vectors_go_on_after_a_stop(tmp_path, monkeypatch, tail):
    monkeypatch.setattr(module, "_CHUNK", 4)
    documents = [Document(str(n), "", "abcdefghij"[n % 10] * (n + 1)) for n in range(23)]
    folder = tmp_path / "x"
    build_index(documents, folder)
    with pytest.raises(KeyboardInterrupt):
        add_vectors(folder, Encoder.of(Stopping(documents[14].text), "letters"))
    assert Manifest.read(folder).vectors is None
    assert open_index(folder).search(["aaa"], 1) is not None
    with (folder / "vectors.partial").open("ab") as file:
        file.write(tail)  # a kill within a write
    rest, told = Stopping(), []
    add_vectors(folder, Encoder.of(rest, "letters"), progress=told.append)
    assert rest.seen == [documents[0].text, *[d.text for d in documents[12:]]]
    assert told[-1] == 23
    whole = tmp_path / "whole"
    build_index(documents, whole)
    add_vectors(whole, LETTERS)
    assert (folder / "vectors.npy").read_bytes() == (whole / "vectors.npy").read_bytes()
    assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in whole.iterdir())


def test_another_encoder_begins_anew(index, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 1)
    with pytest.raises(KeyboardInterrupt):
        add_vectors(index, Encoder.of(Stopping("bb"), "letters"))
    swapped = Encoder.of(lambda texts: letters(texts)[:, ::-1], "swapped")
    add_vectors(index, swapped)
    assert ids(DenseEngine(index, swapped), "a", 1) == ["a"]
    assert np.load(index / "vectors.npy").argmax(1).tolist()[:2] == [9, 8]
    assert Manifest.read(index).vectors.encoder == "swapped"


@pytest.mark.parametrize("stop", ["before the old name goes", "after the new vectors came"])
def test_a_stop_leaves_no_vectors_under_another_encoders_name(index, monkeypatch, stop):
    add_vectors(index, LETTERS)
    swapped = Encoder.of(lambda texts: letters(texts)[:, ::-1], "swapped")
    write = Manifest.write

    def full(manifest, folder):
        if manifest.vectors is not None or stop == "before the old name goes":
            raise OVDError("the disk is full")
        write(manifest, folder)

    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "write", full)
        with pytest.raises(OVDError, match="the disk is full"):
            add_vectors(index, swapped)
    if stop == "before the old name goes":
        assert ids(DenseEngine(index), "a", 1) == ["a"]
    else:
        with pytest.raises(SearchError, match="no vectors"):
            DenseEngine(index)
        assert open_index(index).name == "bm25:x"
        assert Manifest.read(index).wanted == "swapped"
    assert add_vectors(index, swapped).wanted is None
    assert ids(DenseEngine(index, swapped), "a", 1) == ["a"]


@pytest.mark.parametrize("harm", ["gone", "cut", "other"])
def test_damage_is_seen(index, harm):
    add_vectors(index, LETTERS)
    path = index / "vectors.npy"
    if harm == "gone":
        path.unlink()
    elif harm == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        np.save(path, np.zeros((3, 9), np.float16))
    with pytest.raises(SearchError, match="damaged"):
        DenseEngine(index)


def test_make_encoder():
    assert make_encoder("letters") is LETTERS
    assert make_encoder(LETTERS) is LETTERS
    with pytest.raises(OVDError, match="encoder 'letters:x'"):
        make_encoder("letters:x")
    with pytest.raises(OVDError, match="no encoder 'lettres': did you mean 'letters'"):
        make_encoder("lettres")


def test_the_best_engine_of_an_index(index):
    assert open_index(index).name == "bm25:x"
    add_vectors(index, "letters")
    assert open_index(index).name == "hybrid(bm25:x, dense:x)"
    assert open_index(index, "dense").name == "dense:x"
    assert ids(open_index(index), "ab")[0] == "ab"
    manifest = json.loads((index / "index.json").read_text())
    assert manifest["vectors"] == {"encoder": "letters", "dimensions": 10}
