"""Saved real pages: what is found of the text that people marked as theirs.

Token F1: tokens are runs of letters and digits of the lower-cased text (``[^\\W_]+``), counted as a
bag; precision and recall are the shares of the bags that they have in common; F1 is their harmonic
mean, and the figure for a collection is the mean over its pages.
"""

import functools
import json
import re
from collections import Counter

import pytest
from bs4 import BeautifulSoup
from typer.testing import CliRunner

from ovd_envs.web.extract import extract
from training.cli import build_app


def token_f1(text, expected):
    found, wanted = (Counter(re.findall(r"[^\W_]+", t.lower())) for t in (text, expected))
    common = (found & wanted).total()
    return 2 * common / (found.total() + wanted.total()) if common else 0.0


@functools.cache
def fetched(path):
    done = CliRunner().invoke(build_app(), ["fetch", str(path), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def pages(shared_data):
    return shared_data / "pages"


@pytest.fixture(scope="module")
def web(pages):
    """(row, what ``ovd fetch FILE --json`` says) for each page of pages/web."""
    rows = map(json.loads, (pages / "web" / "expected_snippets.jsonl").read_text().splitlines())
    return [(row, fetched(pages / "web" / row["page"])) for row in rows]


def test_snippets_of_the_web_pages(web):
    missed = [s for row, page in web for s in row["with"] if s not in page["text"]]
    unwanted = [s for row, page in web for s in row["without"] if s in page["text"]]
    assert sum(len(row["with"]) for row, _ in web) == 22
    assert missed == []
    assert len(unwanted) <= 2


def test_titles_of_the_web_pages(web):
    for row, page in web:
        assert row.get("title", "").strip().lower() in page["title"].lower()


def test_encodings_of_the_web_pages(web):
    encodings = {row["page"]: page["encoding"] for row, page in web}
    assert encodings["rp.pl.Unijne-fundusze.html"] == "cp1250"
    assert encodings["cdu-fraktion-erfurt.de.waldorfschule.html"] == "cp1252"
    assert all("\ufffd" not in page["text"] for _, page in web)


def test_news_articles(pages):
    truth = json.loads((pages / "news" / "ground-truth.json").read_text())
    scores = [
        token_f1(fetched(pages / "news" / f"{name}.html.gz")["text"], known["articleBody"])
        for name, known in truth.items()
    ]
    assert len(scores) == 12
    assert sum(scores) / len(scores) >= 0.95


def test_readability_pages(pages):
    scores = {}
    for folder in sorted((pages / "readability").iterdir()):
        if folder.is_dir():
            wanted = BeautifulSoup((folder / "expected.html").read_bytes(), "lxml").get_text(" ")
            scores[folder.name] = token_f1(fetched(folder / "source.html")["text"], wanted)
    assert len(scores) == 4
    assert sum(scores.values()) / 4 >= 0.85
    assert scores["mathjax"] >= 0.9  # trafilatura alone drops every formula: 0.53


def test_no_row_of_a_long_table_is_lost(pages):
    path = pages / "web" / "siegfried-marcus-berufsschule.at.kft.html"
    words = {
        word
        for row in BeautifulSoup(path.read_bytes(), "lxml").find_all("tr")
        for word in re.findall(r"[^\W_]+", row.get_text(" ").replace("\xad", "").lower())
    }
    kept = set(re.findall(r"[^\W_]+", fetched(path)["text"].lower()))
    assert len(words - kept) <= 0.01 * len(words)


def letters(text):
    """The letters alone, without marks of notes ([12], [a], [update])."""
    return "".join(re.findall(r"[^\W\d_]+", re.sub(r"\[\w{1,6}( \d+)?\]", "", text.lower())))


def test_no_paragraph_of_a_long_article_is_lost(pages):
    path = pages / "readability" / "wikipedia-2" / "source.html"
    tree = BeautifulSoup(path.read_bytes(), "lxml")
    for unseen in tree.select("[style*='display:none'], style, sup"):
        unseen.decompose()
    paragraphs = [p.get_text() for p in tree.select(".mw-parser-output p")]
    wanted = [p for p in map(letters, paragraphs) if len(p) > 80]
    text = letters(fetched(path)["text"])
    assert len(wanted) > 60
    assert [p for p in wanted if p not in text] == []


def test_a_nul_a_missing_end_and_a_false_declaration_lose_nothing(pages):
    nul = (pages / "web" / "lostiempos.com-juicio.html").read_bytes()
    assert b"\0" in nul
    assert extract(nul).text == extract(nul.replace(b"\0", b"")).text
    unended = (pages / "web" / "autosprint.ch-pistenstopp.html").read_bytes()
    assert b"</html>" not in unended.lower()
    assert extract(unended).text == extract(unended + b"</body></html>").text
    false = (pages / "readability" / "qq" / "source.html").read_bytes()
    assert b"charset=gb2312" in false
    assert extract(false).encoding == "utf-8"
    assert "可微神经计算机" in extract(false).text
