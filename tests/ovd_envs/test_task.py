from __future__ import annotations

import numpy as np
import pytest

from ovd_envs import ListTasks, Task, TaskError, TaskSource


class Colours(TaskSource):
    """An unlimited source of three questions."""

    name = "colours"
    splits = ("train",)

    def size(self, split):
        self._check(split)

    def task(self, split, index):
        self._check(split, index)
        return Task(f"colours/{split}/{index}", f"Colour {index % 3}?", ("red",))


def test_a_task_as_json_and_back():
    task = Task("a", "Why?", ("x", "y"), {"level": 1})
    assert Task.from_dict(task.to_dict()) == task
    with pytest.raises(TaskError, match="misses 'answers', has id, question"):
        Task.from_dict({"id": "a", "question": "Why?"})


def test_distinct_tasks():
    assert [t.question for t in Colours().distinct("train", 3)] == [
        "Colour 0?",
        "Colour 1?",
        "Colour 2?",
    ]
    assert Colours().distinct("train", 2, start=2)[0].id == "colours/train/2"
    assert Colours().distinct("train", 0) == []
    with pytest.raises(TaskError, match="4 distinct tasks asked for, 3 found"):
        Colours().distinct("train", 4)


def test_distinct_tasks_of_a_finite_source():
    tasks = [Task(str(n), f"Question {n // 2}?", ("a",)) for n in range(6)]
    source = ListTasks("pairs", train=tasks)
    assert [t.id for t in source.distinct("train", 3)] == ["0", "2", "4"]
    with pytest.raises(TaskError, match="2 found from index 3 on"):
        source.distinct("train", 4, start=3)


def test_find():
    assert Colours().find("colours/train/5").id == "colours/train/5"
    for wrong in ("colours/test/1", "colours/train/x", "colours/train/-1", "flowers/train/1", ""):
        with pytest.raises(TaskError):
            Colours().find(wrong)


def test_draw_reaches_every_task_and_refuses_an_empty_split():
    source = ListTasks("few", train=[Task(str(n), f"{n}?", ("a",)) for n in range(3)], test=[])
    rng = np.random.default_rng(0)
    assert {source.draw("train", rng).id for _ in range(100)} == {"0", "1", "2"}
    with pytest.raises(TaskError, match="no tasks in split 'test'"):
        source.draw("test", rng)


@pytest.mark.parametrize("index", [-1, 3])
def test_an_index_out_of_range(index):
    source = ListTasks("few", train=[Task(str(n), f"{n}?", ("a",)) for n in range(3)])
    with pytest.raises(TaskError, match=f"no task {index}"):
        source.task("train", index)


def test_lists_with_one_id_twice_or_one_question_in_two_splits_are_refused():
    one, two = Task("1", "What is  it?", ("a",)), Task("2", "What is it?", ("a",))
    with pytest.raises(TaskError, match="'1' comes twice"):
        ListTasks("bad", train=[one, one])
    with pytest.raises(TaskError, match="'train' and 'test' overlap"):
        ListTasks("bad", train=[one], test=[two])
