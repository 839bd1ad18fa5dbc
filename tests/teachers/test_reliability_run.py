"""Asking again, in another order; `ovd score --reliability` and its page."""

import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest

from agents.episode import read_episodes, write_episodes
from teachers import LLMJudge, StepJudge, Verdict, judges, score
from teachers.cascade import CascadeJudge
from teachers.ensemble import EnsembleJudge
from teachers.reliability import Judged, reliability
from teachers.reliability_page import reliability_page
from teachers.reliability_run import ask_again, measure, order_effect, repeat_file
from teachers.score_file import score_file
from tests.teachers.conftest import make_episode
from tests.teachers.fault_server import COMPLETION_TOKENS, PROMPT_TOKENS
from training.cli import main


@pytest.fixture
def folder(tmp_path):
    """Six groups of four: half of each is right, and the scores say so, one apart."""
    write_episodes(
        tmp_path / "e.jsonl",
        [
            make_episode(
                f"{g}, {i}: \\boxed{{{95 if i % 2 else 3}}}", group=str(g), index=i, reward=i % 2
            )
            for g in range(6)
            for i in range(4)
        ],
    )
    return tmp_path


class Wavers:
    """Says something else each time it is asked, as a model that samples does."""

    name = "wavers"
    fingerprint = "wavers/1"

    def __init__(self):
        self.repeat = 0
        self.asked = 0

    def judge(self, episodes):
        self.asked += len(episodes)
        return [Verdict(e.id, self.name, 5 + self.repeat) for e in episodes]


def test_repeats_are_saved_and_gone_on_with(folder):
    judge, out = Wavers(), folder / "v.jsonl"
    first = score_file(judge, folder / "e.jsonl", out)
    second = ask_again(judge, folder / "e.jsonl", out, 2)
    third = ask_again(judge, folder / "e.jsonl", out, 3)
    assert [{v.score for v in run} for run in (first, second, third)] == [{5}, {6}, {7}]
    assert repeat_file(out, 2) == folder / "v.repeat-2.jsonl"
    assert judge.asked == 72
    assert ask_again(judge, folder / "e.jsonl", out, 3) == third
    assert judge.asked == 72
    assert judge.repeat == 0


def test_a_member_is_told_of_the_repeat(folder):
    for make in (
        lambda member: EnsembleJudge([StepJudge(), member]),
        lambda member: CascadeJudge(member, StepJudge(), margin=0),
    ):
        member = Wavers()
        ask_again(make(member), folder / "e.jsonl", folder / f"{id(member)}.jsonl", 2)
        assert member.repeat == 0
        assert member.asked == 24
        rows = (folder / f"{id(member)}.repeat-2.jsonl").read_text().splitlines()
        assert 6 in [part["score"] for part in json.loads(rows[0])["parts"]]


def test_a_model_draws_other_random_numbers_in_a_repeat(scripted_backend, episode):
    backend = scripted_backend(lambda prompt: "no")
    judge = LLMJudge(backend, temperature=1.0)
    before = judge.fingerprint
    score(judge, [episode("a")])
    judge.repeat = 1
    assert judge.fingerprint != before
    score(judge, [episode("a")])
    keys = [request.key for request in backend.requests]
    assert len(set(keys)) == len(keys) == 4  # each time a reply and its correction


class Favours:
    """Scores whole groups, and those that come later higher, by ``points`` a place."""

    name = "favours"
    scores_groups = True
    batch_size = 1  # a group at a time

    def __init__(self, points):
        self.points = points
        self.asked = []

    def judge(self, episodes):
        self.asked.append([e.index for e in episodes])
        return [Verdict(e.id, self.name, 2 + self.points * i) for i, e in enumerate(episodes)]


def effect(judge, path):
    return order_effect(judge, path, score(judge, list(read_episodes(path))))


def test_the_effect_of_the_order(folder):
    found, why = effect(Favours(1), folder / "e.jsonl")
    # Four places: the first and the last change by 3 when turned, the middle ones by 1.
    assert (found.episodes, found.change, found.later.value) == (24, 2, 2)
    assert why == ""
    found, _ = effect(Favours(0), folder / "e.jsonl")
    assert (found.change, found.later.value) == (0, 0)
    found, why = effect(StepJudge(), folder / "e.jsonl")
    assert found is None
    assert why == "the judge reads each episode by itself"
    write_episodes(folder / "alone.jsonl", [make_episode("a")])
    assert effect(Favours(1), folder / "alone.jsonl")[0] is None


def test_for_the_order_each_group_is_asked_for_once_more_alone(folder):
    judge = Favours(1)
    verdicts = score_file(judge, folder / "e.jsonl", folder / "v.jsonl")
    assert measure(judge, folder / "e.jsonl", [verdicts]).order.change == 2
    assert judge.asked == [[0, 1, 2, 3]] * 6 + [[3, 2, 1, 0]] * 6


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as left:
        main(["score", *map(str, arguments)])
    return left.value.code, *capsys.readouterr()


