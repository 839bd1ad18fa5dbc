"""`ovd index` and `ovd search` as a user meets them."""

import gzip
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from ovd_envs.search.encoders import Encoder, encoders
from training import cli

ROWS = [
    {"id": "p1", "contents": '"Red stone"\nGranite is a red stone.'},
    {"id": "p2", "contents": '"Blue river"\nThe [bold]river[/bold] runs.', "url": "http://u/2"},
    {"id": "p3", "contents": '"Green hill"\nGrass grows on the green hill, by the river.'},
]


@pytest.fixture
def ovd(capsys):
    def run(*arguments, code=0):
        with pytest.raises(SystemExit) as stop:
            cli.main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert stop.value.code == code, said
        return said

    return run


@pytest.fixture
def refused(ovd):
    """The one line that `ovd` says of a mistake."""

    def run(*arguments):
        said = ovd(*arguments, code=2)
        assert said.out == ""
        assert said.err.count("\n") == 1
        return said.err.removeprefix("error: ").strip()

    return run


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS).encode()))
    return path


@pytest.fixture
def folder(ovd, corpus, tmp_path):
    ovd("index", corpus, "--out", tmp_path / "x.index")
    return tmp_path / "x.index"


@pytest.fixture
def letters(monkeypatch):
    """The encoder "letters"; its calls are counted."""
    calls = []

    def encode(texts):
        calls.append(len(texts))
        return np.array([[text.lower().count(c) + 0.1 for c in "abcdefgh"] for text in texts])

    monkeypatch.setattr(encoders, "_entries", dict(encoders._entries))
    encoders.register("letters", lambda: Encoder.of(encode, "letters"), "counts letters")
    return calls


def test_index_and_what_it_says(ovd, corpus, tmp_path):
    out = tmp_path / "x.index"
    said = ovd("index", corpus, "--out", out).out
    assert re.match(
        r"3 documents, [\d.]+ MB in \S+x\.index, made in [\d.]+ s\nnext: ovd search", said
    )
    assert ovd("index", corpus, "--out", out).out.startswith("up to date: 3 documents")
    report = json.loads(ovd("index", corpus, "--out", out, "--json").out)
    size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    assert report.pop("seconds") < 60
    assert report == {
        "index": str(out),
        "documents": 3,
        "language": "english",
        "encoder": None,
        "built": [],
        "reason": "",
        "bytes": size,
    }


def test_a_changed_corpus(ovd, corpus, folder):
    corpus.write_bytes(gzip.compress(json.dumps(ROWS[0]).encode()))
    said = ovd("search", folder, "river")
    assert "note: " in said.err
    assert "corpus.jsonl.gz has been written since" in said.err
    assert "Blue river" in said.out
    said = ovd("index", corpus, "--out", folder).out
    assert "1 documents" in said
    assert "(the corpus has changed)" in said
    said = ovd("search", folder, "river")
    assert said.err == ""
    assert "nothing found for 'river'" in said.out


def test_search(ovd, folder):
    said = ovd("search", folder, "river", "--k", 2).out
    assert "Blue river" in said
    assert "[bold]river[/bold]" in said  # a page's text is no markup
    found = json.loads(ovd("search", folder, "the river", "--json").out)
    assert [row["id"] for row in found] == ["p2", "p3"]
    assert found[0] == {
        "id": "p2",
        "title": "Blue river",
        "text": "The [bold]river[/bold] runs.",
        "url": "http://u/2",
        "score": found[0]["score"],
    }
    assert set(found[1]) == {"id", "title", "text", "score"}
    assert json.loads(ovd("search", f"bm25:{folder}", "granite", "--json").out)[0]["id"] == "p1"


