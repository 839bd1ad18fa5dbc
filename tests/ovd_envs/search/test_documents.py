"""The documents of an index on the disk: the same come back, doubles and damage are seen."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovd_envs.search import documents as module
from ovd_envs.search.corpus import Document
from ovd_envs.search.documents import (
    DOCUMENTS,
    DocumentFile,
    DocumentWriter,
    DuplicateId,
    numbered,
)
from ovd_envs.search.protocol import SearchError

TEXT = st.text(max_size=20)


def write(folder, documents):
    writer = DocumentWriter(folder)
    try:
        for document in documents:
            writer.add(document)
        writer.finish()
    finally:
        writer.close()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.builds(Document, TEXT, TEXT, TEXT, TEXT), min_size=1, unique_by=lambda d: d.id))
def test_what_is_written_is_read(tmp_path_factory, documents):
    folder = tmp_path_factory.mktemp("documents")
    write(folder, documents)
    read = DocumentFile(folder, len(documents))
    assert list(read) == read[:] == documents
    assert read[-1] == documents[-1]
    with pytest.raises(IndexError):
        read[len(documents)]


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 12), st.data())
def test_doubles_are_found_wherever_they_are(tmp_path_factory, size, data):
    """Blocks of three ids, so that doubles are within one, in two, and in the last one."""
    first = data.draw(st.integers(0, size - 2))
    second = data.draw(st.integers(first + 1, size - 1))
    ids = [str(n) for n in range(size)]
    ids[second] = ids[first]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_FIRST_BLOCK", 3)
        folder = tmp_path_factory.mktemp("doubles")
        with pytest.raises(DuplicateId) as caught:
            write(folder, [Document(i, "", "x") for i in ids])
    assert caught.value.numbers == (first, second)
    with pytest.raises(DuplicateId) as caught:
        numbered([Document(i, "", "x") for i in ids])
    assert caught.value.numbers == (first, second)


def test_equal_hashes_of_different_ids_are_no_doubles(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "hash", lambda text: 1, raising=False)
    monkeypatch.setattr(module, "_FIRST_BLOCK", 2)
    write(tmp_path, [Document(str(n), "", "x") for n in range(7)])
    assert len(DocumentFile(tmp_path, 7)) == 7


def test_damage_is_seen(tmp_path):
    write(tmp_path, [Document("a", "", "x"), Document("b", "", "y")])
    with pytest.raises(SearchError, match="damaged"):
        DocumentFile(tmp_path, 3)
    data = (tmp_path / DOCUMENTS).read_bytes()
    for harmed in (data[:-5], data + b"{}\n", b""):
        (tmp_path / DOCUMENTS).write_bytes(harmed)
        with pytest.raises(SearchError, match=r"damaged .* build it again"):
            DocumentFile(tmp_path, 2)
