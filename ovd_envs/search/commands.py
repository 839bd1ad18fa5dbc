"""The commands ``ovd index`` and ``ovd search``."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ovd_envs.errors import OVDError
from ovd_envs.jsonl import read_jsonl_numbered

if TYPE_CHECKING:
    from ovd_envs.search.corpus import Corpus
    from ovd_envs.search.manifest import Manifest
    from ovd_envs.search.protocol import SearchEngine, SearchResult

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

#: Queries of a file that are asked at a time.
_BATCH = 64


def register_commands(app: typer.Typer) -> None:
    """Add the commands of this module to ``app``."""
    app.command("index")(index)
    app.command("search")(search)


def index(
    corpus: Annotated[
        list[Path],
        typer.Argument(
            metavar="CORPUS",
            help="JSONL files, gzip or not, or folders of them.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="DIR", help="Folder of the index.", show_default=False),
    ],
    language: Annotated[
        str, typer.Option(metavar="NAME", help='Whose words are stemmed; "none" stems none.')
    ] = "english",
    encoder: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Add vectors for dense and hybrid search, e.g. minilm-l6; see `ovd envs`.",
        ),
    ] = None,
    field: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PART=FIELD",
            help="Name of a row's field for id, title, text or url; may be repeated.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a search index of a corpus: BM25 and, with --encoder, vectors beside it.

    A row is {"id", "contents"} as Search-R1 has it, or {"id", "title", "text", "url"}; only the
    text is needed. An index that is up to date is left as it is; one whose corpus has changed is
    made again and replaced as a whole. A stop leaves no half index, and vectors go on where they
    stopped.

    Example: ovd index passages.jsonl.gz --out wiki.index
    """
    from ovd_envs.search.corpus import Corpus
    from ovd_envs.search.index import out_of_date

    began = time.perf_counter()
    fields = _fields(field or [])
    source = Corpus(corpus, fields=fields)
    with _bar("checking", source.bytes, bytes_=True) as show:
        reason = out_of_date(
            out, source, language=language, progress=lambda: show(source.bytes_read)
        )
    before = _manifest(out)
    if encoder is None and before is not None:  # an index does not lose its vectors by the way
        encoder = before.wanted if before.vectors is None else before.vectors.encoder
    manifest, built = before, []
    if reason or manifest is None:
        manifest = _build(source, out, language, encoder)
        built.append("bm25")
    if encoder is not None and (manifest.vectors is None or manifest.vectors.encoder != encoder):
        manifest = _encode(out, encoder, manifest.documents)
        built.append("vectors")
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    seconds = time.perf_counter() - began
    report = {
        "index": str(out),
        "documents": manifest.documents,
        "language": manifest.language,
        "encoder": None if manifest.vectors is None else manifest.vectors.encoder,
        "built": built,
        "reason": reason,
        "seconds": round(seconds, 2),
        "bytes": size,
    }
    if as_json:
        _print_json(report)
        return
    what = f"{manifest.documents:,} documents, {size / 1e6:,.1f} MB in {out}"
    if built:
        why = "" if reason in ("", "new") else f" ({reason})"
        typer.echo(f"{what}, made in {seconds:.1f} s{why}")
    else:
        typer.echo(f"up to date: {what}")
    typer.echo(f'next: ovd search {out} "..."')


