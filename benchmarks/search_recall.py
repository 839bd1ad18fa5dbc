"""How much BM25, dense and hybrid search find of what real questions need.

    python benchmarks/search_recall.py ../shared/data/webqa/passages.jsonl.gz \
        ../shared/data/webqa/{hotpotqa_dev_100,2wiki_dev_164,nq_2000}.jsonl

Prints JSON: for each engine and file of questions the recall at 10 with 95 % intervals (as
``ovd eval --engine`` has it), and seconds for the parts of the index. MiniLM encodes some 50 to 150
passages a second on two cores; with ``--index DIR`` the index is kept, and taken up again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import agents.registry  # noqa: F401 - registers the encoders
from ovd_envs.search.corpus import Corpus
from ovd_envs.search.dense import add_vectors
from ovd_envs.search.index import build_index, open_index, out_of_date
from ovd_envs.search.manifest import Manifest
from training.search_evaluation import evaluate_engine


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("corpus")
    options.add_argument("questions", nargs="+")
    options.add_argument("--encoder", default="minilm-l6")
    options.add_argument("--index", type=Path)
    options.add_argument("--k", type=int, default=10)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = chosen.index or Path(place) / "index"
        seconds = build(Corpus(chosen.corpus), folder, chosen.encoder)
        found = [
            evaluate_engine(open_index(folder, name), questions, chosen.k)
            for name in ("bm25", "dense", "hybrid")
            for questions in chosen.questions
        ]
    print(json.dumps({"encoder": chosen.encoder, "seconds": seconds, "recall": found}, indent=2))


def build(corpus: Corpus, folder: Path, encoder: str) -> dict[str, Any]:
    """Bring the index up to date; seconds that its parts took."""
    seconds = {}
    if out_of_date(folder, corpus):
        began = time.perf_counter()
        build_index(corpus, folder)
        seconds["bm25"] = round(time.perf_counter() - began, 2)
    vectors = Manifest.read(folder).vectors
    if vectors is None or vectors.encoder != encoder:
        began = time.perf_counter()
        add_vectors(folder, encoder, progress=lambda done: print(done, end="\r", file=sys.stderr))
        seconds["vectors"] = round(time.perf_counter() - began, 2)
    return seconds


if __name__ == "__main__":
    main()