def test_many_queries(ovd, folder, tmp_path):
    path = tmp_path / "queries.jsonl"
    rows = [{"id": n, "question": ("river", "granite")[n % 2]} for n in range(130)]
    rows += [{"query": "hill"}, {"id": "last", "query": "nothing"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = ovd("search", folder, "--queries", path, "--json", "--k", 1).out.splitlines()
    found = [json.loads(line) for line in lines]
    assert [row["id"] for row in found] == [*range(130), 131, "last"]
    assert [r["id"] for row in found for r in row["results"]] == ["p2", "p1"] * 65 + ["p3"]
    assert found[-1]["results"] == []
    assert "Green hill" in ovd("search", folder, "--queries", path).out


def test_vectors(ovd, refused, corpus, folder, letters):
    assert "no vectors" in refused("search", folder, "x", "--engine", "dense")
    report = json.loads(ovd("index", corpus, "--out", folder, "--encoder", "letters", "--json").out)
    assert (report["built"], report["encoder"]) == (["vectors"], "letters")
    calls = len(letters)
    for arguments in ([], ["--encoder", "letters"]):
        assert ovd("index", corpus, "--out", folder, *arguments).out.startswith("up to date")
    assert len(letters) == calls
    for engine, name in (
        ([], "hybrid(bm25:x.index, dense:x.index)"),
        (["--engine", "dense"], "dense:x.index"),
        (["--engine", "bm25"], "bm25:x.index"),
    ):
        assert name in ovd("search", folder, "red", *engine).out
    found = json.loads(ovd("search", folder, "gggg", "--engine", "dense", "--json").out)
    assert found[0]["id"] == "p3"


def test_an_index_keeps_its_vectors_when_its_corpus_changes(ovd, corpus, folder, letters):
    ovd("index", corpus, "--out", folder, "--encoder", "letters")
    corpus.write_bytes(gzip.compress(json.dumps(ROWS[0]).encode()))
    report = json.loads(ovd("index", corpus, "--out", folder, "--json").out)
    assert report["built"] == ["bm25", "vectors"]
    assert len(np.load(folder / "vectors.npy")) == 1


@pytest.mark.parametrize("stop", ["while the encoder loads", "while it encodes"])
def test_vectors_of_a_changed_corpus_go_on_after_a_stop(
    ovd, corpus, folder, letters, monkeypatch, stop
):
    ovd("index", corpus, "--out", folder, "--encoder", "letters")
    corpus.write_bytes(gzip.compress(json.dumps(ROWS[0]).encode()))

    def ctrl_c(*_):
        raise KeyboardInterrupt

    def encoder():
        return ctrl_c() if stop == "while the encoder loads" else Encoder.of(ctrl_c, "letters")

    with monkeypatch.context() as patch:
        patch.setattr(encoders, "_entries", {})
        encoders.register("letters", encoder, "is stopped")
        said = ovd("index", corpus, "--out", folder, code=130)
    assert "the same command goes on with its vectors" in said.err
    assert "Granite" in ovd("search", folder, "granite").out
    report = json.loads(ovd("index", corpus, "--out", folder, "--json").out)
    assert (report["built"], report["encoder"]) == (["vectors"], "letters")
    assert ovd("index", corpus, "--out", folder).out.startswith("up to date")


def test_fields(ovd, tmp_path):
    path = tmp_path / "papers.jsonl"
    path.write_text('{"doi": "10.1/x", "name": "N", "abstract": "red"}\n')
    fields = ["--field", "id=doi", "--field", "title=name", "--field", "text=abstract"]
    ovd("index", path, "--out", tmp_path / "y", "--language", "none", *fields)
    found = json.loads(ovd("search", tmp_path / "y", "red", "--json").out)
    assert (found[0]["id"], found[0]["title"], found[0]["text"]) == ("10.1/x", "N", "red")


def test_bad_input_is_one_line(refused, corpus, folder, tmp_path):
    out = tmp_path / "y"
    assert "none.jsonl: cannot be read" in refused("index", "none.jsonl", "--out", out)
    assert "language: expected one of" in refused("index", corpus, "-o", out, "--language", "elf")
    assert "--field: expected PART=FIELD" in refused("index", corpus, "-o", out, "--field", "text")
    assert "no encoder 'nope'" in refused("index", corpus, "-o", folder, "--encoder", "nope")
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"id": "1"}\n')
    assert "bad.jsonl, row 1: expected one of text" in refused("index", bad, "--out", out)
    assert "a folder of something else" in refused("index", corpus, "--out", tmp_path)
    assert not out.exists()
    assert "nowhere: not an index" in refused("search", "nowhere", "x")
    assert "QUERY: expected a query" in refused("search", folder)
    assert "QUERY: expected a query" in refused("search", folder, "x", "--queries", bad)
    assert "row 1: expected a text in field" in refused("search", folder, "--queries", bad)
    assert "names its engine" in refused("search", f"bm25:{folder}", "x", "--engine", "dense")


def test_the_folder_in_which_one_stands(ovd, refused, corpus, folder, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    for arguments in ("search . x", "search bm25: x", "serve-search . --port 0"):
        assert refused(*arguments.split()).startswith(".: not an index")
    assert "expected a folder by its name" in refused("index", corpus, "--out", ".")
    monkeypatch.chdir(folder)
    assert ovd("index", corpus, "--out", ".").out.startswith("up to date")
    assert "Blue river" in ovd("search", ".", "river").out


@pytest.mark.parametrize("command", ["index", "search"])
def test_help_has_an_example(ovd, command):
    text = " ".join(ovd(command, "--help").out.split())
    assert f"Example: ovd {command}" in text
    assert "--json" in text


def test_ctrl_c_says_what_is_left(tmp_path):
    """In a terminal of its own, so that the bar is drawn too."""
    pipe = tmp_path / "endless.jsonl"
    pipe.write_text("".join(json.dumps({"text": f"word{n}"}) + "\n" for n in range(400_000)))
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", "import ovd; ovd.main()", "index", str(pipe), "-o", "x.index"],
        cwd=tmp_path,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
    )
    os.close(slave)
    end = time.monotonic() + 30
    while not (tmp_path / ".x.index.building" / "bm25").exists():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    said = b""
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:
            break
        if not chunk:
            break
        said += chunk
    assert process.wait() == 130, said
    assert b"indexing" in said
    assert b"stopped: x.index is as it was before" in said
    assert b"Traceback" not in said
    assert [p.name for p in tmp_path.iterdir()] == ["endless.jsonl"]
