"""``ovd fetch``: pages and files, for people and as JSON; refusals in one line."""

import gzip
import json
from types import SimpleNamespace

import pytest

from tests.ovd_envs.web.servers import PAGE, reply
from training.cli import main


@pytest.fixture
def ovd(capsys):
    """``ovd fetch`` in this process."""

    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            main(["fetch", *map(str, arguments)])
        shown = capsys.readouterr()
        return SimpleNamespace(returncode=left.value.code, stdout=shown.out, stderr=shown.err)

    return run


def test_a_page_as_json(serve, ovd):
    server = serve(reply(PAGE, type="text/html; charset=utf-8"))
    done = ovd(server.url(), "--allow", "localhost", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "url": server.url(),
        "title": "A page",
        "text": "Some words that are here.",
        "status": 200,
        "content_type": "text/html; charset=utf-8",
        "encoding": "utf-8",
        "how": "trafilatura",
        "from_cache": False,
    }


def test_a_page_for_people_is_not_markup(serve, ovd):
    body = (
        "<title>[bold]T[/bold]</title><p>Text [red]in brackets[/red] \x1b[31m stays [/] as it is."
    )
    done = ovd(serve(reply(body)).url(), "--allow", "localhost")
    assert done.returncode == 0, done.stderr
    assert "[bold]T[/bold]" in done.stdout
    assert "Text [red]in brackets[/red] [31m stays [/] as it is." in " ".join(done.stdout.split())
    assert "\x1b[31m" not in done.stdout


@pytest.mark.parametrize("name", ["page.html", "page.htm", "page", "page.html.gz"])
def test_a_file(name, tmp_path, ovd):
    data = PAGE.encode("utf-16") if name == "page.htm" else PAGE.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    page = json.loads(ovd(tmp_path / name, "--json").stdout)
    assert (page["title"], page["text"]) == ("A page", "Some words that are here.")
    assert page["url"] == str(tmp_path / name)


def test_a_kept_page(serve, tmp_path, ovd):
    server = serve(reply(PAGE))
    for kept in (False, True):
        done = ovd(server.url(), "--allow", "localhost", "--cache", tmp_path, "--json")
        assert json.loads(done.stdout)["from_cache"] is kept
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("http://127.0.0.1/", "refused: private address"),
        ("http://localhost/", "refused: the name of a local machine; --allow localhost reads it"),
        ("ftp://example.com/", "refused: only http and https are read, not ftp"),
        ("http://user:pw@example.com/", "refused: a user name or password in the address"),
        ("missing.html", "no such file, and not an address (http://...)"),
        ("missing", "no such file, and not an address (http://...)"),
    ],
)
def test_a_refusal_is_one_line_and_code_2(source, reason, tmp_path, ovd):
    done = ovd(source)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {source}: ")
    assert reason in done.stderr


@pytest.mark.parametrize(
    ("name", "body", "reason"),
    [
        ("a.pdf", b"%PDF-1.7", "not text: PDF"),
        ("a.html", b"", "no text"),
        ("a.html", b"<html><script>x</script>", "no text"),
        ("a.gz", b"no gzip", "cannot be decoded: broken gzip"),
    ],
)
def test_a_file_without_text(name, body, reason, tmp_path, ovd):
    (tmp_path / name).write_bytes(body)
    done = ovd(tmp_path / name)
    assert done.returncode == 2
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_and_a_large_file(tmp_path, ovd):
    assert "cannot be read (it is a folder)" in ovd(tmp_path).stderr
    with (tmp_path / "large.html").open("wb") as file:
        file.truncate(10_000_001)
    assert "too large: more than 10 MB" in ovd(tmp_path / "large.html").stderr
    (tmp_path / "bomb.html.gz").write_bytes(gzip.compress(bytes(11_000_000)))
    assert "too large: more than 10 MB" in ovd(tmp_path / "bomb.html.gz").stderr


def test_help_has_an_example(ovd):
    done = ovd("--help")
    assert done.returncode == 0
    assert "Example: ovd fetch https://" in " ".join(done.stdout.split())
