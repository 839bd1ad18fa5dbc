"""Recall: what counts as found, and how much BM25 finds on real passages."""

import json

import pytest

from ovd_envs.errors import OVDError
from ovd_envs.search import SearchResult
from ovd_envs.search.corpus import Corpus
from ovd_envs.search.index import build_index, open_index
from ovd_envs.search.recall import Question, Recall, measure_recall, read_questions


class Shelf:
    name = "shelf"
    pages = (
        SearchResult("1", "Ada Brindle", "She was born in 1945, in Harrow."),
        SearchResult("2", "The Harrow", "A rock-band from São Paulo."),
    )

    def search(self, queries, k):
        return [list(self.pages) for _ in queries]


def recall(answers=(), titles=(), k=2):
    (found,) = measure_recall(Shelf(), [Question("q", "?", tuple(answers), tuple(titles))], k)
    return found


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        (["1945"], True),
        (["194"], False),  # a part of a word
        (["born IN 1945"], True),
        (["a Harrow"], True),
        (["Leeds", "rockband"], True),  # punctuation is dropped
        (["Ada Brindle"], True),  # the title is part of the passage
        (["Ada Brindle She was"], True),
        (["Harrow Harrow"], False),  # not across two passages
        (["Leeds"], False),
        (["", "the"], None),
        ([], None),
    ],
)
def test_an_answer_is_whole_words_of_one_passage(answers, found):
    assert recall(answers).answer is found


def test_titles_are_a_share():
    assert recall(titles=["ada brindle"]).titles == 1
    assert recall(titles=["Ada Brindle", "The Harrow", "Leeds", "York"]).titles == 0.5
    assert recall(titles=["Harrow"]).titles == 0
    assert recall().titles is None
    assert recall(titles=["The Harrow"], k=1).titles == 0  # an engine that gives more than k


def test_in_order_and_in_batches():
    questions = [Question(str(n), "?", ("1945",), ()) for n in range(150)]
    told = []
    found = measure_recall(Shelf(), questions, 2, progress=told.append)
    assert found == [Recall(str(n), None, True) for n in range(150)]
    assert told[-1] == 150


@pytest.fixture
def questions(tmp_path):
    def read(*rows):
        path = tmp_path / "questions.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return read_questions(path)

    return read


def test_forms_of_a_row(questions):
    support = {"supporting_facts": {"title": ["A", "B", "A"], "sent_id": [0, 0, 1]}}
    assert questions(
        {"id": "x", "question": "?", "golden_answers": ["yes"], "supporting_titles": ["A"]},
        {"question": "?", "golden_answers": "no", "metadata": support},
        {"question": "?", "metadata": {"type": "bridge"}},
    ) == [
        Question("x", "?", ("yes",), ("A",)),
        Question("2", "?", ("no",), ("A", "B")),
        Question("3", "?", (), ()),
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query": "?"}, "row 1: expected a text in field 'question', found the fields query"),
        ({"question": "?", "golden_answers": [1]}, "'golden_answers': expected a list of texts"),
        ({"question": "?", "supporting_titles": {}}, "'supporting_titles': expected a list of"),
    ],
)
def test_bad_rows(questions, row, message):
    with pytest.raises(OVDError, match=message):
        questions(row)


def test_no_questions(questions):
    with pytest.raises(OVDError, match="the file holds none"):
        questions()


@pytest.fixture(scope="module")
def wikipedia(shared_data, tmp_path_factory):
    """BM25 over 17,842 real passages."""
    folder = tmp_path_factory.mktemp("wikipedia") / "x.index"
    build_index(Corpus(shared_data / "webqa" / "passages.jsonl.gz"), folder)
    return open_index(folder, "bm25")


def mean(values):
    return sum(values) / len(values)


@pytest.mark.parametrize(("name", "least"), [("hotpotqa_dev_100", 0.88), ("2wiki_dev_164", 0.72)])
def test_titles_that_bm25_finds(wikipedia, shared_data, name, least):
    found = measure_recall(wikipedia, read_questions(shared_data / "webqa" / f"{name}.jsonl"), 10)
    assert mean([recall.titles for recall in found]) >= least


def test_answers_that_bm25_finds(wikipedia, shared_data):
    found = measure_recall(wikipedia, read_questions(shared_data / "webqa" / "nq_2000.jsonl"), 10)
    assert mean([recall.answer for recall in found]) >= 0.93
