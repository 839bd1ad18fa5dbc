"""``teachers.score`` against judges that break the rules: nothing of it may become a score."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teachers import OutcomeJudge, Verdict, VerdictCache, score


class FunctionJudge:
    name = "function"
    fingerprint = "function/1"

    def __init__(self, function, batch_size=64):
        self.function = function
        self.batch_size = batch_size
        self.asked = []

    def judge(self, episodes):
        self.asked.append([e.id for e in episodes])
        return self.function(episodes)


def good(episodes):
    return [Verdict(e.id, "function", e.index % 10, f"about {e.id}") for e in episodes]


@pytest.fixture
def group(episode):
    return [episode(f"\\boxed{{{i}}}", index=i) for i in range(8)]


@pytest.fixture
def equal(episode):
    return [episode("\\boxed{95}", index=i) for i in range(8)]


def test_verdicts_are_matched_by_id_not_by_order(group):
    verdicts = score(FunctionJudge(lambda e: good(e)[::-1]), group)
    assert [v.episode for v in verdicts] == [e.id for e in group]
    assert [v.score for v in verdicts] == [e.index for e in group]


def test_a_missing_verdict_is_an_error(group):
    verdicts = score(FunctionJudge(lambda e: good(e)[:3] + good(e)[4:]), group)
    assert [v.failed for v in verdicts] == [i == 3 for i in range(8)]
    assert "no verdict" in verdicts[3].error


def test_two_verdicts_on_one_episode_are_an_error_even_if_equal(group):
    verdicts = score(FunctionJudge(lambda e: [*good(e), good(e)[2]]), group)
    assert [v.failed for v in verdicts] == [i == 2 for i in range(8)]
    assert "2 verdicts: 2, 2" in verdicts[2].error


def test_an_unknown_id_gives_no_one_a_score(group):
    def stray(episodes):
        return [*good(episodes)[1:], Verdict("student:9:99", "function", 9)]

    verdicts = score(FunctionJudge(stray), group)
    assert [v.failed for v in verdicts] == [True, *[False] * 7]


@pytest.mark.parametrize("answer", [None, 9, "9", {"score": 9}, 0])
def test_what_is_no_verdict_is_no_score(group, answer):
    verdicts = score(FunctionJudge(lambda e: [answer] * len(e)), group)
    assert all(v.failed for v in verdicts)


@pytest.mark.parametrize(
    "error", [ValueError("bad\nline"), RecursionError(), MemoryError(), SystemError("x")]
)
def test_an_exception_is_an_error_verdict_on_its_batch_alone(group, error):
    def judge(episodes):
        if episodes[0].index == 0:
            raise error
        return good(episodes)

    verdicts = score(FunctionJudge(judge, batch_size=4), group)
    assert [v.failed for v in verdicts] == [True] * 4 + [False] * 4
    assert type(error).__name__ in verdicts[0].error
    assert "\n" not in verdicts[0].error


def test_no_list_is_an_error(group):
    assert all(v.failed for v in score(FunctionJudge(lambda e: None), group))


def test_ctrl_c_goes_up_and_keeps_what_is_done(episode, tmp_path):
    group = [episode(f"message {i}", index=i) for i in range(8)]

    def judge(episodes):
        if episodes[0].index == 4:
            raise KeyboardInterrupt
        return good(episodes)

    cache = VerdictCache(tmp_path)
    told = []
    with pytest.raises(KeyboardInterrupt):
        score(FunctionJudge(judge, batch_size=2), group, cache=cache, progress=told.append)
    assert len(told) == 4
    again = FunctionJudge(good)
    verdicts = score(again, group, cache=cache)
    assert again.asked == [[e.id for e in group[4:]]]
    assert [v.episode for v in verdicts] == [e.id for e in group]


def paid(episodes):
    return [Verdict(e.id, "function", 7, seconds=1.0, prompt_tokens=9) for e in episodes]


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_equal_content_is_asked_for_once_where_there_is_a_cache(batch_size, equal, tmp_path):
    judge = FunctionJudge(paid, batch_size=batch_size)
    verdicts = score(judge, equal, cache=VerdictCache(tmp_path))
    assert judge.asked == [[equal[0].id]]
    assert [v.episode for v in verdicts] == [e.id for e in equal]


def test_equal_episodes_of_a_batch_share_a_verdict_that_is_paid_for_once(equal, group):
    judge = FunctionJudge(paid)
    verdicts = score(judge, [*equal, *group[1:]])
    assert judge.asked == [[equal[0].id, *(e.id for e in group[1:])]]
    assert [v.episode for v in verdicts] == [e.id for e in [*equal, *group[1:]]]
    assert [v.score for v in verdicts] == [7] * 15
    assert [v.prompt_tokens for v in verdicts] == [9, *[0] * 7, *[9] * 7]


def test_the_failure_of_one_of_equal_episodes_is_that_of_all(equal):
    verdicts = score(FunctionJudge(lambda e: []), equal)
    assert all(v.failed for v in verdicts)


def test_a_judge_that_does_not_say_what_its_verdicts_depend_on_is_asked_about_each(equal):
    judge = FunctionJudge(good)
    judge.fingerprint = ""
    assert [v.score for v in score(judge, equal)] == [e.index for e in equal]


def test_episodes_of_one_id_are_never_asked_together(episode):
    twins = [episode("\\boxed{95}", index=i % 2, reward=float(i > 1)) for i in range(4)]
    judge = FunctionJudge(lambda e: [Verdict(x.id, "function", 9 * x.reward) for x in e])
    assert [v.score for v in score(judge, twins)] == [0, 0, 9, 9]
    assert all(len(set(ids)) == len(ids) for ids in judge.asked)


def test_an_episode_that_crashed_is_not_judged(episode):
    crashed = episode("x", error="Traceback ...\nZeroDivisionError: oh", end_reason="error")
    judge = FunctionJudge(good)
    [verdict] = score(judge, [crashed])
    assert judge.asked == []
    assert verdict.failed
    assert "ZeroDivisionError: oh" in verdict.error


def test_nothing_to_judge():
    assert score(FunctionJudge(good), []) == []


@given(st.data())
def test_any_answer_of_a_judge_gives_one_verdict_each_and_invents_no_score(data):
    from teachers.score import score
    from tests.teachers.conftest import make_episode

    episodes = [make_episode(f"x{i}", index=i) for i in range(5)]
    names = st.sampled_from([e.id for e in episodes] + ["stranger"])
    answers = data.draw(
        st.lists(
            st.one_of(
                st.builds(Verdict, names, st.just("j"), st.integers(0, 9)),
                st.builds(Verdict, names, st.just("j"), st.none(), error=st.just("failed")),
                st.none(),
                st.integers(),
            ),
            max_size=9,
        )
    )
    verdicts = score(FunctionJudge(lambda _: answers), episodes)
    assert [v.episode for v in verdicts] == [e.id for e in episodes]
    for verdict in verdicts:
        given_scores = [
            a.score for a in answers if isinstance(a, Verdict) and a.episode == verdict.episode
        ]
        assert verdict.failed or given_scores == [verdict.score]


def test_outcome_judge_refuses_what_does_not_fit_the_scale(episode):
    rewards = [0.0, 1.0, 0.5, -0.1, 1.5, float("nan")]
    episodes = [episode("x", index=i, reward=r) for i, r in enumerate(rewards)]
    verdicts = score(OutcomeJudge(), episodes)
    assert [v.score for v in verdicts] == [0, 9, 4.5, None, None, None]
    assert all(v.failed for v in verdicts[3:])
