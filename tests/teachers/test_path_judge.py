"""The path judge: scores, reasons, what it reads, and that finding more never costs anything."""

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.episode import Episode
from teachers import PathJudge, VerdictCache, make_judge, score
from tests.teachers.conftest import make_episode

PATH = [
    {
        "page": "p1",
        "title": "Ada Kelm",
        "subject": "Ada Kelm",
        "relation": "born in",
        "value": "Orvik",
    },
    {"page": "p2", "title": "Orvik", "subject": "Orvik", "relation": "mayor", "value": "Jon Brae"},
]
TASK = {"path": PATH, "support": ["p1", "p2"]}


def search(query: str, *results: str) -> dict:
    return {"query": query, "results": list(results)}


def walked(
    *searches: dict,
    outcome: str | None = "right",
    answer: str | None = "Jon Brae",
    opened: tuple[str, ...] = (),
    idle: int = 0,
    metadata: dict | None = None,
    **fields,
) -> Episode:
    """An episode that did this, one message for each thing, and answered (or did not)."""
    actions = [f"<search>{s['query']}</search>" for s in searches]
    actions += [f"<open>{page}</open>" for page in opened] + ["I wonder."] * idle
    info = {"searches": list(searches), "opened": list(opened), "answer": answer}
    if outcome is not None:
        info["outcome"] = outcome
    return make_episode(
        *actions,
        f"<answer>{answer}</answer>",
        observation="Where was the mayor of Ada Kelm's birthplace born?",
        observations=["<information>The mayor of Orvik is Jon Brae.</information>"] * len(actions),
        answers=["Jon Brae"],
        metadata=TASK if metadata is None else metadata,
        info=info | fields,
    )


def verdict(episode):
    [found] = score(PathJudge(), [episode])
    assert not found.failed, found.error
    return found


FIRST, SECOND = search("Ada Kelm", "p9", "p1"), search("mayor of Orvik", "p2")


@pytest.mark.parametrize(
    ("episode", "points", "reason"),
    [
        (
            walked(FIRST, SECOND),
            9,
            "The answer 'Jon Brae' is right, and both supporting pages were found.",
        ),
        (
            walked(search("Ada Kelm Orvik", "p1", "p2")),
            9,
            "The answer 'Jon Brae' is right, and both supporting pages were found.",
        ),
        (
            walked(FIRST, opened=("p2",)),
            9,
            "The answer 'Jon Brae' is right, and both supporting pages were found.",
        ),
        (
            walked(FIRST, search("Jon Brae", "p7"), SECOND),
            8,
            "The answer 'Jon Brae' is right, and both supporting pages were found; search 2 "
            "('Jon Brae') finds nothing that is needed.",
        ),
        (
            walked(FIRST, search("  ada KELM", "p1"), SECOND, idle=2),
            7,
            "The answer 'Jon Brae' is right, and both supporting pages were found; search 2 "
            "repeats search 1; 2 messages without an action.",
        ),
        (
            walked(FIRST, SECOND, search("Orvik", "p2"), opened=("p7", "p8")),
            7,
            "The answer 'Jon Brae' is right, and both supporting pages were found; 1 search more "
            "than needed; 2 pages opened that are not needed.",
        ),
        (
            walked(FIRST, SECOND, search("Orvik", "p2")),
            8,
            "The answer 'Jon Brae' is right, and both supporting pages were found; 1 search more "
            "than needed.",
        ),
        (
            walked(SECOND),
            3,
            "The answer 'Jon Brae' is right, but 1 of 2 supporting pages was found (missing: "
            "'Ada Kelm'): memory or luck.",
        ),
        (
            walked(search("Jon Brae", "p7"), outcome="unsupported"),
            2,
            "The answer 'Jon Brae' is right, but none of 2 supporting pages were found (missing: "
            "'Ada Kelm', 'Orvik'): memory or luck; search 1 ('Jon Brae') finds nothing that is "
            "needed.",
        ),
        (
            walked(FIRST, SECOND, outcome="unsupported"),
            4,
            "The answer 'Jon Brae' is right, but both supporting pages were found but not shown: "
            "memory or luck.",
        ),
        (
            walked(),
            1,
            "The answer 'Jon Brae' is right, but nothing was searched: memory or luck.",
        ),
        (
            walked(FIRST, SECOND, outcome="wrong", answer="Ada"),
            5,
            "The answer 'Ada' is wrong; both supporting pages were found.",
        ),
        (
            walked(FIRST, outcome="wrong", answer="The Orvik"),
            3,
            "The answer 'The Orvik' is wrong (it is what hop 1 of 2 leads to); 1 of 2 supporting "
            "pages was found (missing: 'Orvik').",
        ),
        (
            walked(search("?", "p8"), outcome="wrong", answer="Ada"),
            1,
            "The answer 'Ada' is wrong; none of 2 supporting pages were found (missing: "
            "'Ada Kelm', 'Orvik'); search 1 ('?') finds nothing that is needed.",
        ),
        (
            walked(FIRST, SECOND, outcome="no_answer", answer=None),
            4,
            "There is no answer; both supporting pages were found.",
        ),
        (
            walked(search("?"), outcome="no_answer", answer=None),
            0,
            "There is no answer; none of 2 supporting pages were found (missing: 'Ada Kelm', "
            "'Orvik'); search 1 ('?') finds nothing that is needed.",
        ),
        (
            walked(outcome="wrong", answer="Ada"),
            0,
            "The answer 'Ada' is wrong, and nothing was searched.",
        ),
        (
            walked(outcome="no_answer", answer=None, idle=3),
            0,
            "There is no answer, and nothing was searched.",
        ),
    ],
)
def test_scores_and_reasons(episode, points, reason):
    found = verdict(episode)
    assert (found.score, found.reason) == (points, reason)


