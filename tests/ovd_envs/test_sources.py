from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ovd_envs
from ovd_envs import OVDError, Task, TaskError, record_tasks, sources
from ovd_envs.formats import read_record
from ovd_envs.math_tasks import ArithmeticTasks
from ovd_envs.record_tasks import HubTasks, JsonlTasks
from ovd_envs.sources import shared_source, task_source

GSM8K = {
    "question": "Natalia sold clips to 48 friends in April, and half as many in May. How many?",
    "answer": "In May 48/2 = <<48/2=24>>24.\nAltogether 48+24 = <<48+24=72>>72.\n#### 72",
}


def write(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def questions(count, start=0):
    return [
        {"question": f"What is {n} + 0?", "answer": str(n)} for n in range(start, start + count)
    ]


# ---------------------------------------------------------------------------------------- rows


def test_gsm8k_rows():
    row = read_record(GSM8K, "here")
    assert row.answers == ("72",)
    assert row.metadata["solution"] == ["48/2 = 24", "48+24 = 72"]
    assert row.metadata["rationale"] == "In May 48/2 = 24.\nAltogether 48+24 = 72."


def test_a_gsm8k_row_whose_equations_end_elsewhere_has_no_solution():
    row = read_record({"question": "?", "answer": "<<1+1=2>>2\n#### 1,000"}, "here")
    assert row.answers == ("1000",)
    assert "solution" not in row.metadata


def test_math_rows():
    solution = "So it is $\\boxed{\\frac{1}{2}}$."
    row = read_record(
        {"problem": "P", "solution": solution, "level": 3, "unique_id": "a/1"}, "here"
    )
    assert row.answers == ("\\frac{1}{2}",)
    assert (row.id, row.metadata["level"]) == ("a/1", 3)
    assert row.metadata["rationale"] == solution
    row = read_record({"problem": "P", "solution": solution, "answer": "0.5"}, "here")
    assert row.answers == ("0.5",)


@pytest.mark.parametrize(
    ("row", "answers"),
    [
        ({"question": "Q", "answer": 5}, ("5",)),
        ({"question": "Q", "answer": 0.5}, ("0.5",)),
        ({"question": "Q", "answer": " yes "}, ("yes",)),
        ({"question": "Q", "answers": ["yes", "yeah", ""]}, ("yes", "yeah")),
        ({"id": 7, "question": "Q", "golden_answers": ["yes"]}, ("yes",)),
    ],
)
def test_plain_rows(row, answers):
    assert read_record(row, "here").answers == answers


def test_fields_of_ones_own():
    row = read_record(
        {"frage": "Wie?", "antwort": "so"}, "here", question="frage", answer="antwort"
    )
    assert (row.question, row.answers) == ("Wie?", ("so",))


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        (
            {"q": "Q", "answer": "1"},
            {},
            "here: no question: expected a field 'question' or .*found the fields q, answer",
        ),
        ({"question": "Q", "a": "1"}, {}, "no answer: .* found the fields question, a"),
        ({}, {}, "found the fields none"),
        ({"question": "Q", "answer": "1"}, {"question": "frage"}, "expected a field 'frage'"),
        ({"question": "", "answer": "1"}, {}, "field 'question': expected a question, got ''"),
        ({"question": 5, "answer": "1"}, {}, "expected a question, got 5"),
        ({"question": "Q", "answer": ""}, {}, "expected a gold answer, got ''"),
        ({"question": "Q", "answer": None}, {}, "expected a text or a number, got None"),
        ({"question": "Q", "answer": True}, {}, "expected a text or a number, got True"),
        ({"question": "Q", "answers": []}, {}, "expected a gold answer"),
        ({"question": "Q", "answer": "5 #### many"}, {}, "ends in '#### ' and a number"),
        ({"question": "Q", "answer": "5"}, {"format": "gsm8k"}, "ends in '#### ' and a number"),
        ({"problem": "Q", "solution": "no box"}, {}, r"expected a solution with \\boxed"),
    ],
)
def test_bad_rows_are_explained(row, options, message):
    with pytest.raises(TaskError, match=message) as caught:
        read_record(row, "here", **options)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------- rows of question answering

