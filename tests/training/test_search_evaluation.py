"""`ovd eval --engine`: recall with its intervals, without a student."""

import json

import pytest

from ovd_envs.search import SearchResult
from ovd_envs.search.corpus import Document
from ovd_envs.search.index import build_index
from ovd_envs.statistics import mean_interval, wilson
from training import cli
from training.search_evaluation import evaluate_engine, recall_table

ROWS = [
    {"question": "the red stone", "golden_answers": ["granite"], "supporting_titles": ["R", "X"]},
    {"question": "the blue river", "golden_answers": ["water"], "supporting_titles": ["B"]},
    {"question": "the blue sky", "golden_answers": ["air"]},
]


@pytest.fixture
def tasks(tmp_path):
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.fixture
def folder(tmp_path):
    documents = [Document("1", "R", "red granite stone"), Document("2", "B", "blue river water")]
    build_index(documents, tmp_path / "x.index")
    return tmp_path / "x.index"


def ovd(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return stop.value.code, capsys.readouterr()


def test_recall_and_its_intervals(capsys, folder, tasks):
    code, said = ovd(capsys, "eval", "--engine", f"bm25:{folder}", "--tasks", tasks, "--json")
    assert code == 0
    low, high = mean_interval([0.5, 1.0])
    assert json.loads(said.out) == {
        "engine": "bm25:x.index",
        "tasks": str(tasks),
        "n": 3,
        "k": 10,
        "title_recall": 0.75,
        "title_recall_interval": [low, min(high, 1.0)],
        "title_recall_n": 2,
        "answer_recall": pytest.approx(2 / 3),
        "answer_recall_interval": list(wilson(2, 3)),
        "answer_recall_n": 3,
    }
    code, said = ovd(capsys, "eval", "--engine", folder, "--tasks", tasks, "--k", 1)
    assert code == 0
    assert "75.0%" in said.out
    assert "66.7%" in said.out


class Empty:
    name = "empty[/]"

    def search(self, queries, k):
        return [[SearchResult("1", "", "")] for _ in queries]


def test_what_cannot_be_measured_is_none(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "x", "golden_answers": ["y"]}\n')
    told = []
    result = evaluate_engine(Empty(), path, 3, progress=lambda *a: told.append(a))
    assert (result["title_recall"], result["title_recall_n"]) == (None, 0)
    assert result["answer_recall"] == 0
    assert told == [(1, 1)]
    assert recall_table(result).row_count == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--student: expected ENV and --student MODEL, or --engine NAME:VALUE"),
        (["--student", "x"], "ENV: expected the name of an environment, for 'x' is no run"),
        (["ovd/Math-v0"], "--student: expected ENV and --student MODEL, or --engine"),
        (["ovd/Math-v0", "--engine", "bm25:x"], "alone, without ENV and --student"),
        (["--engine", "bm25:x"], "--tasks: expected a JSONL file of questions with --engine"),
        (["--engine", "bm25:nowhere", "--tasks", "none.jsonl"], "nowhere: not an index"),
        (["--engine", "bm26:x", "--tasks", "none.jsonl"], "no search engine 'bm26'"),
    ],
)
def test_bad_input_is_one_line(capsys, arguments, message):
    code, said = ovd(capsys, "eval", *arguments)
    assert code == 2
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert message in said.err
