"""The pages of a world as HTML, as an encyclopedia on the web would show them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import TYPE_CHECKING

from ovd_envs.world.facts import KINDS, NOW, OUTDATED, Ref

if TYPE_CHECKING:
    from ovd_envs.world.world import PageKey, World

SITE = "The Invented Encyclopedia"

#: Lists of pages: what their addresses and titles call each kind of entity.
PLURALS: Mapping[str, str] = {
    "person": "people",
    "town": "towns",
    "company": "companies",
    "book": "books",
    "event": "events",
}
_LIST_LENGTH = 100

#: Pages of each sort that link to an article and that it links back to.
_LINKING = 3

#: How the box beside an article calls a relation, where its own name would not do.
_LABELS = {"settled": "founded", "birth_year": "born in", "since": "first held"}


def render(world: World, page: PageKey) -> str:
    """The page of an entity, an out-of-date copy of one, or the page of a last name."""
    title = world.title(page)
    parts = [f"<h1>{title}</h1>"]
    if page.type == "name":
        bearers = world.person_names.bearers(page.ref.number)
        links = {world.name(ref): world.path_of(ref) for ref in _refs("person", bearers)}
    else:
        links = {
            world.text(fact): world.path_of(fact)
            for fact in world.told(page).values()
            if isinstance(fact, Ref)
        }
        parts += [*_hints(world, page), _box(world, page)]
    parts.append(f"<p>{_linked(' '.join(world.sentences(page)), links)}</p>")
    if page.type == "entity":
        parts += _further(world, page.ref)
    return _frame(title, parts)


def front_page(world: World) -> str:
    """The page at "/"."""
    lists = "".join(
        f"<li>{_link(f'{world.counts[kind]} {plural}', f'/list/{plural}/1')}</li>"
        for kind, plural in PLURALS.items()
    )
    welcome = "<p>Nothing that is told here exists. This encyclopedia has articles on:</p>"
    return _frame(SITE, [f"<h1>{SITE}</h1>", welcome, f"<ul>{lists}</ul>"])


def list_page(world: World, path: str) -> str | None:
    """A page of a list, such as "/list/people/2"; ``None`` where there is none."""
    found = re.fullmatch(r"/list/(\w+)/([1-9]\d{0,8})", path)
    kind = next((k for k in KINDS if found and PLURALS[k] == found[1]), None)
    if found is None or kind is None:
        return None
    number = int(found[2])
    indexes = range(world.counts[kind])[(number - 1) * _LIST_LENGTH : number * _LIST_LENGTH]
    if not indexes:
        return None
    title = f"List of {PLURALS[kind]}, part {number}"
    rows = "".join(
        f"<li>{_link(world.name(ref), world.path_of(ref))}</li>" for ref in _refs(kind, indexes)
    )
    parts = [f"<h1>{title}</h1>", f"<ul>{rows}</ul>"]
    if indexes.stop < world.counts[kind]:
        parts.append(f"<p>{_link('Next part', f'/list/{found[1]}/{number + 1}')}</p>")
    return _frame(title, parts)


def missing_page(path: str) -> str:
    """What a server shows where there is no page."""
    return _frame("Not found", ["<h1>Not found</h1>", f"<p>No page at {escape(path)}.</p>"])


def _refs(kind: str, indexes: Iterable[int]) -> list[Ref]:
    return [Ref(kind, index) for index in indexes]


def _hints(world: World, page: PageKey) -> list[str]:
    """What stands above an article: that it is old, and who else has such a name."""
    ref, hints = page.ref, []
    if page.type == "archive":
        current = _link("current page", world.path_of(ref))
        hints.append(f'<div class="notice">Archived copy. See the {current}.</div>')
    if ref.kind == "person":
        others = [
            _link(world.name(other), world.path_of(other))
            for other in _refs("person", world.namesakes(ref.number))
        ]
        listed = world.name_page(ref.number)
        if listed is not None:
            others.append(
                _link(f"others called {world.title(listed).split()[0]}", world.path(listed))
            )
        if others:
            hints.append(f'<div class="hatnote">Not to be confused with {", ".join(others)}.</div>')
    return hints


def _further(world: World, ref: Ref) -> list[str]:
    """What stands below an article: pages that link here, and the copy that is out of date."""
    parts = []
    if linking := world.linking_to(ref, most=_LINKING):
        rows = "".join(f"<li>{_link(world.name(r), world.path_of(r))}</li>" for r in linking)
        parts.append(f"<h2>See also</h2>\n<ul>{rows}</ul>")
    if world.archived(ref) is not None:
        path = world.path(world.page_key(f"archive-{ref.id}"))
        parts.append(f"<p>{_link(f'Copy of {world.archive_year(ref)}', path)}</p>")
    return parts


def _box(world: World, page: PageKey) -> str:
    """The table of facts beside an article."""
    rows = []
    for relation, fact in world.told(page).items():
        label = _LABELS.get(relation, relation).capitalize()
        text = world.text(fact)
        value = _link(text, world.path_of(fact)) if isinstance(fact, Ref) else text
        note = ""
        if page.type == "archive" and relation == OUTDATED[page.ref.kind]:
            note = f" (as of {world.archive_year(page.ref)})"
        rows.append(f"<tr><th>{label}</th><td>{value}{note}</td></tr>")
    former = world.former_name(page.ref)
    if former is not None:
        rows.append(f"<tr><th>Former name</th><td>{former}</td></tr>")
    caption = f"<caption>{world.name(page.ref)}</caption>"
    return f'<table class="infobox">{caption}\n{chr(10).join(rows)}\n</table>'


def _linked(prose: str, links: Mapping[str, str]) -> str:
    """The prose with its names as links. No name is part of another one."""
    names = "|".join(map(re.escape, links))
    return re.sub(rf"\b(?:{names})\b", lambda name: _link(name[0], links[name[0]]), prose)


def _link(text: str, path: str) -> str:
    return f'<a href="{path}">{text}</a>'


def _frame(title: str, parts: Iterable[str]) -> str:
    menu = " | ".join(_link(plural, f"/list/{plural}/1") for plural in PLURALS.values())
    body = "\n".join(parts)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>.infobox {{ float: right; border: 1px solid #999 }} .hatnote {{ font-style: italic }}</style>
</head>
<body>
<header><nav>{_link(SITE, "/")} | {menu} | <a href="/">Log in</a></nav></header>
<main><article>
{body}
</article></main>
<footer><p>{SITE}, {NOW}. All names are invented. Cookie settings. Terms of use.</p></footer>
</body>
</html>
"""