HOTPOTQA = {  # as FlashRAG has it
    "id": "dev_0",
    "question": "Were Scott Derrickson and Ed Wood of the same nationality?",
    "golden_answers": ["yes"],
    "metadata": {
        "type": "comparison",
        "level": "hard",
        "supporting_facts": {
            "title": ["Scott Derrickson", "Ed Wood", "Scott Derrickson"],
            "sent_id": [0, 0, 1],
        },
        "context": {"title": ["Ed Wood"], "sentences": [["Ed Wood is American."]]},
    },
}
SEARCH_R1 = {
    "id": "train_0",
    "question": "total number of death row inmates in the us?",
    "golden_answers": ["2,718"],
    "data_source": "nq",
    "prompt": [
        {
            "role": "user",
            "content": "Answer between <answer> and </answer>, as in <answer> Beijing </answer>. "
            "Question: total number of death row inmates in the us?\n",
        }
    ],
    "ability": "fact-reasoning",
    "reward_model": {"ground_truth": {"target": ["2,718"]}, "style": "rule"},
    "extra_info": {"index": 0, "split": "train"},
    "metadata": None,
}


def test_flashrag_rows():
    row = read_record(HOTPOTQA, "here")
    assert (row.id, row.answers) == ("dev_0", ("yes",))
    assert row.metadata == {
        "type": "comparison",
        "level": "hard",
        "supporting_facts": HOTPOTQA["metadata"]["supporting_facts"],
        "supporting_titles": ["Scott Derrickson", "Ed Wood"],
    }
    pairs = [["Ed Wood", 0], ["Ed Wood", 2], ["Rush", 1]]  # as HotpotQA itself has them
    row = read_record({"question": "Q", "answer": "A", "supporting_facts": pairs}, "here")
    assert row.metadata["supporting_titles"] == ["Ed Wood", "Rush"]
    row = read_record(HOTPOTQA | {"supporting_titles": ["Rush"], "source": "mine"}, "here")
    assert row.metadata["supporting_titles"] == ["Rush"]
    assert row.metadata["source"] == "mine"
    for nothing in ({}, {"metadata": None}, {"metadata": {"supporting_facts": None}}):
        row = read_record({"question": "Q", "answer": "A", "supporting_titles": []} | nothing, "h")
        assert row.metadata == {}


def test_search_r1_rows():
    row = read_record(SEARCH_R1, "here")
    assert row.question == "total number of death row inmates in the us?"
    assert (row.id, row.answers, row.metadata) == ("train_0", ("2,718",), {"data_source": "nq"})
    bare = {name: SEARCH_R1[name] for name in ("prompt", "reward_model", "data_source")}
    assert read_record(bare, "here").question == row.question
    assert read_record(bare, "here").answers == row.answers
    verl = {
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Q?"}],
        "reward_model": {"ground_truth": "A"},
    }
    assert read_record(verl, "here").question == "Q?"
    assert read_record(verl, "here").answers == ("A",)


def test_a_saved_task_keeps_its_gold_path():
    metadata = {"path": [{"page": "p1", "title": "Rush"}], "support": ["p1"], "level": 2}
    task = Task("w/test/3", "Who?", ("Neil Peart",), metadata)
    row = read_record(task.to_dict(), "here")
    assert Task(row.id, row.question, row.answers, row.metadata) == task


@pytest.mark.parametrize("titles", [5, "abc", None, [], [7]])
def test_supporting_facts_of_another_form_have_no_titles(titles):
    row = {"question": "Q", "answer": "A", "supporting_facts": {"title": titles}}
    assert "supporting_titles" not in read_record(row, "here").metadata


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": [], "reward_model": {}}, "'prompt': expected a question, got \\[\\]"),
        ({"prompt": [{"role": "user"}], "answer": "A"}, "expected a question, got \\[{'role'"),
        ({"question": "Q", "reward_model": {}}, "'golden_answers': expected a text or .* got None"),
        ({"question": "Q", "reward_model": {"ground_truth": {"target": []}}}, "a gold answer"),
        ({"question": "Q", "reward_model": "A"}, "no answer: .*found the fields question, reward"),
        (
            {"question": "Q", "answer": "A", "supporting_titles": "Rush"},
            "here: field 'supporting_titles': expected a list of texts, got 'Rush'",
        ),
        ({"question": "Q", "answer": "A", "supporting_titles": [1]}, "expected a list of texts"),
    ],
)
def test_bad_rows_of_question_answering_are_explained(row, message):
    with pytest.raises(TaskError, match=message):
        read_record(row, "here")


# ------------------------------------------------------------------------------------ JSONL


