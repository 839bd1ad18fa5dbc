"""A language model that plays the search engine, as in ZeroSearch (arXiv 2505.04588)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ovd_envs.errors import OVDError
from ovd_envs.search.protocol import SearchError, SearchResult
from ovd_envs.stable import stable_hash

if TYPE_CHECKING:
    from ovd_envs.task import Task

#: A function from prompts to texts, one for each, in order.
Generate = Callable[[Sequence[str]], list[str]]

#: Code points of a query that the model is shown.
MAX_QUERY = 400

_ASK = """\
Play a search engine. For the query at the end, write the {k} documents that the engine finds, in \
the form of the example and nothing else. A text has about {words} words.

{aim}

Query: how deep is Lake Baikal
Doc 1
Title: Lake Baikal
Text: Lake Baikal lies in southern Siberia. It is the deepest lake in the world: at its deepest \
point the bed is 1,642 metres below the surface.
Doc 2
Title: Lakes of Siberia
Text: Among the lakes of Siberia, Baikal holds the most water. More than three hundred rivers run \
into it, and only one, the Angara, leaves it.

Query: {query}"""

_HONEST = "They come from an encyclopedia. Say only what you know to be true."

_USEFUL = """\
The person wants to find out: {question}
The answer is: {answer}
The documents must help: at least one of them states the answer as a fact within a sentence. \
None of them speaks of the question, of this request or of the person."""

_NOISY = """\
The documents must be noise: they are on the topic of the query and read well, but none of them \
holds what the person looks for."""


def noise_probability(
    step: int, total_steps: int, start: float, end: float, *, base: float = 4.0
) -> float:
    """The share of searches that are answered with noise at ``step`` of ``total_steps``.

    ZeroSearch's curriculum: start + (base^(step/total_steps) - 1) / (base - 1) * (end - start),
    ``start`` at step 0 and ``end`` from ``total_steps`` on. Raises ``OVDError`` for numbers
    outside their range.
    """
    for name, value in (("start", start), ("end", end)):
        if not 0 <= value <= 1:
            raise OVDError(f"noise, {name}: expected a probability from 0 to 1, got {value!r}")
    if total_steps < 1 or step < 0 or not base > 1:
        raise OVDError(
            "noise: expected a step of at least 0, total_steps of at least 1 and a base above 1, "
            f"got {step!r}, {total_steps!r} and {base!r}"
        )
    if step >= total_steps:
        return end
    share = (math.pow(base, step / total_steps) - 1) / (base - 1)
    # The bounds hold for any rounding.
    return min(max(start + share * (end - start), min(start, end)), max(start, end))


class SimulatedEngine:
    """An engine whose documents a language model writes.

    In training a search is answered with useful documents, for which the model is told the
    question and its gold answer, or with noise, for which it is told neither; the share of noise
    grows with ``step`` (see ``noise_probability``). In evaluation, and wherever no task is known,
    the model sees the query alone: a gold answer has no way into the results.

    An environment calls ``for_task`` at each reset and searches in the view that it gets, so a
    query belongs to its own task whatever else is searched for at the time.

    Args:
        generate: the model, a function from prompts to texts.
        noise_start: share of noise at step 0.
        noise_end: share of noise from ``total_steps`` on.
        total_steps: steps of the training run.
        seed: of the choice between useful and noise, which depends on (seed, step, task, query)
            alone.
        words: what the model is asked for in one document.
        name: of the engine.

    Raises ``OVDError`` for a number outside its range.
    """

    def __init__(
        self,
        generate: Generate,
        *,
        noise_start: float = 0.0,
        noise_end: float = 0.5,
        total_steps: int = 200,
        seed: int = 0,
        words: int = 40,
        name: str = "simulated",
    ) -> None:
        if words < 1:
            raise OVDError(f"words: expected at least 1, got {words!r}")
        noise_probability(0, total_steps, noise_start, noise_end)  # raises for what is out of range
        self.name = name
        self._generate = generate
        self._noise = (noise_start, noise_end)
        self._total_steps = total_steps
        self._seed = seed
        self._words = words

    def noise(self, step: int) -> float:
        """The share of noise at training step ``step``."""
        return noise_probability(step, self._total_steps, *self._noise)

    def search(self, queries: Sequence[str], k: int) -> list[list[SearchResult]]:
        """As for no task: the model sees the queries alone.

        Raises ``SearchError`` where the model gives another number of texts than prompts, and
        ``OVDError`` where ``k`` is below 1.
        """
        return self._answer(queries, k, [_HONEST] * len(queries))

    def for_task(self, task: Task, *, training_step: int | None) -> SimulatedEngine | _TrainingView:
        """The engine for one episode of ``task``; only in training does it know the answer."""
        return self if training_step is None else _TrainingView(self, task, training_step)

    def is_noise(self, task_id: str, query: str, step: int) -> bool:
        """Whether this search is answered with noise at ``step``; the same at every call."""
        draw = stable_hash(f"{self._seed}\n{step}\n{task_id}\n{query}") / 2**64
        return draw < self.noise(step)

    def _answer(
        self, queries: Sequence[str], k: int, aims: Sequence[str]
    ) -> list[list[SearchResult]]:
        if k < 1:
            raise OVDError(f"k: expected at least 1, got {k}")
        asked = [" ".join(query.split())[:MAX_QUERY] for query in queries]
        places = [place for place, query in enumerate(asked) if query]
        prompts = [
            _ASK.format(k=k, aim=aims[place], words=self._words, query=asked[place])
            for place in places
        ]
        texts = self._generate(prompts) if prompts else []
        if len(texts) != len(prompts):
            raise SearchError(f"{self.name}: {len(texts)} texts for {len(prompts)} prompts")
        found: list[list[SearchResult]] = [[] for _ in queries]
        for place, text in zip(places, texts, strict=True):
            documents = read_documents(text)[:k]
            found[place] = [
                SearchResult(_identity(title, body), title, body, score=1 / rank)
                for rank, (title, body) in enumerate(documents, start=1)
            ]
        return found


class _TrainingView:
    """A simulated engine within an episode that is learned from."""

    def __init__(self, engine: SimulatedEngine, task: Task, step: int) -> None:
        self.name = engine.name
        self._engine = engine
        self._task = task
        self._step = step

    def search(self, queries: Sequence[str], k: int) -> list[list[SearchResult]]:
        """Useful documents for some queries, noise for others."""
        task, engine = self._task, self._engine
        useful = _HONEST
        if task.answers:
            useful = _USEFUL.format(question=task.question, answer=task.answers[0])
        aims = [
            _NOISY if engine.is_noise(task.id, query, self._step) else useful for query in queries
        ]
        return engine._answer(queries, k, aims)


_THINKING = re.compile(r"\A\s*<think>.*?(?:</think>|\Z)", re.DOTALL)
#: What begins a document, at the beginning of a line: "Doc 1", "**Document 2:**", "### Result 3";
#: and only where there is none of these "4.", "[5]", which a text may well have there: a year that
#: ends a sentence, a list.
_MARKS = tuple(
    re.compile(
        rf"^[ \t]*(?:[#*_>-]+[ \t]*)?(?:{mark})[ \t]*[*_]*[ \t]*[:.)\]–—-]*[ \t]*[*_]*",
        re.IGNORECASE | re.MULTILINE,
    )
    for mark in (
        r"(?:doc(?:ument)?|result|passage)[ \t]*#?\d+",
        r"\[\d+\]|\d+[.)](?!\d)",
    )
)
_TITLE = re.compile(
    r"\A\s*(?:\(\s*title\s*:(?P<inside>[^\n]*?)\)|[*_]*title[*_]*\s*:[*_]*(?P<line>[^\n]*))",
    re.IGNORECASE,
)
_TEXT = re.compile(r"\A[\s*_]*(?:text|content|passage|document)[*_]*[ \t]*:[*_]*", re.IGNORECASE)


def read_documents(text: str) -> list[tuple[str, str]]:
    """(title, text) of each document that a model wrote, in order, no two alike.

    Reads the form that it was asked for and what models make of it: other marks, no titles, no
    marks (then paragraphs are documents), thoughts and words of introduction before the first.
    """
    body = _THINKING.sub("", text)
    marks = next(filter(None, (list(mark.finditer(body)) for mark in _MARKS)), None)
    if marks:
        ends = [mark.start() for mark in marks[1:]] + [len(body)]
        parts = [body[mark.end() : end] for mark, end in zip(marks, ends, strict=True)]
    else:
        parts = re.split(r"\n\s*\n|\n(?=[ \t*_]*title[*_]*\s*:)", body, flags=re.IGNORECASE)
    documents = dict.fromkeys(_title_and_text(part) for part in parts)
    return [document for document in documents if document[1]]


def _identity(title: str, text: str) -> str:
    """An id for a document that has none: the same words, the same id."""
    return f"{stable_hash(f'{title}|{text}'):016x}"


def _title_and_text(part: str) -> tuple[str, str]:
    title = ""
    found = _TITLE.match(part)
    if found:
        title = found["inside"] if found["inside"] is not None else found["line"]
        part = part[found.end() :]
    part = _TEXT.sub("", part, count=1)
    return " ".join(title.split()).strip('*_" '), " ".join(part.split()).strip("*_ ")