def search(
    index: Annotated[
        str,
        typer.Argument(
            metavar="INDEX",
            help="Folder of an index (see `ovd index`), or any engine as NAME:VALUE.",
            show_default=False,
        ),
    ],
    query: Annotated[
        str | None, typer.Argument(metavar="QUERY", help="What to look for.", show_default=False)
    ] = None,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="Results, at most.")] = 10,
    engine: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Of an index: bm25, dense or hybrid; by default hybrid where it has vectors.",
            show_default=False,
        ),
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help='Many queries instead: JSONL with "question" or "query", and "id".',
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Search an index, or with any search engine.

    With --queries and --json, one line for each row: {"id", "results"}.

    Example: ovd search wiki.index "who wrote the first novel" --k 3
    """
    from ovd_envs.search.index import open_engine

    if (query is None) == (queries is None):
        raise OVDError("QUERY: expected a query, or --queries FILE (one of the two)")
    asked = [] if queries is None else _read_queries(queries)
    opened = open_engine(index, engine)
    try:
        if changed := _corpus_changed(index):
            typer.echo(f"note: {changed}; `ovd index` brings it up to date", err=True)
        if query is not None:
            (found,) = opened.search([query], k)
            if as_json:
                _print_json([_plain(result) for result in found])
            else:
                _print_table(query, opened.name, found)
            return
        for identity, text, found in _many(opened, asked, k):
            if as_json:
                typer.echo(json.dumps({"id": identity, "results": [_plain(r) for r in found]}))
            else:
                _print_table(text, opened.name, found)
    finally:
        close = getattr(opened, "close", None)
        if close is not None:
            close()


def _build(corpus: Corpus, out: Path, language: str, encoder: str | None) -> Manifest:
    from ovd_envs.search.index import build_index

    try:
        with _bar("indexing", corpus.bytes, bytes_=True) as show:
            return build_index(
                corpus,
                out,
                language=language,
                encoder=encoder,
                progress=lambda _: show(corpus.bytes_read),
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped: {out} is as it was before") from None


def _encode(out: Path, encoder: str, documents: int) -> Manifest:
    from ovd_envs.search.dense import add_vectors

    try:
        with _bar("encoding", documents) as show:
            return add_vectors(out, encoder, progress=show)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"stopped: BM25 in {out} is whole, and the same command goes on with its vectors"
        ) from None


def _many(
    engine: SearchEngine, asked: Sequence[tuple[Any, str]], k: int
) -> Iterator[tuple[Any, str, list[SearchResult]]]:
    with _bar("searching", len(asked)) as show:
        for start in range(0, len(asked), _BATCH):
            batch = asked[start : start + _BATCH]
            lists = engine.search([text for _, text in batch], k)
            for (identity, text), found in zip(batch, lists, strict=True):
                yield identity, text, found
            show(start + len(batch))


def _read_queries(path: Path) -> list[tuple[Any, str]]:
    """Pairs of id and query; the row's number where it has no id."""
    found = []
    for number, row in read_jsonl_numbered(path):
        text = row.get("question", row.get("query"))
        if not isinstance(text, str):
            raise OVDError(
                f"{path}, row {number}: expected a text in field 'question' or 'query', "
                f"found the fields {', '.join(row)}"
            )
        found.append((row.get("id", number), text))
    return found


def _fields(pairs: Sequence[str]) -> dict[str, str]:
    fields = {}
    for pair in pairs:
        part, equals, name = pair.partition("=")
        if not part or not equals or not name:
            raise OVDError(f"--field: expected PART=FIELD, e.g. text=abstract, got {pair!r}")
        fields[part] = name
    return fields


def _manifest(folder: Path) -> Manifest | None:
    from ovd_envs.search.manifest import Manifest
    from ovd_envs.search.protocol import SearchError

    try:
        return Manifest.read(folder)
    except SearchError:
        return None


def _corpus_changed(index: str) -> str:
    manifest = _manifest(Path(index))
    return "" if manifest is None else manifest.corpus_changed()


@contextlib.contextmanager
def _bar(what: str, total: int, *, bytes_: bool = False) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, where that is a terminal; yields what moves it."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn() if bytes_ else MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(what, total=total)
        yield lambda done: progress.update(bar, completed=done)


def _plain(result: SearchResult) -> dict[str, Any]:
    row = result.to_dict()
    if not row["url"]:
        del row["url"]
    return row


def _print_table(query: str, engine: str, found: Sequence[SearchResult]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    if not found:
        console.print(f"nothing found for {query!r}", markup=False, highlight=False)
        return
    table = Table(title=escape(f"{query} · {engine}"), title_justify="left", box=None)
    table.add_column("")
    table.add_column("score", justify="right")
    table.add_column("title", style="bold", max_width=30)
    table.add_column("text")
    for rank, result in enumerate(found, start=1):
        text = " ".join(result.text.split())
        shown = text if len(text) <= 160 else text[:159] + "…"
        where = f"\n{result.url}" if result.url else ""
        table.add_row(str(rank), f"{result.score:.3f}", escape(result.title), escape(shown + where))
    console.print(table)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2))