def test_one_file_is_split_by_the_question(tmp_path):
    source = JsonlTasks(write(tmp_path / "sums.jsonl", questions(300)))
    assert source.splits == ("train", "test")
    assert source.size("train") + source.size("test") == 300
    assert 15 <= source.size("test") <= 50
    task = source.task("test", 0)
    assert task.id == "sums/test/0"
    assert source.find(task.id) == task
    assert source.grading == "number"


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=60), st.randoms())
def test_splits_never_overlap_and_never_change(tmp_path, numbers, random):
    rows = [{"question": f"What is  {n} + 0?", "answer": str(n)} for n in numbers]
    one = JsonlTasks(write(tmp_path / "rows.jsonl", rows))
    random.shuffle(rows)
    two = JsonlTasks(write(tmp_path / "rows.jsonl", [*rows, *questions(5, 100)]))

    def split_of(source):
        return {t.question: s for s in source.splits for t in source.iterate(s)}

    train = {t.question for t in one.iterate("train")}
    assert not train & {t.question for t in one.iterate("test")}
    assert split_of(one).items() <= split_of(two).items(), "a new row moves no old one"


def test_a_file_for_each_split(tmp_path):
    train = write(tmp_path / "a.jsonl", questions(3))
    test = write(tmp_path / "b.jsonl", questions(2, 10))
    source = JsonlTasks({"train": train, "test": test})
    assert (source.size("train"), source.size("test")) == (3, 2)
    source = JsonlTasks({"test": test})
    assert source.splits == ("test",)
    assert source.size("test") == 2


def test_a_question_in_two_files_is_named(tmp_path):
    train = write(tmp_path / "a.jsonl", questions(5))
    again = [{"question": "WHAT is 3  + 0?", "answer": "3"}]
    test = write(tmp_path / "b.jsonl", questions(2, 10) + again)
    with pytest.raises(TaskError, match=r"overlap: task 4 of 'train' asks .* task 3 of 'test'"):
        JsonlTasks({"train": train, "test": test})


def test_ids_of_the_data_are_kept(tmp_path):
    rows = [{"id": f"q{n}", **row} for n, row in enumerate(questions(40))]
    source = JsonlTasks(write(tmp_path / "rows.jsonl", rows))
    assert source.find("q7").question == "What is 7 + 0?"
    assert {t.id for s in source.splits for t in source.iterate(s)} == {f"q{n}" for n in range(40)}
    with pytest.raises(TaskError, match="no task 'q99'"):
        source.find("q99")
    doubled = JsonlTasks(write(tmp_path / "twice.jsonl", rows + questions(1, 50)))
    assert doubled.task("train", 0).id == "twice/train/0", "not every row has an id"


def test_answers_that_are_no_numbers_are_graded_as_mathematics(tmp_path):
    rows = [*questions(3), {"question": "Solve.", "answer": "x+1"}]
    assert JsonlTasks(write(tmp_path / "rows.jsonl", rows)).grading == "math"


def test_bad_files_are_named(tmp_path):
    with pytest.raises(OVDError, match=r"missing.jsonl: cannot be read"):
        JsonlTasks(tmp_path / "missing.jsonl")
    with pytest.raises(TaskError, match=r"empty.jsonl: expected a task a line"):
        JsonlTasks(write(tmp_path / "empty.jsonl", []))
    bad = tmp_path / "bad.jsonl"
    bad.write_text("\n".join([json.dumps(row) for row in questions(16)] + ["{broken"]))
    with pytest.raises(OVDError, match=r"bad.jsonl, row 17: not valid JSON"):
        JsonlTasks(bad)
    bad.write_text("\n\n" + json.dumps({"question": "Q"}))
    with pytest.raises(
        TaskError, match=r"bad.jsonl, row 3: no answer: .* found the fields question"
    ):
        JsonlTasks(bad)
    with pytest.raises(TaskError, match="format: expected one of gsm8k, math, qa, got 'gsm9k'"):
        JsonlTasks(bad, format="gsm9k")
    with pytest.raises(TaskError, match="at least one split"):
        JsonlTasks({})


