"""Questions: one answer each, found by walking pages; not told, not guessed, in one split only."""

import json
import re
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovd_envs.errors import OVDError, TaskError
from ovd_envs.stable import Draw
from ovd_envs.task import Task
from ovd_envs.web.extract import extract
from ovd_envs.world import FORMS, RELATIONS, Ref, WorldTasks, kinds_of
from ovd_envs.world.facts import KINDS
from ovd_envs.world.questions import draw_question, form_of, hops_of
from ovd_envs.world.wordings import ASK, CALLED, COMPARE, NOUN, SAME

EVERY_KIND = [kind for hops in (1, 2, 3, 4) for kind in kinds_of(hops)]


@pytest.fixture(scope="module")
def source():
    return WorldTasks([1, 2, 3, 4])


def tasks_of(kind, split="test", count=4, **options):
    source = WorldTasks(hops_of(kind), kinds=kind, **options)
    return source.world(split), [source.task(split, index) for index in range(count)]


def test_kinds_and_wordings_are_complete():
    assert [len(kinds_of(hops)) for hops in (1, 2, 3, 4)] == [26, 74, 112, 221]
    assert len(set(EVERY_KIND)) == len(EVERY_KIND)
    assert set(ASK) == set(RELATIONS)
    assert set(NOUN) == {name for name, r in RELATIONS.items() if r.to is not None}
    assert set(CALLED) == set(KINDS)
    for wordings in (*ASK.values(), *NOUN.values(), *CALLED.values()):
        assert all(wording.count("{}") == 1 for wording in wordings)
    for wordings in (*SAME.values(), *(w for both in COMPARE.values() for w in both)):
        assert all(wording.count("{}") == 2 for wording in wordings)
    assert all(len(wordings) >= 2 for table in (ASK, NOUN, SAME) for wordings in table.values())


@pytest.mark.parametrize("hops", [1, 2, 3, 4])
def test_the_gold_path_walks(hops):
    source = WorldTasks(hops)
    world = source.world("test")
    seen = set()
    for index in range(1500):
        task = source.task("test", index)
        meta = task.metadata
        kind = meta["kind"]
        seen.add(kind)
        path = meta["path"]
        assert meta["hops"] == len(path) == hops_of(kind)
        assert meta["support"] == list(dict.fromkeys(step["page"] for step in path))
        assert meta["supporting_titles"] == [world.document(id).title for id in meta["support"]]
        assert not set(meta["support"]) & set(meta["distractors"])
        for step in path:
            document = world.document(step["page"])
            assert step["title"] == step["subject"] == document.title
            assert step["subject"] in document.text
            assert step["value"] in document.text
        if form_of(kind) == "chain":
            assert kind == ">".join(step["relation"] for step in path)
            for step, following in pairwise(path):
                assert following["subject"] == step["value"]
            assert task.answers == (path[-1]["value"],)
    assert seen == set(kinds_of(hops))


@pytest.mark.parametrize("hops", [1, 2, 3, 4])
def test_the_path_walks_in_the_pages_as_html(hops):
    source = WorldTasks(hops, seed=1)
    for task in source.distinct("train", 40):
        for step in task.metadata["path"]:
            text = extract(source.world("train").page(step["page"])).text
            assert step["value"] in text
            assert step["subject"] in text


@pytest.mark.parametrize("hops", [1, 2, 3, 4])
def test_a_question_names_its_first_entity_and_nothing_else(hops):
    source = WorldTasks(hops, kinds="chain")
    world = source.world("test")
    names = [world.name(page.ref) for page in world.page_keys() if page.type == "entity"]
    any_name = re.compile(rf"\b(?:{'|'.join(names)})\b")
    for task in source.distinct("test", 200):
        named = any_name.findall(task.question)
        assert named == [task.metadata["path"][0]["subject"]]
        assert task.answers[0].lower() not in task.question.lower()
        assert "{" not in task.question


@pytest.mark.parametrize("hops", [1, 2, 3, 4])
def test_no_step_comes_back_to_where_it_was(hops):
    for task in WorldTasks(hops, kinds="chain").distinct("train", 300):
        visited = [step["page"] for step in task.metadata["path"]]
        assert len(set(visited)) == hops
        subjects = {step["subject"] for step in task.metadata["path"]}
        assert task.answers[0] not in subjects


def test_the_answer_is_the_only_one():
    # Walked anew from the texts of titles alone, by way of every page that has that title.
    source = WorldTasks([1, 2, 3, 4], kinds="chain", people=100)
    world = source.world("train")
    by_name = {}
    for page in world.page_keys():
        if page.type == "entity":
            by_name.setdefault(world.name(page.ref), []).append(page.ref)
    for task in source.distinct("train", 300):
        reached = {task.metadata["path"][0]["subject"]}
        for relation in task.metadata["kind"].split(">"):
            reached = {
                world.text(world.facts(ref)[relation])
                for name in reached
                for ref in by_name[name]
                if relation in world.facts(ref)
            }
        assert reached == set(task.answers)


