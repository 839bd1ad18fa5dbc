"""Making and opening an index folder: documents, a BM25 index of them and, by choice, vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from ovd_envs.errors import OVDError
from ovd_envs.jsonl import reason_of
from ovd_envs.search.analysis import check_language
from ovd_envs.search.bm25 import FOLDER, BM25Writer
from ovd_envs.search.building import building, restore, take_place
from ovd_envs.search.corpus import Corpus, CorpusFile, Document
from ovd_envs.search.documents import DocumentWriter, DuplicateId
from ovd_envs.search.manifest import Manifest
from ovd_envs.search.protocol import SearchEngine, SearchError
from ovd_envs.search.registry import make_engine

#: Documents between two calls of a progress callback.
_STEP = 1000


def build_index(
    documents: Iterable[Document],
    folder: str | Path,
    *,
    language: str = "english",
    encoder: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> Manifest:
    """Make the index ``folder`` of ``documents`` (a ``Corpus``, or any), which come as a stream.

    It is built beside its place and renamed into it: a stop at any moment leaves what was there
    before, and the next call removes the rest. An index that is there is replaced; whoever has it
    open goes on to read the old one.

    Args:
        documents: taken once, in order.
        folder: where the index goes.
        language: of the stemmer, or "none" (see ``ovd_envs.search.analysis.LANGUAGES``).
        encoder: noted in the index as the one whose vectors are to follow (``add_vectors``).
        progress: called with the number of documents so far, now and then.

    Raises:
        OVDError: for a bad row, two documents with one id, no document at all, a folder that
            holds something else or is given as "." or "..", a language that has no stemmer, a disk
            that is full, or where another process builds the same index.
    """
    folder = Path(folder)
    check_language(language)
    _refuse_other_folder(folder)
    try:
        with building(folder) as place:
            manifest = replace(_write(documents, place, language, progress), wanted=encoder)
            if not manifest.documents:
                raise OVDError("corpus: expected at least one document, found none")
            manifest.write(place)
            take_place(place, folder)
    except DuplicateId as error:
        if not isinstance(documents, Corpus):
            raise
        first, second = (documents.where(number) for number in error.numbers)
        raise OVDError(f"{second}: the id {error.identity!r} is that of {first} already") from error
    except OSError as error:
        raise OVDError(f"{folder}: cannot be written ({reason_of(error)})") from error
    return manifest


def out_of_date(
    folder: str | Path,
    corpus: Corpus,
    *,
    language: str = "english",
    progress: Callable[[], None] | None = None,
) -> str:
    """Why the index must be made (again) for ``corpus``, in a few words; "" where it need not.

    Reads the whole corpus where its size has not changed (``progress`` is called now and then,
    ``corpus.bytes_read`` tells how far). Raises ``OVDError`` where the folder
    holds an index of another corpus, or something else.
    """
    folder = Path(folder)
    _refuse_other_folder(folder)
    restore(folder)
    if not folder.exists() or not any(folder.iterdir()):
        return "new"
    try:
        manifest = Manifest.read(folder)
        open_index(folder, "bm25")
    except SearchError:
        return "it was damaged or of another version"
    same = [file.bytes for file in manifest.corpus] == [p.stat().st_size for p in corpus.paths]
    same = same and _contents(manifest.corpus) == _contents(corpus.fingerprint(progress))
    if not same:
        paths = [str(path.resolve()) for path in corpus.paths]
        if not set(paths) & {file.path for file in manifest.corpus}:
            made_from = ", ".join(file.path for file in manifest.corpus) or "documents in memory"
            raise OVDError(
                f"{folder}: holds an index of {made_from}; expected another folder, "
                "or remove that one first"
            )
        return "the corpus has changed"
    if manifest.language != language:
        return f"its language was {manifest.language}"
    if dict(manifest.fields) != corpus.fields:
        return "its fields were others"
    return ""


def open_index(folder: str | Path, engine: str | None = None) -> SearchEngine:
    """The engine of an index folder: ``engine`` ("bm25", "dense", "hybrid"), else the best there.

    Hybrid where the index has vectors, BM25 where it has none.
    """
    folder = Path(folder)
    if engine is None:
        engine = "bm25" if Manifest.read(folder).vectors is None else "hybrid"
    return make_engine(f"{engine}:{folder}")


def open_engine(index: str, engine: str | None = None) -> SearchEngine:
    """The engine of an index folder (see ``open_index``), or of "NAME:VALUE".

    Raises ``OVDError`` for neither.
    """
    if ":" in index and not Path(index).exists():
        if engine is not None:
            raise OVDError(f"INDEX: {index!r} names its engine; expected a folder with --engine")
        return make_engine(index)
    return open_index(index, engine)


def _write(
    documents: Iterable[Document],
    place: Path,
    language: str,
    progress: Callable[[int], None] | None,
) -> Manifest:
    (place / FOLDER).mkdir()
    store = DocumentWriter(place)
    index = BM25Writer(place / FOLDER, language)
    try:
        for document in documents:
            number = store.add(document)
            index.add(number, document)
            if progress is not None and number % _STEP == 0:
                progress(number)
        store.finish()
        if progress is not None:
            progress(store.count)
        index.finish()
    except BaseException:
        index.abandon()
        raise
    finally:
        store.close()
    if isinstance(documents, Corpus):
        return Manifest(store.count, language, tuple(documents.fingerprint()), documents.fields)
    return Manifest(store.count, language)


def _refuse_other_folder(folder: Path) -> None:
    if folder.is_dir():
        names = {path.name for path in folder.iterdir()}
        if names and "index.json" not in names:
            raise OVDError(f"{folder}: a folder of something else; expected a new one, or an index")
    elif folder.exists():
        raise OVDError(f"{folder}: expected a folder, it is a file")


def _contents(files: Iterable[CorpusFile]) -> list[str]:
    return [file.sha256 for file in files]


__all__ = ["build_index", "open_engine", "open_index", "out_of_date"]