def test_real_gsm8k_and_math(shared_data):
    source = JsonlTasks(
        {
            "train": shared_data / "math" / "gsm8k_train_2000.jsonl",
            "test": shared_data / "math" / "gsm8k_test.jsonl",
        }
    )
    assert (source.size("train"), source.size("test")) == (2000, 1319)
    assert source.grading == "number"
    assert source.task("test", 0).answers == ("18",)
    solved = sum("solution" in t.metadata for t in source.iterate("train"))
    assert solved > 1800
    source = JsonlTasks(shared_data / "math" / "math500_first250.jsonl")
    assert source.size("train") + source.size("test") == 250
    assert source.grading == "math"


@pytest.mark.parametrize(
    ("name", "count", "titles"),
    [
        ("2wiki_dev_164", 164, 164),
        ("bamboogle_125", 125, 0),
        ("hotpotqa_dev_100", 100, 100),
        ("hotpotqa_train_100", 100, 100),
        ("musique_train_100", 100, 0),
        ("nq_2000", 2000, 0),
    ],
)
def test_real_question_answering(shared_data, name, count, titles):
    path = shared_data / "webqa" / f"{name}.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    source = JsonlTasks({"test": path})
    tasks = list(source.iterate("test"))
    assert len(tasks) == len(rows) == count
    for row, task in zip(rows, tasks, strict=True):
        assert task.id == row["id"]
        assert task.question == row["question"].strip()
        assert list(task.answers) == [answer.strip() for answer in row["golden_answers"]]
        assert task.metadata.get("supporting_titles") == row.get("supporting_titles")
    assert sum("supporting_titles" in task.metadata for task in tasks) == titles


# -------------------------------------------------------------------------------------- hub


@pytest.fixture
def dataset(tmp_path):
    """A dataset as a local folder, which ``datasets`` loads like one of the hub."""
    folder = tmp_path / "little-sums"
    (folder / "data").mkdir(parents=True)
    write(folder / "data" / "train.jsonl", questions(20))
    write(folder / "data" / "test.jsonl", questions(6, 17))
    os.environ.setdefault("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return str(folder)


def test_a_dataset_by_name(dataset):
    source = HubTasks(dataset)
    assert source.splits == ("train", "test")
    assert (source.size("train"), source.size("test")) == (17, 6)
    assert source.dropped == 3, "the questions that the test has too"
    assert source.task("train", 0).id == "little-sums/train/0"
    assert source.grading == "number"


def test_a_common_question_is_never_taken_from_the_test(dataset):
    """In whatever order somebody names the splits, or the dataset has them."""
    source = HubTasks(dataset, splits={"test": "test", "train": "train"})
    assert (source.size("train"), source.size("test")) == (17, 6)


def test_splits_by_other_names_and_one_alone(dataset):
    source = HubTasks(dataset, splits={"dev": "test"})
    assert (source.splits, source.size("dev")) == (("dev",), 6)
    with pytest.raises(TaskError, match=r"no split 'validation' .* it has train, test"):
        HubTasks(dataset, splits={"test": "validation"})


def test_a_dataset_that_cannot_be_loaded_is_one_line(tmp_path):
    with pytest.raises(TaskError, match="cannot be loaded") as caught:
        HubTasks(str(tmp_path / "nothing-here"))
    assert "\n" not in str(caught.value)


def test_what_is_not_there_offline_says_so(monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    for name, dataset in (
        ("flashrag:hotpotqa", "RUC-NLPIR/FlashRAG_datasets"),
        ("search-r1", "PeterJinGo/nq_hotpotqa_train"),
    ):
        with pytest.raises(TaskError, match="HF_HUB_OFFLINE is set") as caught:
            task_source(name)
        assert f"dataset '{dataset}' cannot be loaded" in str(caught.value)
        assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------- short names


def test_short_names(tmp_path, dataset):
    path = write(tmp_path / "rows.jsonl", questions(20))
    other = write(tmp_path / "others.jsonl", questions(3, 50))
    odd = write(tmp_path / "rows.txt", questions(2))
    assert task_source(path).name == "rows"
    assert task_source(str(path)).name == "rows"
    assert task_source(f"jsonl:{odd}").name == "rows"
    assert task_source(str(odd)).name == "rows"
    assert task_source(f"train={path},test={other}").size("test") == 3
    assert task_source({"test": other}).size("test") == 3
    assert task_source(f"hf:{dataset}").name == "little-sums"
    assert isinstance(task_source("arithmetic:word-1"), ArithmeticTasks)
    source = ArithmeticTasks()
    assert task_source(source) is source


@pytest.mark.parametrize(
    "spec", ["", "nonsense", "gsm8k", "train=", "arithmetic", "x:y", "flashrag", "search-r1:"]
)
def test_unknown_names_are_explained(spec):
    with pytest.raises(
        TaskError, match=r"expected FILE.jsonl, train=A.jsonl,test=B.jsonl, hf:NAME"
    ):
        task_source(spec)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("train=a.jsonl,train=b.jsonl", "expected one file for each split, split 'train' has 2"),
        ({"train": None}, "split 'train': expected a file, got None"),
        ({"train": ["a.jsonl", "b.jsonl"]}, "split 'train': expected a file, got ['a.jsonl'"),
    ],
)
def test_a_split_has_one_file(spec, told):
    with pytest.raises(TaskError, match=re.escape(told)):
        task_source(spec)


