"""Index folders: whole or not there, killed and stopped builds, what is up to date."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ovd_envs.errors import OVDError
from ovd_envs.search import SearchError
from ovd_envs.search.bm25 import BM25Engine
from ovd_envs.search.building import building, locked
from ovd_envs.search.corpus import Corpus, Document
from ovd_envs.search.index import build_index, open_engine, open_index, out_of_date
from ovd_envs.search.manifest import FILE, Manifest


@pytest.fixture
def corpus(tmp_path):
    def write(*texts, name="corpus.jsonl", **options):
        path = tmp_path / name
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        return Corpus(path, **options)

    return write


def leftovers(folder):
    return sorted(p.name for p in folder.parent.iterdir() if p.name.startswith("."))


def test_an_index_knows_what_it_was_made_from(corpus, tmp_path):
    made, folder = corpus("red", "blue"), tmp_path / "deep" / "x.index"
    seen = []
    built = build_index(made, folder, language="german", progress=seen.append)
    assert built == Manifest.read(folder)
    assert (built.documents, built.language, built.vectors) == (2, "german", None)
    assert list(built.corpus) == made.fingerprint()
    assert seen[-1] == 2
    assert leftovers(folder) == []
    engine = open_index(folder)
    assert [r.id for r in engine.search(["blue"], 3)[0]] == ["1"]
    assert engine.name == "bm25:x.index"


def test_documents_from_anywhere(tmp_path):
    build_index((Document(str(n), "", f"word{n}") for n in range(5)), tmp_path / "x")
    assert [r.id for r in open_index(tmp_path / "x").search(["word3"], 3)[0]] == ["3"]


def stop(texts, error):
    for text in texts:
        yield Document(text, "", text)
    raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("bug"), OVDError("bad row")])
def test_a_stopped_build_leaves_what_was_there(tmp_path, error):
    folder = tmp_path / "x"
    with pytest.raises(type(error)):
        build_index(stop(["a"], error), folder)
    assert list(tmp_path.iterdir()) == []
    build_index([Document("old", "", "old")], folder)
    with pytest.raises(type(error)):
        build_index(stop(["a"], error), folder)
    assert [r.id for r in open_index(folder).search(["old"], 1)[0]] == ["old"]
    assert leftovers(folder) == []


_SLOW = """
import sys, time
from pathlib import Path
from ovd_envs.search.corpus import Document
from ovd_envs.search.index import build_index
def documents():
    for n in range(3000):
        yield Document(str(n), "", f"half {n}")
    Path(sys.argv[2]).touch()
    time.sleep(60)
