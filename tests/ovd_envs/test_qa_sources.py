"""FlashRAG's sets and Search-R1's mix, from folders that look like their copies on the hub."""

from __future__ import annotations

import json

import datasets
import pytest

from ovd_envs import TaskError
from ovd_envs.qa_sources import FLASHRAG, flashrag_tasks
from ovd_envs.sources import task_source


def rows(split, count, **fields):
    return [
        {
            "id": f"{split}_{n}",
            "question": f"who won the {split} cup number {n}",
            "golden_answers": [f"Player {n}", f"P{n}"],
            **fields,
        }
        for n in range(count)
    ]


FACTS = {"supporting_facts": {"title": ["Cup", "Player"], "sent_id": [0, 3]}, "type": "bridge"}


@pytest.fixture
def flashrag(tmp_path, monkeypatch):
    """A folder like the hub's dataset: a folder for each set, named in the README."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "FlashRAG_datasets"
    configs = ["---", "configs:"]
    for name, splits in FLASHRAG.items():
        configs += [f"- config_name: {name}", "  data_files:"]
        for split in splits.values():
            fields = {"metadata": FACTS} if name in ("hotpotqa", "2wikimultihopqa") else {}
            path = folder / name / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in rows(split, 12, **fields)))
            configs += [f"  - split: {split}", f"    path: {name}/{split}.jsonl"]
    (folder / "README.md").write_text("\n".join([*configs, "---", ""]))
    return str(folder)


@pytest.mark.parametrize("name", [*FLASHRAG, "2wiki"])
def test_every_set_has_its_whole_test(flashrag, name):
    source = flashrag_tasks(name, flashrag)
    theirs = FLASHRAG["2wikimultihopqa" if name == "2wiki" else name]
    assert source.splits == tuple(theirs)
    assert source.size("test") == 12, "one split alone is not cut into two"
    task = source.task("test", 3)
    assert task.id == f"{theirs['test']}_3"
    assert task.answers == ("Player 3", "P3")
    assert source.find(task.id) == task
    if name in ("hotpotqa", "2wiki"):
        assert task.metadata["supporting_titles"] == ["Cup", "Player"]
        assert task.metadata["supporting_facts"] == FACTS["supporting_facts"]
        assert task.metadata["type"] == "bridge"


def test_an_unknown_set_is_named():
    with pytest.raises(TaskError, match=r"flashrag: expected one of nq, .*bamboogle, got 'nqq'"):
        task_source("flashrag:nqq")
    with pytest.raises(TaskError, match="got ''; others of its sets: hf:RUC-NLPIR/FlashRAG_data"):
        task_source("flashrag:")


def test_search_r1_parquet(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "nq_hotpotqa_train"
    folder.mkdir()
    for split, sources in (("train", ("nq", "hotpotqa")), ("test", ("nq", "bamboogle"))):
        made = [
            row
            | {
                "question": f"{row['question']} of {source}?",
                "data_source": source,
                "prompt": [{"role": "user", "content": f"Search. Question: {row['question']}?\n"}],
                "ability": "fact-reasoning",
                "reward_model": {
                    "ground_truth": {"target": row["golden_answers"]},
                    "style": "rule",
                },
                "extra_info": {"index": 0, "split": split},
                # As on the hub, where the two files' metadata have different columns.
                "metadata": {"hotpotqa": FACTS, "bamboogle": {"answers": ["?"]}}.get(source),
            }
            for source in sources
            for row in rows(split, 5)
        ]
        datasets.Dataset.from_list(made).to_parquet(str(folder / f"{split}.parquet"))
    source = task_source(f"search-r1:{folder}")
    assert source.splits == ("train", "test")
    assert (source.size("train"), source.size("test")) == (10, 10)
    found = list(source.iterate("test"))
    assert [t.metadata["data_source"] for t in found] == ["nq"] * 5 + ["bamboogle"] * 5
    assert found[6].question == "who won the test cup number 1 of bamboogle?"
    assert found[6].answers == ("Player 1", "P1")
    hop = source.task("train", 7)
    assert hop.metadata["supporting_titles"] == ["Cup", "Player"]
    assert "supporting_titles" not in source.task("train", 0).metadata
    with pytest.raises(TaskError, match=r"dataset '.*missing' cannot be loaded: "):
        task_source(f"search-r1:{tmp_path / 'missing'}")
    # Both parts number their rows from 0, so the ids are our own; each is found again.
    assert len({t.id for t in found}) == 10
    assert source.find(hop.id) == hop
    with pytest.raises(TaskError, match=r"cannot be loaded: .*; Couldn't cast array of type"):
        task_source(f"hf:{folder}")
