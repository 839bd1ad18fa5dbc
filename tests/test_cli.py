"""The command line as a user meets it: help, exit codes, errors, foreign packages."""

import base64
import hashlib
import json
import os
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import typer

import ovd
from ovd_envs import OVDError
from training import cli

ROOT = Path(__file__).resolve().parent.parent
#: What `ovd --help` and `ovd envs` must not import.
HEAVY = ("torch", "transformers", "peft", "sympy", "math_verify", "datasets", "reasoning_gym")


def start(*arguments, path=(), **options):
    """`ovd` in a process of its own, with folders before all others on Python's path."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "80",
    }
    return subprocess.run(
        [sys.executable, "-P", "-c", "import ovd; ovd.main()", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


@pytest.fixture
def run(capsys):
    """`ovd` in this process; gives its exit code and what it printed."""

    def call(*arguments):
        with pytest.raises(SystemExit) as stop:
            cli.main([str(argument) for argument in arguments])
        return stop.value.code, capsys.readouterr()

    return call


@pytest.fixture
def command_that_raises(monkeypatch):
    """Adds `ovd fail`, which raises the given exception."""

    def add(error):
        build = cli.build_app

        def build_with_fail():
            app = build()

            @app.command()
            def fail() -> None:
                raise error

            return app

        monkeypatch.setattr(cli, "build_app", build_with_fail)

    return add


def commands():
    return typer.main.get_command(cli.build_app()).commands


def test_help_lists_the_commands_in_the_order_of_a_first_hour(run):
    code, printed = run("--help")
    assert code == 0
    places = [printed.out.find(f"│ {name} ") for name in cli.ORDER]
    assert -1 not in places
    assert places == sorted(places)


@pytest.mark.parametrize("name", cli.ORDER)
def test_every_command_explains_itself_with_an_example(run, name):
    code, printed = run(name, "--help")
    assert code == 0
    assert f"ovd {name}" in printed.out.split("Example")[1]


@pytest.mark.parametrize("name", sorted(set(cli.ORDER) - {"play", "serve-search"}))
def test_what_lists_or_measures_has_json(name):
    assert "--json" in {option for p in commands()[name].params for option in p.opts}


def test_version(run):
    assert run("--version")[1].out == f"ovd {metadata.version('ovd')}\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["no-such-command"], "No such command 'no-such-command'. (see `ovd --help`)"),
        (["check"], "Missing argument"),
        (["play"], "ENV: expected the name of an environment, see `ovd envs`"),
        (["play", "ovd/Math-v0", "--sed", "1"], "(see `ovd play --help`)"),
        (["play", "ovd/Math-v0", "--seed", "x"], "'--seed'"),
        (["play", "ovd/Moth-v0"], "did you mean 'ovd/Math-v0'?"),
        (["play", "ovd/Math-v0", "-e", "level=addition]"], "addition]"),
        (["run", "ovd/Math-v0", "-s", "no-such-model", "-o", "{tmp}/out"], "'no-such-model'"),
        (["run", "ovd/Math-v0", "-s", "x", "-o", "{tmp}/out", "--tasks", "{tmp}/t"], "/t"),
        (["run", "ovd/Math-v0", "-s", "x", "-o", "/proc/no/out"], "/proc/no/out"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, tmp_path, monkeypatch, arguments, expected):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, printed = run(*(argument.replace("{tmp}", str(tmp_path)) for argument in arguments))
    assert code == 2
    assert printed.out == ""
    last = printed.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert expected in last
    assert "Traceback" not in printed.err


def test_an_error_is_one_line_whatever_it_quotes(run, command_that_raises):
    command_that_raises(OVDError("f.jsonl, row 17: got 'a\nb'\x1b[2J\u202e [bold]"))
    code, printed = run("fail")
    assert code == 2
    assert printed.err == "error: f.jsonl, row 17: got 'a b'\\x1b[2J\\u202e [bold]\n"


def test_ctrl_c_says_what_is_saved(run, command_that_raises):
    command_that_raises(KeyboardInterrupt("stopped: 3 of 5 are in f.jsonl"))
    code, printed = run("fail")
    assert (code, printed.err) == (130, "stopped: 3 of 5 are in f.jsonl\n")


def test_ctrl_c_without_a_word_is_a_line_all_the_same(run, command_that_raises):
    command_that_raises(KeyboardInterrupt())
    code, printed = run("fail")
    assert (code, printed.err) == (130, "interrupted\n")


def test_a_bug_keeps_its_traceback(command_that_raises):
    command_that_raises(ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        cli.main(["fail"])


def test_a_reader_that_leaves_is_no_error():
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", "import ovd; ovd.main()", "run", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 1
    process.stderr.close()


@pytest.mark.parametrize("arguments", [["--help"], ["envs"]])
def test_starts_fast_and_imports_nothing_heavy(arguments):
    code = (
        "import sys, ovd\n"
        "try: ovd.main()\n"
        f"finally: print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    )
    seconds = []
    for _ in range(3):
        # Processor time: other processes may share the machine, and waiting for them is not ours.
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
        assert done.stderr == "[]\n"
    assert min(seconds) < 1.0


def shadow(folder, package):
    (folder / package).mkdir()
    (folder / package / "__init__.py").write_text("raise RuntimeError('imported')\n")


@pytest.mark.parametrize("package", ovd.PACKAGES)
@pytest.mark.parametrize("arguments", [["envs"], ["doctor"]])
def test_a_foreign_package_is_named_and_never_imported(tmp_path, package, arguments):
    shadow(tmp_path, package)
    done = start(*arguments, path=[tmp_path])
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith(f"error: package '{package}' is not ovd's: Python finds {tmp_path}")
    assert f"take {tmp_path} off PYTHONPATH" in line


def test_the_doctor_tells_of_a_foreign_package_in_json_too(tmp_path):
    shadow(tmp_path, "agents")
    done = start("doctor", "--json", path=[tmp_path])
    report = json.loads(done.stdout)
    assert done.returncode == 2
    assert report["ok"] is False
    assert [(c["name"], c["status"]) for c in report["checks"]] == [("packages", "fail")]


@pytest.fixture
def site(tmp_path):
    """A folder of installed packages with ovd in it, as pip would leave it (not editable)."""
    (tmp_path / "ovd.py").write_bytes((ROOT / "ovd.py").read_bytes())
    record = []
    for package in ovd.PACKAGES:
        (tmp_path / package).mkdir()
        content = f"# {package}\n".encode()
        (tmp_path / package / "__init__.py").write_bytes(content)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record.append(f"{package}/__init__.py,sha256={digest},{len(content)}")
    distribution(tmp_path, "ovd", record)
    return tmp_path


def distribution(site, name, record):
    folder = site / f"{name.replace('-', '_')}-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (folder / "RECORD").write_text("\n".join(record) + "\n")


def test_an_installation_of_our_own_is_in_order(site):
    done = subprocess.run(
        [sys.executable, "-P", "-c", "import ovd; print(ovd.shadowed_packages())"],
        env={**os.environ, "PYTHONPATH": str(site)},
        cwd=site,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_a_distribution_that_overwrote_our_files_is_named(site):
    # Both were installed into the same folder: the path is ours, the content is not.
    (site / "agents" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    distribution(site, "openai-agents", ["agents/__init__.py,,", "agents/run.py,,"])
    done = start("envs", path=[site])
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "package 'agents' is not ovd's" in line
    assert "of openai-agents" in line
    assert "pip uninstall openai-agents" in line
