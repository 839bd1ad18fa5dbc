"""``ovd grade``: reports, agreement, and what it says of bad rows."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from ovd_envs import OVDError
from ovd_envs.commands import register_commands
from ovd_envs.jsonl import write_jsonl


@pytest.fixture
def ovd():
    """Run the commands of this package; an OVDError comes out as it is."""
    app = typer.Typer()
    register_commands(app)

    def run(*arguments, code=0):
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result.output

    return run


def test_grade(ovd, tmp_path):
    rows = [
        {"gold": "1/2", "answer": "0.5", "expected": True},
        {"gold": "x+1", "answer": "1+x", "expected": True},
        {"gold": "5", "answer": 6, "expected": True},
        {"gold": "5", "answer": "10^{10^{10}}", "expected": False},
        {"gold": "10^{10^{10}}", "answer": "5", "expected": False},
    ]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    report = json.loads(ovd("grade", "math", tmp_path / "pairs.jsonl", "--json", "--deadline", 1.5))
    assert (report["n"], report["agree"], report["timeouts"]) == (5, 3, 1)
    verdicts = [row["verdict"].partition(":")[0] for row in report["rows"]]
    assert verdicts == ["right", "right", "wrong", "timeout", "gold error"]
    assert [row["gold"] for row in report["rows"]] == [row["gold"] for row in rows]
    text = ovd("grade", "math", tmp_path / "pairs.jsonl", "--deadline", 1.5)
    assert "3 of 5 as expected (60.0%)" in text


def test_grade_without_expectations(ovd, tmp_path):
    write_jsonl(tmp_path / "pairs.jsonl", [{"gold": "95", "answer": "\\boxed{37 + 58}"}] * 3)
    report = json.loads(ovd("grade", "math", tmp_path / "pairs.jsonl", "--json"))
    assert (report["n"], report["agree"]) == (3, None)
    assert report["rows"][0]["verdict"] == "right"
    report = json.loads(ovd("grade", "number", tmp_path / "pairs.jsonl", "--json"))
    assert report["rows"][0]["verdict"] == "wrong"


def test_grade_agrees_on_the_shared_pairs(ovd, shared_data):
    files = sorted((shared_data / "grading").glob("*_pairs.jsonl"))
    report = json.loads(ovd("grade", "math", *files, "--json"))
    assert report["agree"] / report["n"] >= 0.98
    assert report["timeouts"] == 0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"gold": "5", "response": "5"}, "row 2: expected a text in field 'answer', found .*gold"),
        ({"gold": None, "answer": "5"}, "row 2: expected a text in field 'gold'"),
        ({"gold": "5", "answer": "5", "expected": "yes"}, "row 2: 'expected': expected true or"),
        ({"gold": "5", "answer": "5", "settings": [1]}, "row 2: 'settings': expected an object"),
        (
            {"gold": "5", "answer": "5", "settings": {"precision": None}},
            "row 2: 'settings': precision: expected a whole number, got None",
        ),
        (
            {"gold": "5", "answer": "5", "settings": {"strict": "false"}},
            "row 2: 'settings': strict: expected true or false, got 'false'",
        ),
    ],
)
def test_bad_rows_are_named(ovd, tmp_path, row, message):
    write_jsonl(tmp_path / "pairs.jsonl", [{"gold": "5", "answer": "5"}, row])
    with pytest.raises(OVDError, match=message):
        ovd("grade", "math", tmp_path / "pairs.jsonl")


def test_bad_arguments_are_named(ovd, tmp_path):
    with pytest.raises(OVDError, match=r"missing.jsonl: cannot be read"):
        ovd("grade", "math", tmp_path / "missing.jsonl")
    with pytest.raises(OVDError, match="KIND: expected math, number or qa, got 'chess'"):
        ovd("grade", "chess", tmp_path / "missing.jsonl")


# ----------------------------------------------------------------------------------- kind "qa"

ANSWERS = [
    {"gold": ["Wilhelm Röntgen", "Röntgen"], "answer": "Wilhelm Conrad Röntgen", "expected": True},
    {"gold": "the Beatles", "answer": "Beatles!", "expected": True},
    {"gold": ["Malmö"], "answer": "Malmo", "expected": True},
    {"gold": 1984, "answer": 1984},
    {"gold": "yes", "answer": "", "expected": False},
]


def test_grade_qa(ovd, tmp_path):
    write_jsonl(tmp_path / "pairs.jsonl", ANSWERS)
    report = json.loads(ovd("grade", "qa", tmp_path / "pairs.jsonl", "--json"))
    rows = report.pop("rows")
    assert report == {
        "n": 5,
        "agree": 2,
        "timeouts": 0,
        "em": pytest.approx(2 / 5),
        "f1": pytest.approx((0.8 + 1 + 0 + 1 + 0) / 5),
        "substring": pytest.approx(3 / 5),
    }
    assert [row["verdict"] for row in rows] == ["wrong", "right", "wrong", "right", "wrong"]
    assert [row["gold"] for row in rows] == [
        ["Wilhelm Röntgen", "Röntgen"], "the Beatles", ["Malmö"], "1984", "yes"
    ]  # fmt: skip
    assert rows[0] == {
        "gold": ["Wilhelm Röntgen", "Röntgen"],
        "answer": "Wilhelm Conrad Röntgen",
        "verdict": "wrong",
        "em": 0,
        "f1": pytest.approx(0.8),
        "substring": 1,
        "expected": True,
        "agrees": False,
    }
    assert "agrees" not in rows[3]


def test_grade_qa_by_the_mended_normalization(ovd, tmp_path):
    path = tmp_path / "pairs.jsonl"
    write_jsonl(path, ANSWERS)
    report = json.loads(ovd("grade", "qa", path, "--normalization", "mended", "--json"))
    assert (report["agree"], report["em"]) == (3, pytest.approx(3 / 5))
    squad = ovd("grade", "qa", path, "--normalization", "squad", "--json")
    assert squad == ovd("grade", "qa", path, "--json")
    with pytest.raises(OVDError, match="--normalization: expected squad or mended, got 'none'"):
        ovd("grade", "qa", path, "--normalization", "none")
    with pytest.raises(OVDError, match="--normalization: only for KIND qa, got KIND math"):
        ovd("grade", "math", path, "--normalization", "squad")


def test_grade_qa_as_a_table(ovd, tmp_path):
    write_jsonl(tmp_path / "pairs.jsonl", ANSWERS)
    text = ovd("grade", "qa", tmp_path / "pairs.jsonl")
    assert "5 pairs: 3 wrong, 2 right" in text
    assert "40.0%" in text
    assert "56.0%" in text
    assert "60.0%" in text
    assert "2 of 4 as expected (50.0%)" in text
    assert "'Malmo'" in text


def test_grade_qa_of_nothing(ovd, tmp_path):
    write_jsonl(tmp_path / "pairs.jsonl", [])
    report = json.loads(ovd("grade", "qa", tmp_path / "pairs.jsonl", "--json"))
    assert (report["n"], report["f1"], report["rows"]) == (0, None, [])
    assert "0 pairs" in ovd("grade", "qa", tmp_path / "pairs.jsonl")


@pytest.mark.parametrize(
    ("kind", "row", "message"),
    [
        ("qa", {"gold": [], "answer": "5"}, "row 2: expected a text in field 'gold'"),
        ("qa", {"gold": ["5", None], "answer": "5"}, "row 2: expected a text in field 'gold'"),
        (
            "qa",
            {"gold": [" "], "answer": "5"},
            r"row 2: expected a text in field 'gold', got \[' '",
        ),
        ("qa", {"gold": "5", "answer": ["5"]}, "row 2: expected a text in field 'answer'"),
        ("qa", {"gold": "5"}, "row 2: expected a text in field 'answer', found the fields gold"),
        ("math", {"gold": ["5"], "answer": "5"}, "row 2: expected a text in field 'gold'"),
    ],
)
def test_bad_rows_of_answers_are_named(ovd, tmp_path, kind, row, message):
    write_jsonl(tmp_path / "pairs.jsonl", [{"gold": "5", "answer": "5"}, row])
    with pytest.raises(OVDError, match=message):
        ovd("grade", kind, tmp_path / "pairs.jsonl")


def test_every_shared_answer_is_right_by_itself(ovd, tmp_path, shared_data):
    pairs = [
        {"gold": row["golden_answers"], "answer": answer, "expected": True}
        for path in sorted((shared_data / "webqa").glob("*.jsonl"))
        for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())
        for answer in row["golden_answers"]
    ]
    write_jsonl(tmp_path / "pairs.jsonl", pairs)
    for normalization in ("squad", "mended"):
        path = tmp_path / "pairs.jsonl"
        report = json.loads(ovd("grade", "qa", path, "--normalization", normalization, "--json"))
        assert report["n"] == len(pairs) > 2500
        assert report["agree"] == report["n"]
