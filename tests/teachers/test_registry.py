import pytest

from ovd_envs.errors import OVDError, RegistrationError
from teachers import (
    Demonstrator,
    Judge,
    StepJudge,
    judges,
    load_rubric,
    make_demonstrator,
    make_judge,
)
from teachers.rubric import rubric_names


@pytest.fixture(autouse=True)
def registered():
    """What a test registers is gone after it."""
    judges.names()
    before = dict(judges._entries)
    yield
    judges._entries.clear()
    judges._entries.update(before)


def test_the_judges_that_come_with_the_package():
    assert {"llm", "outcome", "steps"} <= set(judges.names())
    for entry in judges.entries():
        assert entry.summary
        assert not entry.error
    assert isinstance(make_judge("steps"), StepJudge)
    assert make_judge("outcome").name == "outcome"


def test_unknown_judge():
    with pytest.raises(RegistrationError, match="did you mean 'steps'"):
        make_judge("step")


def test_unknown_option():
    with pytest.raises(OVDError, match="no option 'rubrik'; did you mean 'rubric'"):
        make_judge("llm", rubrik="math")
    with pytest.raises(OVDError, match="judge 'outcome': no option 'model'; known: none"):
        make_judge("outcome", model="x")


def test_a_judge_of_ones_own():
    class Mine:
        name = "mine"

        def __init__(self, bonus: float, cap: float = 9):
            self.bonus = bonus

        def judge(self, episodes):
            return []

    judges.register("test/mine", Mine, "mine")
    assert make_judge("test/mine", bonus=1).bonus == 1
    with pytest.raises(OVDError, match="missing a required argument: 'bonus'"):
        make_judge("test/mine")


def test_what_is_no_judge_is_refused():
    judges.register("test/none", dict, "a class in C, which has no signature")
    judges.register("test/text", lambda: "text", "a function")
    with pytest.raises(OVDError, match=r"expected an object with 'name'.* got str"):
        make_judge("test/text")
    with pytest.raises(OVDError, match="expected an object with 'name'"):
        make_judge("test/none")
    assert not isinstance({}, Judge)


def test_demonstrators():
    shown = make_demonstrator("scripted", working="split")
    assert isinstance(shown, Demonstrator)
    assert shown.name == "scripted"
    with pytest.raises(OVDError, match="demonstrator 'scripted': no option 'wroking'; did you"):
        make_demonstrator("scripted", wroking="split")
    with pytest.raises(OVDError, match="working: expected one of"):
        make_demonstrator("scripted", working="rows")
    with pytest.raises(OVDError, match="missing a required argument: 'model'"):
        make_demonstrator("model")


def test_rubrics():
    assert rubric_names() == ["general", "math", "web-qa"]
    for name in rubric_names():
        text = load_rubric(name)
        assert "from 0 to 9" in text
        assert len(text) < 2_000


def test_a_rubric_of_ones_own(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text(" Be kind. ")
    assert load_rubric(str(path)) == "Be kind."
    path.write_text(" ")
    with pytest.raises(OVDError, match="empty"):
        load_rubric(str(path))
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(OVDError, match="not UTF-8"):
        load_rubric(str(path))
    with pytest.raises(OVDError, match="No such file"):
        load_rubric(str(tmp_path / "none"))
