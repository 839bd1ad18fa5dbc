"""Pages as HTML: every fact can be read off them, every link leads somewhere."""

import re
from collections import Counter
from urllib.parse import urljoin

import pytest
from bs4 import BeautifulSoup

from ovd_envs.errors import OVDError
from ovd_envs.web.extract import extract
from ovd_envs.world import PageKey, Ref, World


@pytest.fixture(scope="module")
def world():
    return World(2, people=120)


def test_every_fact_is_in_the_main_text(world):
    for page in world.page_keys():
        found = extract(world.page(page.id))
        assert found.title == world.title(page)
        assert " ".join(world.sentences(page)) in found.text
        assert "Log in" not in found.text
        assert "Cookie" not in found.text


def test_the_box_tells_the_facts_of_the_page(world):
    for page in world.page_keys():
        if page.type == "name":
            continue
        box = BeautifulSoup(world.page(page.id), "html.parser").find("table", class_="infobox")
        told = {row.th.text: row.td.text for row in box.find_all("tr")}
        facts = world.told(page)
        assert len(told) == len(facts) + (world.former_name(page.ref) is not None)
        for fact in facts.values():
            assert any(value.startswith(world.text(fact)) for value in told.values())


def test_every_page_is_reached_by_links_and_every_link_leads_to_a_page(world):
    found, waiting = {"/"}, ["/"]
    while waiting:
        path = waiting.pop()
        html = world.html(path)
        assert html is not None, path
        for link in BeautifulSoup(html, "html.parser").find_all("a"):
            target = urljoin(path, link["href"])
            if target not in found:
                found.add(target)
                waiting.append(target)
    assert found >= set(world.paths)


def test_links_carry_the_names_of_their_pages(world):
    for page in world.page_keys():
        links = re.findall(r'<a href="/wiki/(\w+)">([^<]*)', world.page(page.id))
        assert links or page.ref.kind == "person"
        for path, text in links:
            named = text in ("current page", f"others called {path}")
            assert named or text.replace(" ", "_") == path


def test_prose_links_the_entities_that_it_names(world):
    linked = Counter()
    for ref in (Ref("person", i) for i in range(world.people)):
        html = world.page(ref.id)
        prose = re.search(r"<p>(.*?)</p>", html)[1]
        for fact in world.facts(ref).values():
            if isinstance(fact, Ref):
                assert f'<a href="{world.path_of(fact)}">{world.name(fact)}</a>' in prose
                linked[fact.kind] += 1
    assert set(linked) == {"town", "company", "person"}


def test_a_former_name_leads_to_the_page_that_tells_it(world):
    assert len(world.redirects) >= 4
    for path, target in world.redirects.items():
        former = path.removeprefix("/wiki/")
        assert world.html(path) is None
        assert world.page(path) == world.page(target)
        assert former in extract(world.page(target)).text
        assert former in world.document(world.paths[target].id).text


def test_an_archived_copy_says_so_and_leads_to_the_page(world):
    page = PageKey("archive", Ref("town", 0))
    html = world.page(page.id)
    assert "Archived copy." in extract(html).text
    assert f'<a href="{world.path_of(page.ref)}">current page</a>' in html
    assert world.path(page) in world.page("town-0")


def test_similar_names_are_told_apart(world):
    model, twin = Ref("person", 47), Ref("person", 49)
    assert world.person_names.twin_of(49) == 47
    for one, other in ((model, twin), (twin, model)):
        hint = re.search(r"Not to be confused with (.*)</div>", world.page(one.id))[1]
        assert world.name(other) in hint


def test_lists_hold_every_entity_once(world):
    names = []
    for number in range(1, 3):
        links = BeautifulSoup(world.html(f"/list/people/{number}"), "html.parser").find("ul")
        names += [link.text for link in links.find_all("a")]
    assert sorted(names) == sorted(world.person_names(i) for i in range(120))


@pytest.mark.parametrize(
    "path",
    [
        *("/wiki/Nobody_Here", "/list/people/0", "/list/people/3", "/list/people/01", "/list/x/1"),
        *("/list/people/", "/list/people/9999999999999999999999", "/list/people/٣", "//", "/wiki"),
    ],
)
def test_there_is_nothing_elsewhere(world, path):
    assert world.html(path) is None
    with pytest.raises(OVDError, match="no page"):
        world.page(path)
