"""Corpora: the forms that a row may have, bad rows, what is remembered of the files."""

import gzip
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovd_envs.errors import OVDError
from ovd_envs.search.corpus import Corpus, Document, clean, split_title


@pytest.fixture
def corpus(tmp_path):
    def write(*rows, name="corpus.jsonl", **options):
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        data = ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")
        path = tmp_path / name
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return Corpus(path, **options)

    return write


@pytest.mark.parametrize("name", ["c.jsonl", "c.jsonl.gz", "misnamed-gzip.gz"])
@pytest.mark.parametrize(
    ("row", "document"),
    [
        ({"id": "7", "contents": '"Ada"\nShe wrote.'}, ("7", "Ada", "She wrote.")),
        ({"id": 7, "contents": '"A "B" C"\nx\ny'}, ("7", 'A "B" C', "x\ny")),
        ({"contents": "No title\nhere"}, ("0", "", "No title\nhere")),
        ({"_id": "a", "title": "T", "text": "x", "url": "http://u"}, ("a", "T", "x", "http://u")),
        ({"title": "T", "body": "x", "url": None}, ("0", "T", "x")),
        ({"title": None, "text": '"quoted"'}, ("0", "", '"quoted"')),
        ({"title": "only", "text": ""}, ("0", "only", "")),
        ({"id": "s", "text": "half \ud83d and whole \U0001f600"}, ("s", "", "half � and whole 😀")),
    ],
)
def test_forms_of_a_row(corpus, row, document, name):
    assert list(corpus(row, name=name)) == [Document(*document)]


def test_fields_by_name(corpus):
    row = {"key": "k", "head": "H", "abstract": "A", "text": "other", "link": "u"}
    fields = {"id": "key", "title": "head", "text": "abstract", "url": "link"}
    assert list(corpus(row, fields=fields)) == [Document("k", "H", "A", "u")]
    with pytest.raises(OVDError, match="expected one of id, title, text, url, got 'author'"):
        corpus(row, fields={"author": "x"})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"id": "1", "title": "T"},
            "expected one of text, .* found the fields id, title",
        ),
        ({"text": None}, "expected a text as the text, got null"),
        ({"text": 5}, "expected a text as the text, got int"),
        ({"id": 1.5, "text": "x"}, "expected a text as the id, got float"),
        ({"id": True, "text": "x"}, "expected a text as the id, got bool"),
        ({"title": ["x"], "text": "x"}, "expected a text as the title, got list"),
        ("[1]", "expected a JSON object, got list"),
        ('{"text": "cut', "not valid JSON"),
    ],
)
def test_a_bad_row_is_one_line_with_file_and_row(corpus, row, message):
    made = corpus({"text": "fine"}, "", row)
    with pytest.raises(OVDError, match=rf"^\S*corpus\.jsonl, row 3: {message}") as caught:
        list(made)
    assert "\n" not in str(caught.value)


def test_a_named_field_is_not_replaced_by_a_usual_one(corpus):
    with pytest.raises(OVDError, match="row 1: expected a field 'abstract'"):
        list(corpus({"text": "x"}, fields={"text": "abstract"}))


def test_several_files_and_folders(tmp_path):
    for name, text in (("b.jsonl", "2"), ("a.jsonl", "1"), ("notes.txt", "no JSON")):
        (tmp_path / name).write_text(json.dumps({"text": text}))
    (tmp_path / "more").mkdir()
    with gzip.open(tmp_path / "more" / "c.jsonl.gz", "wt") as file:
        file.write('{"text": "3"}\n{"text": "4"}\n')
    made = Corpus([tmp_path, tmp_path / "more"])
    assert [d.text for d in made] == ["1", "2", "3", "4"]
    assert [d.id for d in made] == ["0", "1", "2", "3"]
    assert made.where(3) == f"{tmp_path / 'more' / 'c.jsonl.gz'}, row 2"


@pytest.mark.parametrize("place", ["missing.jsonl", "empty"])
def test_no_corpus(tmp_path, place):
    (tmp_path / "empty").mkdir()
    with pytest.raises(OVDError, match=rf"{place}: .*(no such file|found none)"):
        Corpus(tmp_path / place)


@pytest.mark.parametrize("cut", [-8, -30])
def test_a_damaged_gzip_file_is_one_line(tmp_path, cut):
    path = tmp_path / "c.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "abcdefghijklmnopqrstuvwxyz"}\n')[:cut] + b"")
    with pytest.raises(OVDError, match=r"c\.jsonl\.gz: the gzip stream is damaged"):
        list(Corpus(path))
    path.write_bytes(b"\x1f\x8bnonsense")
    with pytest.raises(OVDError, match=r"c\.jsonl\.gz: cannot be read"):
        list(Corpus(path))


@pytest.mark.parametrize("name", ["c.jsonl", "c.jsonl.gz"])
def test_the_fingerprint_is_of_the_bytes_on_the_disk(corpus, name):
    made = corpus({"text": "x"}, {"text": "y"}, name=name)
    data = made.paths[0].read_bytes()
    (alone,) = made.fingerprint()
    assert (alone.bytes, alone.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert alone.path == str(made.paths[0].resolve())
    again = Corpus(made.paths[0])
    list(again)
    assert again.bytes_read == again.bytes == len(data)
    made.paths[0].unlink()  # what was read with the documents need not be read again
    assert again.fingerprint() == [alone]


@given(st.text(), st.text())
def test_a_quoted_first_line_is_the_title(title, text):
    title = title.strip()
    found = split_title(f'"{title}"\n{text}')
    if title and "\n" not in title:
        assert found == (title, text)
    assert split_title(text) == ("", text) or text.lstrip().startswith('"')


@given(st.text(st.characters(exclude_categories=())))
def test_cleaned_text_is_utf8_and_changed_only_where_it_must(text):
    cleaned = clean(text)
    cleaned.encode()
    if not any(0xD800 <= ord(c) <= 0xDFFF for c in text):
        assert cleaned == text