def test_a_budget_that_ended_the_episode_left_no_outcome():
    found = verdict(walked(FIRST, outcome=None, answer=None))
    assert (found.score, found.reason[:22]) == (2, "There is no answer; 1 ")


def test_no_turn_at_all():
    found = verdict(make_episode(metadata=TASK))
    assert (found.score, found.reason) == (0, "Nothing was done.")


def test_an_answer_in_an_observation_is_no_answer():
    """Every observation of these episodes has the gold answer in it, and so has the prompt."""
    episode = walked(outcome="no_answer", answer=None, idle=1)
    for turn in episode.turns:
        turn.observation = "<answer>Jon Brae</answer> pages p1 and p2"
    assert verdict(episode).score == 0


def test_searches_that_failed_are_not_the_models_fault():
    episode = walked(FIRST, SECOND, idle=2, failed=2)
    assert verdict(episode).score == 9
    assert verdict(walked(FIRST, SECOND, idle=2, failed=0)).score == 7


def test_the_last_value_of_the_path_is_no_earlier_hop():
    """A comparison asks for a page, not for what the last one says."""
    years = [{"page": "p1", "value": "1900"}, {"page": "p2", "value": "1910"}]
    for answer, told in (("1900", "wrong (it is what hop 1 of 2 leads to)"), ("1910", "wrong; ")):
        episode = walked(FIRST, SECOND, outcome="wrong", answer=answer, metadata={"path": years})
        assert f"The answer '{answer}' is {told}" in verdict(episode).reason


def test_support_by_identity_alone_and_by_the_path_alone():
    for metadata in ({"support": ["p1", "p2"]}, {"path": PATH}, {"path": PATH, "support": []}):
        assert verdict(walked(FIRST, SECOND, metadata=metadata)).score == 9
        assert verdict(walked(FIRST, metadata=metadata)).score == 3
    assert verdict(walked(search("Ada", "p1"), metadata={"support": "p1"})).score == 9  # just one
    assert verdict(walked(search("Ada", "7"), metadata={"support": 7})).score == 9
    one_page = {"path": [PATH[0], PATH[0]]}
    found = verdict(walked(FIRST, metadata=one_page))
    assert (found.score, found.reason) == (
        9,
        "The answer 'Jon Brae' is right, and the supporting page was found.",
    )


def test_support_by_titles():
    metadata = {"supporting_titles": ["Neil Peart", "Nobody's Hero"]}
    first = search("Rush", "17", "18") | {"titles": ["Rush (band)", "Neil  peart"]}
    second = search("Counterparts", "18", "31") | {"titles": ["Neil Peart", "Nobody's Hero"]}
    assert verdict(walked(first, second, metadata=metadata)).score == 9
    found = verdict(walked(first, metadata=metadata))
    assert found.score == 3
    assert '1 of 2 supporting pages was found (missing: "Nobody\'s Hero")' in found.reason
    assert verdict(walked(first, second, opened=("31",), metadata=metadata)).score == 9
    assert verdict(walked(first, second, opened=("17",), metadata=metadata)).score == 8
    identities = search("Rush", "Neil Peart", "Nobody's Hero") | {"titles": ["A", "B"]}
    assert verdict(walked(identities, metadata=metadata)).score == 2