def test_from_the_command_line(folder, capsys):
    page = folder / "page.html"
    code, out, _ = run(capsys, folder / "e.jsonl", "-j", "steps", "--reliability", "--repeats", 2,
                       "--page", page, "--json")  # fmt: skip
    assert code == 0
    found = json.loads(out)["reliability"]
    assert found["auc"]["value"] == 1
    assert found["suggested"] == 7
    assert found["repeats"]["variance"] == 0
    assert found["confusion"][7]["precision"]["value"] == 1
    assert found["order_skipped"]
    assert page.read_text().startswith("<!doctype html>")
    code, out, _ = run(capsys, folder / "e.jsonl", "-j", "steps", "--reliability")
    assert code == 0
    assert "suggested theta" in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_a_budget_holds_for_the_repeats_too(tmp_path, serve, capsys):
    server, each = serve(), PROMPT_TOKENS + COMPLETION_TOKENS
    episodes = [make_episode(f"case:{n} I say 95", index=n, reward=n % 2) for n in range(24)]
    write_episodes(tmp_path / "e.jsonl", episodes)
    asked = [tmp_path / "e.jsonl", "-j", "llm", "-m", "m", "--backend", f"openai:{server.url}"]
    asked += ["--option", "max_tokens=20", "--reliability", "--repeats", 3, "--json"]
    budget = 44 * each
    code, out, err = run(capsys, *asked, "--option", f"budget_tokens={budget}")
    assert 24 * each < server.charged.total() * each <= budget
    assert code == 1
    assert f"the budget of {budget} tokens is spent" in json.loads(out)["stopped"]
    assert "a larger budget goes on" in err
    code, out, _ = run(capsys, *asked, "--option", f"budget_tokens={100 * each}")
    assert (code, server.charged.total()) == (0, 72)
    assert json.loads(out)["reliability"]["repeats"]["times"] == 3


@pytest.mark.parametrize("alone", [("--repeats", 2), ("--precision", 0.9), ("--page", "x.html")])
def test_options_that_need_reliability(folder, capsys, alone):
    code, _, err = run(capsys, folder / "e.jsonl", "-j", "steps", *alone)
    assert code == 2
    assert err.strip() == f"error: {alone[0]}: expected --reliability beside it"


def test_composite_judges_from_the_command_line(folder, capsys):
    judges.names()
    code, out, _ = run(capsys, folder / "e.jsonl", "-j", "ensemble", "--option",
                       "judges=steps,outcome", "--option", "weights=[1,3]", "--json")  # fmt: skip
    assert code == 0
    assert json.loads(out)["scored"] == 24
    row = json.loads((folder / "e.ensemble.verdicts.jsonl").read_text().splitlines()[1])
    assert [part["judge"] for part in row["parts"]] == ["steps", "outcome"]
    code, out, _ = run(capsys, folder / "e.jsonl", "-j", "replay", "--option",
                       f"file={folder / 'e.ensemble.verdicts.jsonl'}", "--json")  # fmt: skip
    assert code == 0
    assert json.loads(out)["errors"] == 0


class Page(HTMLParser):
    """Whether every tag that is opened is closed, and what the page would load."""

    void = frozenset({"meta"})

    def __init__(self, text):
        super().__init__()
        self.open, self.loads = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        names = dict(attributes)
        self.loads += [names[name] for name in ("src", "href") if name in names]
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


NASTY = '<script>alert("1")</script>'


def cases(scores, **fields):
    return [
        Judged(f"t{i}", NASTY, float(right), Verdict("e", "j", s, error=e, **fields))
        for i, (s, right, e) in enumerate(scores)
    ]


@pytest.mark.parametrize(
    "judged",
    [
        cases([(9, 1, None), (3, 0, None), (None, 1, NASTY)]),
        cases([(9, 1, None), (3.5, 0, None)], distribution=(0.1,) * 9 + (0.05,)),
        cases([(None, 0, "down")]),
        cases([(4, 1, None)]),
    ],
)
def test_the_page_is_whole_by_itself_and_escapes(judged):
    text = reliability_page(reliability(NASTY, judged))
    page = Page(text)
    assert page.loads == []
    assert "<script" not in text
    assert "url(" not in text
    assert "http" not in text
    assert "nan" not in re.sub(r"<title>.*?</title>", "", text).lower()
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ET.fromstring(svg)
    assert text.count("<svg") == 4


def test_the_order_is_that_within_each_group_that_the_judge_reads(tmp_path):
    """Two agents may have groups of the same name, and an episode in error is in no group."""
    write_episodes(
        tmp_path / "e.jsonl",
        [
            *[make_episode("x", index=i, agent=a) for a in "ab" for i in range(2)],
            make_episode("x", index=2, agent="a", error="died"),
        ],
    )
    found, _ = effect(Favours(1), tmp_path / "e.jsonl")
    assert (found.episodes, found.change, found.later.value) == (4, 1, 1)
