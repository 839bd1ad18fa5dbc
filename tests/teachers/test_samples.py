"""``samples: n``: the mean of those that can be used, and never a number for those that cannot."""

import math
import re

import pytest

from ovd_envs.errors import OVDError
from teachers import LLMJudge, make_judge, score
from teachers.judge_reply import Reply
from teachers.samples import Cost, Sample, verdict_of
from tests.teachers.conftest import DigitBackend, ScriptedBackend, make_episode
from tests.teachers.fault_server import COMPLETION_TOKENS, PROMPT_TOKENS, reply_text


def mark_of(prompt):
    return re.findall(r'"id": "([0-9a-f]{8})"', prompt)[-1]


def saying(*scores):
    """Replies with these scores in turn; a text is a reply as it stands."""
    left = list(scores)

    def reply(prompt):
        said = left.pop(0)
        return said if isinstance(said, str) else reply_text(mark_of(prompt), said, f"about {said}")

    return reply


def judge_of(backend, samples, **options):
    return LLMJudge(backend, samples=samples, temperature=0.7, **options)


def test_the_mean_of_all():
    backend = ScriptedBackend(saying(7, 8, 3, 6))
    [verdict] = score(judge_of(backend, 4), [make_episode("95")])
    assert verdict.score == 6
    assert verdict.reason == "[4 samples: 7, 8, 3, 6] about 6"
    assert verdict.prompt_tokens == sum(len(request.ids) for request in backend.requests)
    assert verdict.distribution is None  # votes are no probabilities of the model
    keys = [request.key for request in backend.requests]
    assert len(set(keys)) == 4
    assert len({tuple(request.ids) for request in backend.requests}) == 1


def test_a_sample_that_fails_twice_counts_for_nothing():
    replies = {0: [9], 1: ["no", "no"], 2: ["10", 4]}

    backend = ScriptedBackend(saying())

    def generate(requests):
        backend.requests += requests
        done = []
        for request in requests:
            backend.reply = saying(replies[request.key[-1]].pop(0))
            done += ScriptedBackend.generate(backend, [request])
            backend.requests.pop()
        return done

    backend.generate = generate
    [verdict] = score(judge_of(backend, 3), [make_episode("95")])
    assert verdict.score == 6.5
    assert verdict.reason.startswith("[2 of 3 samples: 9, 4] about ")
    assert [request.key[1] for request in backend.requests] == [0, 0, 0, 1, 1]
    assert len({request.key for request in backend.requests}) == 5


def test_none_that_can_be_used_is_an_error():
    backend = ScriptedBackend(lambda prompt: "I would say 7")
    [verdict] = score(judge_of(backend, 3), [make_episode("95")])
    assert verdict.score is None
    assert verdict.error.startswith("none of 3 samples can be used; the last: the reply does not ")
    assert "; the reply was: 'I would say 7'" in verdict.error
    assert len(backend.requests) == 6
    assert verdict.completion_tokens == 6 * len("I would say 7.")


def test_each_episode_has_its_own_samples():
    backend = ScriptedBackend(
        lambda prompt: reply_text(mark_of(prompt), int(re.findall(r"say (\d)", prompt)[0]))
    )
    episodes = [make_episode(f"say {i}", index=i) for i in range(5)]
    verdicts = score(judge_of(backend, 3, batch_size=2), episodes)
    assert [verdict.score for verdict in verdicts] == [0, 1, 2, 3, 4]
    assert len(backend.requests) == 15


def test_the_mean_of_the_distributions_is_what_the_judge_says_whatever_it_reasons():
    likely = {7: [0.0] * 7 + [0.9, 0.0, 0.0], 3: [0.0] * 3 + [0.5] + [0.0] * 6}

    class Backend(DigitBackend):
        def next_token_logprobs(self, prompts, choices):
            rows = []
            for prompt in prompts:
                text = "".join(chr(i) for i in prompt)
                said = 7 if '"about 7"' in text else 3
                rows.append([math.log(p) if p else -80.0 for p in likely[said]])
            return rows

    backend = Backend(saying(7, 3), [0.0] * 10)
    [verdict] = score(judge_of(backend, 2), [make_episode("95")])
    assert verdict.distribution == pytest.approx([0, 0, 0, 0.25, 0, 0, 0, 0.45, 0, 0])
    assert verdict.score == pytest.approx((3 * 0.25 + 7 * 0.45) / 0.7)
    backend = Backend(saying(7, 3), [0.0] * 10)
    [verdict] = score(judge_of(backend, 2, reduce="argmax"), [make_episode("95")])
    assert verdict.score == 7