EARLIER = ("earlier", "older")


@pytest.mark.parametrize("relation", COMPARE)
def test_comparisons_are_right_and_either_answer_is_as_frequent(relation):
    _, tasks = tasks_of(f"compare:{relation}", count=300)
    first_named = smaller_asked = 0
    for task in tasks:
        one, other = task.metadata["path"]
        years = {step["subject"]: int(step["value"]) for step in (one, other)}
        assert len(set(years.values())) == 2
        pick = min if any(word in task.question for word in EARLIER) else max
        assert task.answers == (pick(years, key=years.get),)
        assert task.question.index(one["subject"]) < task.question.index(other["subject"])
        first_named += task.answers[0] == one["subject"]
        smaller_asked += pick is min
    assert 105 < first_named < 195
    assert 105 < smaller_asked < 195


@pytest.mark.parametrize("people", [50, 400])
@pytest.mark.parametrize("relation", SAME)
def test_yes_and_no_are_right_and_equally_frequent(relation, people):
    _, tasks = tasks_of(f"same:{relation}", count=300, people=people)
    for task in tasks:
        one, other = task.metadata["path"]
        assert one["page"] != other["page"]
        assert task.answers == ("yes" if one["value"] == other["value"] else "no",)
    assert 105 < Counter(task.answers[0] for task in tasks)["yes"] < 195


@pytest.mark.parametrize("split", ["train", "test"])
def test_no_constant_answer_is_often_right(split):
    # Exact: every question of one hop is asked once.
    world = WorldTasks().world(split)
    for relation in RELATIONS.values():
        facts = [world.facts(Ref(relation.of, i)) for i in range(world.counts[relation.of])]
        answers = Counter(world.text(f[relation.name]) for f in facts if relation.name in f)
        assert answers.most_common(1)[0][1] <= 0.13 * answers.total(), relation


@pytest.mark.parametrize("hops", [2, 3, 4])
def test_no_constant_answer_is_often_right_after_some_hops(hops):
    source = WorldTasks(hops, kinds="chain")
    answers = {}
    for index in range(4000):
        task = source.task("test", index)
        last = task.metadata["path"][-1]["relation"]
        answers.setdefault(last, Counter())[task.answers[0]] += 1
    for relation, counts in answers.items():
        assert counts.most_common(1)[0][1] <= 0.15 * counts.total(), relation


def test_the_splits_share_no_question_and_no_name(source):
    train, test = (
        {source.task(split, index).question for index in range(1000)} for split in source.splits
    )
    assert not train & test
    names = []
    for split in source.splits:
        world = source.world(split)
        refs = [page.ref for page in world.page_keys() if page.type == "entity"]
        names.append({word for ref in refs for word in world.name(ref).split()})
    assert not names[0] & names[1]


def test_ids_lead_back_to_their_tasks(source):
    for split in source.splits:
        for index in (0, 1, 17, 2**31 - 1, 10**15):
            task = source.task(split, index)
            assert source.find(task.id) == task
            assert Task.from_dict(json.loads(json.dumps(task.to_dict()))) == task
    assert source.draw("train", np.random.default_rng(0)).question
    assert source.size("train") is None


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.integers(50, 500),
    st.integers(-5, 5),
    st.sets(st.sampled_from(FORMS)),
    st.integers(0, 10**6),
)
@settings(max_examples=40, deadline=None)
def test_every_setting_has_questions_and_a_name_of_its_own(hops, people, seed, forms, index):
    kinds = sorted({*forms, "chain"}) if forms else None
    source = WorldTasks(hops, kinds=kinds, people=people, seed=seed)
    task = source.task("test", index)
    assert task.metadata["hops"] in hops
    assert task.id.startswith(source.name)
    again = WorldTasks(sorted(set(hops)), kinds=kinds, people=people, seed=seed)
    assert again.name == source.name
    assert again.task("test", index) == task


def test_names_say_every_argument():
    assert WorldTasks().name == "world-v1-1hop-400people-seed0"
    assert WorldTasks([2, 1], kinds="chain").name == "world-v1-1+2hop-400people-seed0-chain"
    assert WorldTasks(3, kinds="chain").name == WorldTasks(3).name
    assert WorldTasks(2, kinds=("same", "chain")).name.endswith("-chain+same")
    assert WorldTasks(2, kinds=list(kinds_of(2))).name == WorldTasks(2).name
    two = WorldTasks([1, 2], kinds=["birthplace>river", "hobby"], people=60, seed=4)
    assert two.name == "world-v1-1+2hop-60people-seed4-hobby+birthplace>river"
    assert WorldTasks(2, kinds=["compare:since"]).kinds == ("compare:since",)


