"""Documents of Search-R1's /retrieve: what goes out comes back, what others send is read."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovd_envs.search import SearchResult
from ovd_envs.search.wire import Nonsense, from_reply, to_items

results = st.builds(
    SearchResult,
    id=st.text(),
    title=st.text(),
    text=st.text(),
    url=st.text(),
    score=st.floats(allow_nan=False, allow_infinity=False),
)


@given(st.lists(st.lists(results, max_size=3), max_size=3))
def test_what_is_sent_comes_back(found):
    reply = json.loads(json.dumps({"result": [to_items(r, scores=True) for r in found]}))
    assert from_reply(reply, len(found)) == found


@given(st.lists(results, max_size=3))
def test_only_the_scores_are_lost_without_scores(found):
    [back] = from_reply({"result": [to_items(found, scores=False)]}, 1)
    assert [r.to_dict() | {"score": 0} for r in back] == [r.to_dict() | {"score": 0} for r in found]


@given(results)
def test_the_first_line_is_the_title_in_quotes(result):
    [document] = to_items([result], scores=False)
    head, _, text = document["contents"].partition("\n")
    assert (head[0], head[-1], text) == ('"', '"', result.text)


@pytest.mark.parametrize(
    ("item", "title", "text", "score"),
    [
        # Search-R1's dense retriever, with scores and without
        ({"document": {"id": "7", "contents": '"A"\nb\nc'}, "score": 0.5}, "A", "b\nc", 0.5),
        ({"id": "7", "contents": '"A"\nb'}, "A", "b", 0.0),
        # its BM25 retriever has no id; its web engines have neither id nor score
        (
            {"document": {"title": "A", "text": "b", "contents": '"A"\nb'}, "score": 3},
            "A",
            "b",
            3.0,
        ),
        ({"document": {"contents": '"No title."\nb'}}, "No title.", "b", 0.0),
        # servers that write what they do not have as null
        (
            {"document": {"id": None, "title": None, "contents": '"A"\nb'}, "score": None},
            "A",
            "b",
            0.0,
        ),
        # corpora without quotes, without titles, with the parts alone
        ({"contents": "A\nb"}, "A", "b", 0.0),
        ({"contents": "Only a text."}, "", "Only a text.", 0.0),
        ({"contents": '"Only a title"'}, "Only a title", "", 0.0),
        ({"title": "A", "text": "b"}, "A", "b", 0.0),
        ({"text": "b"}, "", "b", 0.0),
        ({"contents": '""\nb'}, "", "b", 0.0),
        ({"contents": '"\nb'}, '"', "b", 0.0),
        ({"id": 7, "contents": '"A "quoted" name"\nb'}, 'A "quoted" name', "b", 0.0),
    ],
)
def test_documents_of_others(item, title, text, score):
    [[result]] = from_reply({"result": [[item]]}, 1)
    assert (result.title, result.text, result.score) == (title, text, score)
    given = item.get("document", item).get("id")
    assert result.id == str(given) if given is not None else len(result.id) == 16


def test_a_document_without_id_has_the_same_one_every_time():
    items = [[{"contents": '"A"\nb'}, {"contents": '"A"\nb'}, {"contents": '"A"\nc'}]]
    [[first, second, third]] = from_reply({"result": items}, 1)
    assert first.id == second.id != third.id


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (None, 'expected an object with "result", got NoneType'),
        ([], 'expected an object with "result", got list'),
        ({"results": []}, "got an object with 'results'"),
        ({"result": {}}, "result: expected a list of lists"),
        ({"result": []}, "result: expected 1 lists, one a query, got 0"),
        ({"result": [[], []]}, "result: expected 1 lists, one a query, got 2"),
        ({"result": ["text"]}, "result[0]: expected a list of documents, got 'text'"),
        ({"result": [None]}, "result[0]: expected a list of documents"),
        ({"result": [[{"contents": "a"}, "b"]]}, "result[0][1]: expected a document, got 'b'"),
        (
            {"result": [[{"document": "a", "score": 1}]]},
            "result[0][0].document: expected an object",
        ),
        ({"result": [[{"document": {}, "score": 1}]]}, 'expected a document with "contents"'),
        ({"result": [[{"contents": 3}]]}, "result[0][0].contents: expected a text, got 3"),
        ({"result": [[{"contents": "a", "id": []}]]}, "result[0][0].id: expected a text"),
        ({"result": [[{"contents": "a", "score": "1"}]]}, "[0].score: expected a finite"),
        (
            {"result": [[{"document": {"contents": "a"}, "score": True}]]},
            "score: expected a finite",
        ),
        ({"result": [[{"contents": "a", "score": float("nan")}]]}, "score: expected a finite"),
        ({"result": [[{"contents": "a", "score": 10**400}]]}, "score: expected a finite"),
    ],
)
def test_nonsense_is_named(reply, told):
    with pytest.raises(Nonsense) as caught:
        from_reply(reply, 1)
    assert told in str(caught.value)
    assert len(str(caught.value)) < 200


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=3) | st.integers(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["result", "document", "contents", "score", "title", "text", "id"]),
                inner,
                max_size=3,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_results_or_nonsense(reply):
    for value in (reply, {"result": reply}, {"result": [reply]}, {"result": [[reply]]}):
        try:
            [found] = from_reply(value, 1)
        except Nonsense:
            continue
        assert all(isinstance(result, SearchResult) for result in found)
