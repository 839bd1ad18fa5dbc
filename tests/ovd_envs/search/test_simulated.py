"""A model that plays the engine: the curriculum, whose answer it is told, what it writes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovd_envs.errors import OVDError
from ovd_envs.search import SearchError
from ovd_envs.search.simulated import (
    MAX_QUERY,
    SimulatedEngine,
    noise_probability,
    read_documents,
)
from ovd_envs.task import Task

probabilities = st.floats(0, 1)


@given(st.integers(1, 1000), probabilities, probabilities)
def test_the_curriculum_goes_from_start_to_end(total, start, end):
    assert noise_probability(0, total, start, end) == start
    assert noise_probability(total, total, start, end) == end
    assert noise_probability(total + 7, total, start, end) == end


@given(st.integers(1, 500), st.data(), probabilities, probabilities)
def test_the_curriculum_never_turns_back(total, data, start, end):
    step = data.draw(st.integers(0, total - 1))
    before, after = (noise_probability(s, total, start, end) for s in (step, step + 1))
    assert min(start, end) <= before <= max(start, end)
    assert before <= after if start <= end else before >= after


@given(st.integers(0, 100), probabilities, probabilities)
def test_the_curriculum_is_the_papers(step, start, end):
    expected = start + (4 ** (step / 100) - 1) / 3 * (end - start)
    assert noise_probability(step, 100, start, end) == pytest.approx(expected, abs=1e-12)


def test_half_way_a_third_of_the_way():
    assert noise_probability(50, 100, 0.0, 0.75) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("step", "total", "start", "end"),
    [(-1, 1, 0, 1), (0, 0, 0, 1), (0, 1, -0.1, 1), (0, 1, 0, 1.1), (0, 1, float("nan"), 1)],
)
def test_a_curriculum_out_of_range(step, total, start, end):
    with pytest.raises(OVDError, match="noise"):
        noise_probability(step, total, start, end)


class Model:
    """Answers every prompt with the prompt itself: what it was told is in the documents."""

    def __init__(self):
        self.prompts = []

    def __call__(self, prompts):
        self.prompts += prompts
        return [f"Doc 1\nTitle: T\nText: {' '.join(prompt.split())}" for prompt in prompts]


SECRET = "zxq-gold"


def task(name="t", answers=(SECRET, f"{SECRET}-too")):
    return Task(name, f"question of {name}", tuple(answers))


@given(
    st.lists(st.text(max_size=30), max_size=6),
    st.integers(1, 5),
    probabilities,
    probabilities,
)
def test_no_gold_answer_in_evaluation(queries, k, start, end):
    """The one test that must fail if a gold answer leaks."""
    model = Model()
    engine = SimulatedEngine(model, noise_start=start, noise_end=end)
    shown = []
    for searcher in (engine.for_task(task(), training_step=None), engine):
        shown += searcher.search(queries, k)
    for told in (*model.prompts, *(repr(results) for results in shown)):
        assert SECRET not in told
        assert "question of t" not in told


@given(st.lists(st.integers(0, 4), max_size=30), st.integers(0, 3))
def test_a_query_keeps_its_own_task(order, seed):
    """Whatever the order of searches, and after turns without one (ZeroSearch's fault)."""
    model = Model()
    engine = SimulatedEngine(model, noise_start=0.5, noise_end=0.5, seed=seed)
    views = [engine.for_task(task(f"task{n}", [f"gold-{n}-"]), training_step=0) for n in range(5)]
    for turn, number in enumerate(order):
        [[result]] = views[number].search([f"query {turn}"], 1)
        others = [n for n in range(5) if n != number]
        assert not any(f"gold-{n}-" in result.text for n in others)
        noise = engine.is_noise(f"task{number}", f"query {turn}", 0)
        assert (f"gold-{number}-" in result.text) is not noise


def test_noise_is_told_nothing_and_useful_documents_the_first_answer():
    for start, told in ((0.0, True), (1.0, False)):
        model = Model()
        engine = SimulatedEngine(model, noise_start=start, noise_end=start)
        engine.for_task(task(), training_step=0).search(["a"], 3)
        assert (SECRET in model.prompts[0]) is told
        assert ("question of t" in model.prompts[0]) is told
        assert f"{SECRET}-too" not in model.prompts[0]


def test_a_task_without_answer_is_searched_for_honestly():
    model = Model()
    engine = SimulatedEngine(model, noise_start=0.0, noise_end=0.0)
    engine.for_task(task(answers=()), training_step=0).search(["a"], 1)
    engine.search(["a"], 1)
    assert model.prompts[0] == model.prompts[1]


def test_noise_depends_on_seed_step_task_and_query_alone():
    def choices(seed=0, step=100, name="t", queries=range(400)):
        engine = SimulatedEngine(Model(), seed=seed)
        return [engine.is_noise(name, str(query), step) for query in queries]

    usual = choices()
    assert choices() == usual
    assert choices(queries=reversed(range(400))) == usual[::-1]
    assert len({tuple(c) for c in (usual, choices(seed=1), choices(name="u"))}) == 3
    # The share of noise follows the curriculum: 0 to 0.5, a third of the way at half time.
    assert sum(choices(step=0)) == 0
    assert sum(usual) / 400 == pytest.approx(1 / 6, abs=0.05)
    assert sum(choices(step=200)) / 400 == pytest.approx(0.5, abs=0.07)


def test_a_batch_is_one_call_and_blank_queries_are_none():
    calls = []

    def model(prompts):
        calls.append(len(prompts))
        return [f"Doc 1\nText: {len(calls)}.{n}" for n in range(len(prompts))]

    engine = SimulatedEngine(model)
    found = engine.search(["a", " \n", "b", ""], 3)
    assert [[r.text for r in results] for results in found] == [["1.0"], [], ["1.1"], []]
    assert engine.search(["", " "], 3) == [[], []]
    assert engine.search([], 3) == []
    assert calls == [2]


def test_a_query_is_shown_on_one_line_and_cut():
    model = Model()
    SimulatedEngine(model).search(["a\nb {k} " + "c" * 1000], 1)
    last = model.prompts[0].rpartition("Query: ")[2]
    assert last.startswith("a b {k} ccc")
    assert len(last) == MAX_QUERY


def test_nothing_written_nothing_found():
    assert SimulatedEngine(lambda prompts: ["", "  \n", "Doc 1\nDoc 2"]).search(list("abc"), 3) == [
        [],
        [],
        [],
    ]


def test_results_are_ranked_cut_and_named_by_their_words():
    model = "\n".join(f"Doc {n}\nTitle: T{n}\nText: text {n}" for n in range(1, 6))
    engine = SimulatedEngine(lambda prompts: [model] * len(prompts))
    first, second = engine.search(["a", "b"], 3)
    assert [r.title for r in first] == ["T1", "T2", "T3"]
    assert [r.score for r in first] == [1, 1 / 2, 1 / 3]
    assert first == second
    assert len({r.id for r in first}) == 3


def test_a_model_that_gives_too_few_texts_is_an_error():
    with pytest.raises(SearchError, match="simulated: 1 texts for 2 prompts"):
        SimulatedEngine(lambda prompts: ["a"]).search(["a", "b"], 1)


def test_options_out_of_range():
    with pytest.raises(OVDError, match="words"):
        SimulatedEngine(Model(), words=0)
    with pytest.raises(OVDError, match="noise, end"):
        SimulatedEngine(Model(), noise_end=2)
    with pytest.raises(OVDError, match="k: expected at least 1"):
        SimulatedEngine(Model()).search(["a"], 0)


ONE, TWO = ("Lake A", "It is deep."), ("Lake B", "It is not.")


@pytest.mark.parametrize(
    "text",
    [
        "Doc 1\nTitle: Lake A\nText: It is deep.\nDoc 2\nTitle: Lake B\nText: It is not.",
        "Doc 1 (Title: Lake A) It is deep.\nDoc 2 (Title: Lake B) It is not.",
        "Doc 1: (Title: Lake A)\nIt is deep.\n\nDoc 2: (Title: Lake B)\nIt is not.\n",
        "**Doc 1**\n**Title:** Lake A\n**Text:** It is deep.\n\n**Doc 2**\n**Title:** Lake B\n"
        "**Text:** It is not.",
        "### Document 1\nTitle: Lake A\nContent: It is deep.\n### Document 2\nTitle: Lake B\n"
        "It is\nnot.",
        "Sure! Here are two documents:\n\n1. Title: Lake A\nText: It is deep.\n"
        "2. Title: Lake B\nText: It is not.",
        "[1] Title: Lake A\nText: It is deep.\n[2] Title: Lake B\nText: It is not.",
        "<think>Doc 1: what do I know?</think>\nDoc 1\nTitle: Lake A\nText: It is deep.\n"
        "Doc 2\nTitle: Lake B\nText: It is not.",
        "Title: Lake A\nText: It is deep.\n\nTitle: Lake B\nText: It is not.",
        "Title: Lake A\nText: It is deep.\nTitle: Lake B\nText: It is not.",
        'DOC 1:\nTITLE: "Lake A"\nTEXT: It is deep.\nDOC 2:\nTITLE: "Lake B"\nTEXT: It is not.',
        "Doc 1\nTitle: Lake A\nText: It is deep.\nDoc 2\nTitle: Lake A\nText: It is deep.\n"
        "Doc 3\nTitle: Lake B\nText: It is not.\nDoc 4\nTitle: Lake",
    ],
)
def test_documents_in_many_forms(text):
    assert read_documents(text) == [ONE, TWO]


@pytest.mark.parametrize("line", ["1930. It is deep.", "2) It is deep.", "[5] It is deep."])
def test_a_number_at_the_beginning_of_a_line_tears_no_document(line):
    """Where the model marked its documents as it was asked to."""
    text = f"1. Two documents:\nDoc 1\nTitle: Lake A\nText: Sounded in\n{line}\nDoc 2\nText: B."
    assert read_documents(text) == [("Lake A", f"Sounded in {line}"), ("", "B.")]
    assert read_documents(f"Doc 1\n{line}") == [("", line)]
    # Without such marks a number is one.
    assert read_documents(f"1. Sounded in\n{line}") == [("", "Sounded in"), ("", "It is deep.")]


def test_documents_without_marks_or_titles():
    assert read_documents("One thing.\nIts end.\n\nAnother thing.") == [
        ("", "One thing. Its end."),
        ("", "Another thing."),
    ]
    assert read_documents("In 1931 it had 2.5 lanes\nand 3.5 towers") == [
        ("", "In 1931 it had 2.5 lanes and 3.5 towers")
    ]
    assert read_documents("<think>never ended") == []


@given(st.text(st.sampled_from("Doc 12\n:.()*#[]<think>/Titleextab ")) | st.text())
def test_any_text_is_read(text):
    for title, body in read_documents(text):
        assert body
        assert "\n" not in title + body