build_index(documents(), sys.argv[1])
"""


def half_built(folder, ready):
    """A process that has got half-way."""
    process = subprocess.Popen([sys.executable, "-c", _SLOW, str(folder), str(ready)])
    end = time.monotonic() + 30
    while not ready.exists():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    return process


@pytest.mark.parametrize("old", [False, True], ids=["new", "replaced"])
def test_a_killed_build_is_never_read(tmp_path, old):
    folder = tmp_path / "x"
    if old:
        build_index([Document("old", "", "half")], folder)
    process = half_built(folder, tmp_path / "ready")
    try:
        with pytest.raises(OVDError, match="another process works on this index"):
            build_index([Document("new", "", "half")], folder)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    if old:
        assert [r.id for r in open_index(folder).search(["half"], 9)[0]] == ["old"]
    else:
        with pytest.raises(SearchError, match=r"building was stopped, .* ovd index CORPUS --out"):
            open_index(folder)
    assert leftovers(folder) == [".x.building", ".x.lock"]
    build_index([Document("new", "", "half")], folder)
    assert [r.id for r in open_index(folder).search(["half"], 9)[0]] == ["new"]
    assert leftovers(folder) == []


def test_a_kill_between_the_two_renames_is_mended(tmp_path, corpus):
    folder = tmp_path / "x"
    made = corpus("red")
    build_index(made, folder)
    folder.rename(tmp_path / ".x.old")
    assert out_of_date(folder, made) == ""
    assert open_index(folder).search(["red"], 1)[0]


def test_who_has_the_old_index_open_reads_on(tmp_path):
    folder = tmp_path / "x"
    build_index([Document(str(n), "", f"old word{n}") for n in range(100)], folder)
    engine = BM25Engine(folder)
    build_index([Document("new", "", "new")], folder)
    assert [r.id for r in engine.search(["word77"], 1)[0]] == ["77"]
    assert len(engine.search(["old"], 100)[0]) == 100
    assert [r.id for r in BM25Engine(folder).search(["new"], 1)[0]] == ["new"]


def test_a_lock_that_its_owner_has_removed_meanwhile_locks_nothing(tmp_path, monkeypatch):
    folder, lock = tmp_path / "x", tmp_path / ".x.lock"
    calls = []

    def flock(*arguments):
        fcntl_flock(*arguments)
        calls.append(arguments)
        if len(calls) == 1:
            lock.unlink()

    fcntl_flock = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", flock)
    with building(folder) as place:
        assert place.is_dir()
        with pytest.raises(OVDError, match="another process"), locked(folder):
            pass
    assert len(calls) == 2
    assert leftovers(folder) == []


def test_up_to_date(corpus, tmp_path):
    made, folder = corpus("red", "blue"), tmp_path / "x"
    assert out_of_date(folder, made) == "new"
    build_index(made, folder)
    assert out_of_date(folder, made) == ""
    assert Manifest.read(folder).corpus_changed() == ""
    assert out_of_date(folder, made, language="none") == "its language was english"
    assert "fields" in out_of_date(folder, corpus("red", "blue", fields={"text": "text"}))
    moved = corpus("red", "blue", name="moved.jsonl")
    assert out_of_date(folder, moved) == ""  # the same contents elsewhere


@pytest.mark.parametrize("texts", [("red", "gray"), ("red", "blue", "green")])
def test_a_changed_corpus_is_seen(corpus, tmp_path, texts):
    folder = tmp_path / "x"
    before = corpus("red", "blue")
    build_index(before, folder)
    status = before.paths[0].stat()
    after = corpus(*texts)
    os.utime(before.paths[0], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert out_of_date(folder, after) == "the corpus has changed"  # its time tells nothing
    os.utime(before.paths[0])
    assert "has been written since" in Manifest.read(folder).corpus_changed()
    before.paths[0].unlink()
    assert Manifest.read(folder).corpus_changed() == ""


def test_an_index_of_another_corpus_is_not_replaced(corpus, tmp_path):
    folder = tmp_path / "x"
    build_index(corpus("red"), folder)
    with pytest.raises(OVDError, match=r"x: holds an index of \S*corpus.jsonl; expected another"):
        out_of_date(folder, corpus("blue", name="other.jsonl"))


def test_a_folder_of_something_else_is_not_touched(corpus, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    build_index(corpus("red"), folder)  # an empty one is fine
    for path in folder.iterdir():
        if path.name == FILE:
            path.rename(folder / "family.jpg")
    for call in (build_index, lambda documents, place: out_of_date(place, documents)):
        with pytest.raises(OVDError, match="photos: a folder of something else"):
            call(corpus("red"), folder)
    assert (folder / "family.jpg").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(OVDError, match="expected a folder, it is a file"):
        build_index(corpus("red"), tmp_path / "file")


@pytest.mark.parametrize(("where", "given"), [(".", "."), ("bm25", "..")])
def test_an_index_by_where_one_stands(tmp_path, monkeypatch, where, given):
    """It is read, and locked beside its place; it is not built, which would rename it away."""
    folder = tmp_path / "x"
    build_index([Document("old", "", "old")], folder)
    monkeypatch.chdir(folder / where)
    assert [r.id for r in open_index(given).search(["old"], 1)[0]] == ["old"]
    with locked(Path(given)):
        assert leftovers(folder) == [".x.lock"]
        with pytest.raises(OVDError, match="another process"), locked(folder):
            pass
    with pytest.raises(OVDError, match=r"^\.+: an index is renamed into its place; expected a f"):
        build_index([Document("new", "", "new")], given)
    assert [r.id for r in open_index(given).search(["old"], 1)[0]] == ["old"]
    assert leftovers(folder) == []


def test_a_folder_without_a_name_that_is_no_index(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    for given in (".", "", "..", "/"):
        with pytest.raises(SearchError, match="not an index"):
            open_index(given)
    (tmp_path / ".in.building").mkdir()
    with pytest.raises(SearchError, match=r"^\.: its building was stopped"):
        open_index(".")


def test_bad_input(corpus, tmp_path):
    with pytest.raises(OVDError, match="expected at least one document, found none"):
        build_index(corpus(), tmp_path / "x")
    with pytest.raises(OVDError, match="language: expected one of"):
        build_index(corpus("red"), tmp_path / "x", language="latin")
    double = tmp_path / "double.jsonl"
    double.write_text('{"id": "a", "text": "x"}\n\n{"id": "a", "text": "y"}\n')
    message = r"double\.jsonl, row 3: the id 'a' is that of \S*double\.jsonl, row 1 already"
    with pytest.raises(OVDError, match=message):
        build_index(Corpus(double), tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"schema": 99}', "version 99, expected 1; build it again"),
        ('{"schema": 1}', "not an index's"),
        ("[]", "not an index's"),
        ("", "not an index's"),
    ],
)
def test_a_manifest_that_cannot_be_read(tmp_path, corpus, text, message):
    folder = tmp_path / "x"
    made = corpus("red")
    build_index(made, folder)
    (folder / FILE).write_text(text)
    with pytest.raises(SearchError, match=message) as caught:
        BM25Engine(folder)
    assert "\n" not in str(caught.value)
    assert out_of_date(folder, made) == "it was damaged or of another version"
    build_index(made, folder)
    assert BM25Engine(folder).search(["red"], 1)[0]


def test_open_engine(corpus, tmp_path):
    folder = tmp_path / "x"
    build_index(corpus("red"), folder)
    assert open_engine(str(folder)).name == "bm25:x"
    assert open_engine(f"bm25:{folder}").name == "bm25:x"
    with pytest.raises(OVDError, match="names its engine"):
        open_engine(f"bm25:{folder}", "dense")
    with pytest.raises(SearchError, match="no vectors; make them"):
        open_engine(str(folder), "dense")
    with pytest.raises(SearchError, match=r"not an index \(no index.json in it\); make one"):
        open_engine(str(tmp_path / "nowhere"))