def test_a_sample_without_digits_leaves_the_mean_of_the_scores():
    dense = (0.0,) * 8 + (0.5, 0.5)
    samples = [Sample(Reply(8, "a", ""), "", dense), Sample(Reply(2, "b", ""))]
    verdict = verdict_of("e", "j", samples, "expected", Cost(0, 0, 0))
    assert (verdict.score, verdict.distribution) == ((8.5 + 2) / 2, None)
    nothing = (0.0,) * 10
    samples[1] = Sample(Reply(2, "b", ""), "", nothing)
    assert verdict_of("e", "j", samples, "expected", Cost(0, 0, 0)).score == (8.5 + 2) / 2


def test_turns_have_the_mean_of_those_that_could_tell():
    turns = [(9, None, None), (3, 5, None)]
    samples = [Sample(Reply(5, "a", "", one)) for one in turns] + [Sample(None, "no")]
    verdict = verdict_of("e", "j", samples, "expected", Cost(0, 0, 0))
    assert verdict.turns == (6, 5, None)


def test_without_a_temperature_there_is_one_clear_line():
    with pytest.raises(OVDError, match=r"^samples: 3 need a temperature above 0 \(at 0 "):
        LLMJudge(ScriptedBackend(saying()), samples=3)


# --- behind an API ----------------------------------------------------------------------------


def judge_at(server, **options):
    options = {"base_wait": 0.02, "temperature": 0.5, "samples": 3, **options}
    return make_judge("llm", model="m", backend=f"openai:{server.url}", **options)


def test_an_api_is_asked_by_seeds_of_their_own(serve):
    server = serve()
    judge = judge_at(server)
    [verdict] = score(judge, [make_episode("case:it")])
    assert verdict.score == 7
    assert verdict.prompt_tokens == 3 * PROMPT_TOKENS
    assert verdict.completion_tokens == 3 * COMPLETION_TOKENS
    seeds = {body["seed"] for body in server.bodies}
    assert len(seeds) == 3
    judge.repeat = 1
    score(judge, [make_episode("case:it")])
    assert len({body["seed"] for body in server.bodies}) == 6


@pytest.mark.parametrize(
    ("faults", "calls", "usable"),
    [
        (["400"], 3, 2),
        (["400", "400"], 3, 1),
        (["400", "400", "400"], 3, 0),
        (["prose"] * 6, 6, 0),
        (["500"], 4, 3),
    ],
)
def test_a_sample_that_an_api_refuses_is_no_number(faults, calls, usable, serve):
    server = serve({"it": list(faults)})
    [verdict] = score(judge_at(server, concurrency=1), [make_episode("case:it")])
    assert server.asked["it"] == calls
    assert verdict.prompt_tokens == server.charged["it"] * PROMPT_TOKENS
    if usable:
        assert verdict.score == 7
        assert (f"[{usable} of 3 samples" in verdict.reason) == (usable < 3)
    else:
        assert verdict.score is None
        assert verdict.error.startswith("none of 3 samples can be used; the last: ")


def test_a_budget_holds_for_all_samples(serve):
    from teachers.spending import BudgetError

    server = serve(seconds=0.02)
    one = judge_at(server, samples=1, budget_tokens=1_700, max_tokens=20)
    assert score(one, [make_episode("case:it")])[0].score == 7
    with pytest.raises(BudgetError):  # it would do for one sample, not for what three may cost
        score(judge_at(server, budget_tokens=1_700, max_tokens=20), [make_episode("case:it")])
    assert server.asked["it"] == 1


def test_no_more_calls_at_a_time_than_concurrency(serve):
    server = serve(seconds=0.05)
    episodes = [make_episode(f"case:{n}", index=n) for n in range(6)]
    score(judge_at(server, concurrency=4), episodes)
    assert server.most_under_way == 4
    assert server.asked.total() == 18


def test_null_leaves_the_temperature_to_the_api(serve):
    server = serve()
    assert score(judge_at(server, temperature=None), [make_episode("case:it")])[0].score == 7
    assert all("temperature" not in body for body in server.bodies)