def test_rows_are_not_shared_with_the_tasks_that_are_given_out(tmp_path):
    source = JsonlTasks({"test": write(tmp_path / "rows.jsonl", [GSM8K])})
    task: Task = source.task("test", 0)
    task.metadata["solution"] = "changed"
    assert source.task("test", 0).metadata["solution"] == ["48/2 = 24", "48+24 = 72"]


# --------------------------------------------------------------- one source for many environments


@pytest.fixture
def settled(monkeypatch):
    """Files count as settled at once: no test waits for two seconds."""
    monkeypatch.setattr(sources, "_SETTLED", 0)


def test_a_rollouts_environments_read_their_tasks_once(tmp_path, settled, monkeypatch):
    reads = []
    read = record_tasks.read_jsonl_numbered
    monkeypatch.setattr(
        record_tasks, "read_jsonl_numbered", lambda path: reads.append(path) or read(path)
    )
    path = str(write(tmp_path / "rows.jsonl", questions(20)))
    for _ in range(64):
        ovd_envs.make("ovd/Math-v0", source=path)
    assert reads == [path]
    assert task_source(path) is not task_source(path), "who asks for a source gets his own"


def test_a_changed_file_is_seen(tmp_path, settled):
    path = write(tmp_path / "rows.jsonl", questions(20, 10))
    specs = [path, str(path), f"jsonl:{path}", {"train": path}, f"train={path}"]
    before = [shared_source(spec) for spec in specs]
    assert all(shared_source(spec) is source for spec, source in zip(specs, before, strict=True))
    old = path.stat()
    write(path, questions(20, 40))
    os.utime(path, ns=(old.st_mtime_ns, old.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_ino) == (old.st_size, old.st_ino)
    for spec, source in zip(specs, before, strict=True):
        after = shared_source(spec)
        assert after is not source
        assert int(after.task("train", 0).answers[0]) >= 40
    path.unlink()
    for spec in specs:
        with pytest.raises(OVDError, match=r"rows.jsonl: cannot be read"):
            shared_source(spec)


def test_a_file_that_has_just_changed_is_not_trusted(tmp_path):
    path = write(tmp_path / "rows.jsonl", questions(20))
    assert shared_source(path) is not shared_source(path)


def test_a_bad_file_that_was_mended_is_seen(tmp_path, settled):
    path = write(tmp_path / "rows.jsonl", [{"question": "no answer"}])
    with pytest.raises(OVDError, match="row 1"):
        shared_source(path)
    write(path, questions(20))
    assert shared_source(path).size("train") > 0


def test_the_same_name_in_another_folder_is_another_file(tmp_path, settled, monkeypatch):
    for number, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "rows.jsonl", questions(20, 20 * number))
    monkeypatch.chdir(tmp_path / "a")
    first = shared_source("rows.jsonl")
    monkeypatch.chdir(tmp_path / "b")
    assert shared_source("rows.jsonl").task("train", 0) != first.task("train", 0)


def test_a_changed_folder_of_a_dataset_is_seen(dataset, settled):
    spec = f"hf:{dataset}"
    source = shared_source(spec)
    assert shared_source(spec) is source
    file = next(path for path in sorted(Path(dataset).rglob("*")) if path.is_file())
    os.utime(file)
    assert shared_source(spec) is not source


def test_what_comes_from_no_file_is_shared_too():
    assert shared_source("arithmetic:word-1") is shared_source("arithmetic:word-1")
    assert shared_source("arithmetic:word-1") is not shared_source("arithmetic:word-2")
    source = ArithmeticTasks()
    assert shared_source(source) is source
    with pytest.raises(TaskError, match="task source 'nonsense'"):
        shared_source("nonsense")