def test_hops_and_kinds_are_equally_frequent():
    source = WorldTasks([1, 4])
    tasks = [source.task("train", index) for index in range(2000)]
    hops = Counter(task.metadata["hops"] for task in tasks)
    assert 900 < hops[1] < 1100
    kinds = Counter(task.metadata["kind"] for task in tasks if task.metadata["hops"] == 1)
    assert len(kinds) == 26
    assert min(kinds.values()) > 15


def test_distractors_are_easily_taken_for_the_support():
    source = WorldTasks(1, kinds="employer")
    world = source.world("train")
    sorts = Counter()
    for task in source.distinct("train", 200):
        subject = task.metadata["path"][0]["subject"]
        for id in task.metadata["distractors"]:
            sorts[id.rpartition("-")[0]] += 1
            text = world.document(id).title
            first, last = subject.split()
            assert subject in text or last in text or text.startswith(first)
    assert set(sorts) == {"person", "archive-person", "name"}


_PRINT = (
    "import hashlib\n"
    "from ovd_envs.world import WorldTasks\n"
    "source = WorldTasks([1, 2, 3, 4], seed=9)\n"
    "tasks = [source.task(s, i).to_dict() for s in ('train', 'test') for i in range(500)]\n"
    "print(hashlib.sha256(repr(tasks).encode()).hexdigest())\n"
)
DIGEST = "a4d221afa3794b8ccbb65b392bb88f9a8bf88d7d3392bfe3069921c3c247c244"


@pytest.mark.parametrize("hash_seed", ["0", "12345"])
def test_the_same_tasks_in_every_process(hash_seed):
    # Tasks that differ from the recorded ones need a new GENERATION.
    done = subprocess.run(
        [sys.executable, "-c", _PRINT],
        env={"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == DIGEST


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hops": 0}, "hops: expected a whole number from 1 to 4, or a list of some, got 0"),
        ({"hops": 5}, "hops: expected a whole number from 1 to 4, or a list of some, got 5"),
        ({"hops": [1, 9]}, "hops: expected a whole number from 1 to 4, or a list of some, got"),
        ({"hops": []}, "hops: expected a whole number from 1 to 4, or a list of some, got"),
        ({"hops": True}, "hops: expected a whole number from 1 to 4, or a list of some, got"),
        ({"hops": "2"}, "hops: expected a whole number from 1 to 4, or a list of some, got"),
        ({"hops": 1.0}, "hops: expected a whole number from 1 to 4, or a list of some, got"),
        ({"kinds": "birthplac"}, "no kind of question 'birthplac'; did you mean 'birthplace'?"),
        ({"kinds": "qqq"}, "kinds: no kind of question 'qqq'"),
        ({"kinds": "birthplace>river"}, "kinds: 'birthplace>river' takes hops=2, got hops=1"),
        ({"kinds": "same"}, "kinds: none of same takes hops=1"),
        ({"hops": [1, 2], "kinds": "hobby"}, "kinds: none of hobby takes hops=2"),
        ({"kinds": []}, "kinds: expected the name of a kind, or a list of some, got []"),
        ({"kinds": 5}, "kinds: expected the name of a kind, or a list of some, got 5"),
        ({"kinds": [5]}, "kinds: expected the name of a kind, or a list of some, got [5]"),
        ({"people": 3}, "people: expected at least 50, got 3"),
        ({"seed": "x"}, "seed: expected a whole number, got 'x'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(OVDError) as error:
        WorldTasks(**options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_tasks_are_named(source):
    with pytest.raises(TaskError, match="split"):
        source.task("dev", 0)
    with pytest.raises(TaskError, match="no task -1"):
        source.task("test", -1)
    with pytest.raises(TaskError, match="no task"):
        source.find("world-v1-1hop-400people-seed0/test/0")


def test_a_question_that_would_tell_its_answer_is_not_asked(monkeypatch):
    world = WorldTasks().world("train")
    hobbies = world.values["hobby"]
    leading = tuple(f"Is {hobby.upper()} what {{}} likes as a hobby?" for hobby in hobbies)
    monkeypatch.setitem(ASK, "hobby", leading)
    for number in range(300):
        question = draw_question(world, "hobby", Draw(f"leading {number}"))
        assert question.answer.lower() not in question.text.lower()


def test_sources_of_one_world_share_it():
    one, other = WorldTasks(1), WorldTasks([2, 3], kinds="chain")
    assert one.world("train") is other.world("train")
    assert one.world("train") is not one.world("test")
    assert one.world("train") is not WorldTasks(1, seed=1).world("train")
    for options in ({"people": 400.0}, {"seed": False}):
        with pytest.raises(OVDError, match="expected a whole number"):
            WorldTasks(1, **options)
