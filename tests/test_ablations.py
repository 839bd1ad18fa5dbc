"""The table of docs/learning.md says what the committed runs say."""

import json
from pathlib import Path
from statistics import fmean

import pytest

from benchmarks.ablations import RESULTS, VARIANTS, reached, read, spread, summary

DOCS = Path(__file__).parents[1] / "docs" / "learning.md"


#: The accuracy in the last column of each table, in their order.
TARGETS = {"math": 0.65, "world": 0.4}
SEEDS = {"math": [0, 1, 2], "world": [0, 1, 2]}


def tables():
    """For each recipe the rows of its table, by what was changed."""
    found: list[dict[str, list[str]]] = []
    for row in DOCS.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        if row.startswith("| Changed |"):
            found.append({})
            target = list(TARGETS.values())[len(found) - 1]
            assert cells[4] == f"Steps, episodes to {100 * target:.0f} %"
        elif row.startswith("|") and found and len(cells) == 5:
            found[-1][cells[0]] = cells
    return dict(zip(TARGETS, found, strict=True))


@pytest.mark.parametrize("recipe", TARGETS)
def test_every_variant_was_run_on_all_seeds(recipe):
    seeds: dict[str, list[int]] = {}
    for row in read(RESULTS):
        if row["recipe"] == recipe:
            seeds.setdefault(row["variant"], []).append(row["seed"])
    assert {name: sorted(found) for name, found in seeds.items()} == dict.fromkeys(
        VARIANTS[recipe], SEEDS[recipe]
    )


@pytest.mark.parametrize("recipe", TARGETS)
def test_the_table_in_the_docs_is_what_the_runs_came_to(recipe):
    rows = tables()[recipe]
    for line in summary(read(RESULTS), recipe, TARGETS[recipe]):
        cells = rows["the recipe" if line["variant"] == "recipe" else f"`{line['variant']}`"]
        assert cells[1] == ", ".join(f"{100 * a:.1f}" for a in line["accuracies"].values())
        assert cells[3] == f"{line['teacher_episodes']:.0f}"
        came = [reached for reached in line["target_reached"].values() if reached]
        steps, spent = (fmean(column) for column in zip(*came, strict=True)) if came else (0, 0)
        assert cells[4] == (f"{steps:.1f}, {spent:.0f}" if came else "never")
        if "difference" in line:
            mean, (low, high) = line["difference"]["mean"], line["difference"]["interval"]
            assert cells[2] == f"{100 * mean:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def test_the_scores_of_the_recipes_students_are_those_in_the_docs():
    text = DOCS.read_text(encoding="utf-8")
    [scores] = [
        line["scores"]
        for line in summary(read(RESULTS), "math", TARGETS["math"])
        if line["variant"] == "recipe"
    ]
    assert f"of the {sum(scores.values()):,} episodes" in text
    assert f"{scores['4']} scored 4 and one scored" in text
    assert scores["6"] == 1
    assert set(scores) - {"4", "6"} == {"0", "1", "2", "3", "8", "9"}


def test_the_turns_that_suffix_kept_are_those_in_the_docs():
    text = DOCS.read_text(encoding="utf-8")
    [suffix] = [
        line
        for line in summary(read(RESULTS), "world", TARGETS["world"])
        if line["variant"] == "replace: suffix"
    ]
    runs = [row for row in read(RESULTS) if row["variant"] == "replace: suffix"]
    kept = [row["kept_turns"] for row in runs]
    assert f"{kept[0]}, {kept[1]} and {kept[2]} turns were the student's own" in text
    assert suffix["kept_turns"] == fmean(kept)


def test_a_target_is_reached_on_the_line_between_two_evaluations():
    curve = [
        {"step": 0, "accuracy": 0.0, "teacher_episodes": 0},
        {"step": 4, "accuracy": 0.4, "teacher_episodes": 100},
        {"step": 8, "accuracy": 0.8, "teacher_episodes": 160},
    ]
    assert reached(curve, 0.6) == (6.0, 130.0)
    assert reached(curve, 0.9) is None


def test_the_interval_over_three_seeds_is_students():
    assert spread([0.70, 0.72, 0.74]) == {
        "mean": 0.72,
        "interval": pytest.approx([0.6703, 0.7697], abs=1e-4),
    }
    assert spread([0.5])["interval"] is None


def test_a_run_that_is_there_is_not_run_again(tmp_path):
    from argparse import Namespace

    from benchmarks.ablations import missing

    results = tmp_path / "results.jsonl"
    results.write_text(json.dumps({"recipe": "world", "variant": "recipe", "seed": 1}) + "\n")
    options = Namespace(recipe=["world"], seeds=[0, 1], variants=None, results=results)
    assert missing(options) == [
        ("world", "recipe", 0),
        ("world", "replace: suffix", 0),
        ("world", "replace: suffix", 1),
    ]