@pytest.mark.parametrize(
    ("episode", "error"),
    [
        (
            walked(FIRST, metadata={"level": "hard"}),
            "task 't/train/0': expected 'path', 'support' or 'supporting_titles' in its metadata, "
            "found level",
        ),
        (
            walked(FIRST, metadata={"path": [], "supporting_titles": []}),
            "found path, supporting_titles",
        ),
        (make_episode("\\boxed{5}", metadata={}), "in its metadata, found nothing"),
        (
            make_episode("\\boxed{5}", metadata=TASK, info={"outcome": "right"}),
            "expected 'searches' and 'opened' in the episode's info, found outcome",
        ),
        (walked(FIRST, outcome="timeout"), "expected an outcome of right, wrong, .* got 'timeout'"),
        (walked({"query": "Q"}), r"a search with 'query' and 'results' in info, got {'query': 'Q'"),
        (walked({"query": "Q", "results": "p1"}), "a search with 'query' and 'results'"),
        (
            walked(FIRST, metadata={"supporting_titles": ["Orvik"]}),
            "as many 'titles' as 'results', got 0 and 2",
        ),
    ],
)
def test_what_cannot_be_judged_is_an_error_and_no_score(episode, error):
    [found] = PathJudge().judge([episode])
    assert found.failed
    assert found.score is None
    assert re.search(error, found.error)
    assert "\n" not in found.error


def test_by_name_and_from_the_cache(tmp_path):
    judge = make_judge("path")
    assert isinstance(judge, PathJudge)
    cache = VerdictCache(tmp_path)
    episodes = [walked(FIRST, SECOND), walked(FIRST, SECOND, idle=1)]
    first = score(judge, episodes[:1], cache=cache)
    assert cache.get(judge, episodes[0]).score == first[0].score == 9
    assert cache.get(judge, episodes[1]) is None
    other = dataclasses.replace(
        episodes[0], task=dataclasses.replace(episodes[0].task, metadata={"support": ["p7"]})
    )
    assert cache.get(judge, other) is None, "another path is another verdict"


# ----------------------------------------------------------------------------------- properties

pages = st.sampled_from(["p1", "p2", "p3", "x1", "x2", "x3"])
results = st.lists(pages, unique=True, max_size=4)
searches = st.lists(
    st.builds(lambda q, r: search(q, *r), st.sampled_from(["a", "A ", "b", "c", "d"]), results),
    max_size=5,
)
outcomes = st.sampled_from(["right", "wrong", "no_answer", "unsupported", None])
NEEDED = {"support": ["p1", "p2", "p3"]}


@given(searches, st.lists(pages, max_size=3), outcomes, st.integers(0, 2), st.data())
def test_more_support_never_lowers_the_score(made, opened, outcome, idle, data):
    def points(searches, opened):
        return verdict(
            walked(*searches, opened=tuple(opened), outcome=outcome, idle=idle, metadata=NEEDED)
        ).score

    before = points(made, opened)
    if made and data.draw(st.booleans()):
        richer = [dict(s) for s in made]
        place = data.draw(st.integers(0, len(richer) - 1))
        more = data.draw(st.lists(st.sampled_from(NEEDED["support"]), min_size=1, unique=True))
        richer[place]["results"] = list(dict.fromkeys(richer[place]["results"] + more))
        assert points(richer, opened) >= before
    elif opened:
        place = data.draw(st.integers(0, len(opened) - 1))
        page = data.draw(st.sampled_from(NEEDED["support"]))
        if opened[place] not in NEEDED["support"] or opened.count(opened[place]) > 1:
            assert points(made, [*opened[:place], page, *opened[place + 1 :]]) >= before


@given(searches, st.lists(pages, max_size=3), outcomes, st.integers(0, 2))
def test_the_scale(made, opened, outcome, idle):
    found = verdict(
        walked(*made, opened=tuple(opened), outcome=outcome, idle=idle, metadata=NEEDED)
    )
    seen = {*opened, *(page for s in made for page in s["results"])}
    supported = seen >= set(NEEDED["support"])
    assert (found.score >= 7) == (outcome == "right" and supported)
    assert 0 <= found.score <= 9
    if not made and not opened:
        assert found.score <= 1
    if outcome in ("right", "unsupported") and not (outcome == "right" and supported):
        assert found.score <= 4
    if outcome in ("wrong", "no_answer", None):
        assert found.score <= 5
    assert found.reason.endswith(".")
    if outcome in ("wrong", "no_answer", None):
        assert "is right" not in found.reason


@given(searches, st.integers(0, 3), st.integers(0, 3))
def test_a_wasted_message_never_raises_the_score(made, idle, more):
    wasteful = verdict(walked(*made, idle=idle + more, metadata=NEEDED)).score
    assert wasteful <= verdict(walked(*made, idle=idle, metadata=NEEDED)).score
