"""What the judges that ask a language model have in common, whoever runs it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, TypedDict, TypeVar

from agents.episode import Episode
from ovd_envs.errors import OVDError
from teachers.asking import Answer, Asker, Writer
from teachers.digits import REDUCTIONS
from teachers.judge_options import check_choice, check_flag, check_number, check_size
from teachers.judge_prompt import Prompting
from teachers.judge_reply import Reply
from teachers.rubric import load_rubric
from teachers.samples import Cost, Sample, verdict_of
from teachers.score_level import check_score_level
from teachers.shortening import MAX_EPISODE_TOKENS
from teachers.verdict import Verdict

_T = TypeVar("_T")


class JudgeOptions(TypedDict, total=False):
    """The options that every judge on a language model takes."""

    rubric: str | None
    """What the scores mean, as text (see ``load_rubric``); default "general"."""
    reduce: str
    """How the probabilities of the ten digits become a score, where there are any: "expected"
    value (over the ten alone) or "argmax". Without them the score is the digit that was written."""
    show_gold: bool
    """Whether the judge sees the gold answers; default True."""
    score_level: str
    """"episode" (default), or "turn": the reply scores each turn too, by its number
    (``Verdict.turns``). These are the digits that were written."""
    samples: int
    """How often each is asked, with random numbers of its own; default 1. More need a temperature.

    The verdict is the mean of the samples that can be used; an error where none can. One sample has
    its own reason, and its ten probabilities are those after that reason. Their mean over the
    samples is what the judge would say whatever it reasons: with logprobs a verdict has this mean
    as its distribution and its score from that, without them the mean of the scores written."""
    group: bool
    """Whether all episodes of a task's group are judged together, in one reply (default False).

    The judge then has ``scores_groups``: what it says of an episode depends on those beside it. The
    scores are the digits that were written; there is no distribution."""
    max_tokens: int
    """Of one reply, of each episode in it; scores of turns come on top. Default 256."""
    max_episode_tokens: int
    """Of each episode that is shown; a longer one loses the middles of its observations first."""


class ModelJudge:
    """Writes the questions and reads the answers; a subclass gives ``name`` and ``asker``.

    Raises ``OVDError`` for an option out of range.
    """

    name: str
    asker: Asker
    """What asks the model, within the judge's limits."""

    def __init__(
        self,
        *,
        reply: str = "json",
        temperature: float | None = 0.0,
        rubric: str | None = None,
        reduce: str = "expected",
        show_gold: bool = True,
        score_level: str = "episode",
        samples: int = 1,
        group: bool = False,
        max_tokens: int = 256,
        max_episode_tokens: int = MAX_EPISODE_TOKENS,
    ) -> None:
        check_choice("reduce", reduce, REDUCTIONS)
        check_flag("show_gold", show_gold)
        check_flag("group", group)
        check_size("samples", samples)
        check_size("max_tokens", max_tokens)
        check_size("max_episode_tokens", max_episode_tokens)
        if temperature is not None:
            check_number("temperature", temperature)
        if samples > 1 and temperature == 0:
            raise OVDError(
                f"samples: {samples} need a temperature above 0 (at 0 they would all be the same)"
            )
        self.score_level = check_score_level(score_level)
        if reply == "digit" and (samples > 1 or group or score_level == "turn"):
            other = "samples" if samples > 1 else "group" if group else "score_level: turn"
            raise OVDError(f"reply: 'digit' writes nothing; {other} goes with 'json'")
        self.show_gold = show_gold
        #: Whether whole groups are judged together.
        self.scores_groups = group
        self.samples = samples
        self.max_tokens, self.max_episode_tokens = max_tokens, max_episode_tokens
        self._reduce = reduce
        text = load_rubric("general") if rubric is None else rubric
        self._prompting = Prompting(text, reply, show_gold, self.score_level, max_tokens)
        hashed = hashlib.sha256(text.encode()).hexdigest()
        options = (reply, reduce, show_gold, temperature, max_tokens, max_episode_tokens)
        self._print = f"{hashed} {options} {(score_level, samples, group)}"

    @property
    def repeat(self) -> int:
        """Which time the same question is asked: random numbers are named, and would be equal."""
        return self.asker.repeat

    @repeat.setter
    def repeat(self, number: int) -> None:
        self.asker.repeat = number

    def _fingerprint(self, kind: str, model: str) -> str:
        again = f" repeat {self.repeat}" if self.repeat else ""
        return f"{kind} {model} {self._print}{again}"

    def _writer(self, episode: Episode) -> Writer[Reply]:
        return Writer(lambda room: self._prompting.ask(episode, room))

    def _group_writer(self, episodes: Sequence[Episode]) -> Writer[dict[int, Reply]]:
        return Writer(lambda room: self._prompting.ask_group(episodes, room), len(episodes))

    def _of(self, answers: Sequence[_T], number: int) -> Sequence[_T]:
        """The samples of the question with that number."""
        return answers[number * self.samples : (number + 1) * self.samples]

    def _verdict(
        self, episode: Episode, answers: Sequence[Answer[Reply]], seconds: float
    ) -> Verdict:
        """The verdict from all samples of an episode."""
        samples = [Sample(one.value, one.error, one.distribution) for one in answers]
        return verdict_of(episode.id, self.name, samples, self._reduce, _cost(answers, seconds))

    def _group_verdicts(
        self,
        episodes: Sequence[Episode],
        answers: Sequence[Answer[dict[int, Reply]]],
        seconds: float,
    ) -> list[Verdict]:
        """The verdicts on a group from all samples of it; what it cost is shared among them."""
        found = [_replies(answer) for answer in answers]
        cost, verdicts = _cost(answers, seconds), []
        for place, episode in enumerate(episodes):
            samples = [
                Sample(replies.get(place), answer.error)
                for replies, answer in zip(found, answers, strict=True)
            ]
            share = Cost(
                cost.seconds / len(episodes),
                _share(cost.prompt_tokens, place, len(episodes)),
                _share(cost.completion_tokens, place, len(episodes)),
            )
            verdicts.append(verdict_of(episode.id, self.name, samples, self._reduce, share))
        return verdicts


def _replies(answer: Answer[dict[int, Reply]]) -> dict[int, Reply]:
    """What an answer says of each place: its value, or the newest usable of each place."""
    if answer.value is not None:
        return answer.value
    found: dict[int, Reply] = {}
    for usable in answer.partial:
        found.update(usable)
    return found


def _cost(answers: Sequence[Answer[Any]], seconds: float) -> Cost:
    return Cost(
        seconds,
        sum(answer.prompt_tokens for answer in answers),
        sum(answer.completion_tokens for answer in answers),
    )


def _share(tokens: int, place: int, count: int) -> int:
    """The part of place ``place``; those of all ``count`` places add up to ``tokens``."""
    return tokens // count + (place < tokens % count)
