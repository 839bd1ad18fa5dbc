"""A world: what its pages are and what they say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

from ovd_envs.errors import OVDError
from ovd_envs.search.corpus import Document
from ovd_envs.world import pages
from ovd_envs.world.facts import ARCHIVED, KINDS, OUTDATED, Fact, Facts, Ref
from ovd_envs.world.prose import with_article, write

#: Where pages have their addresses while no server serves them (RFC 6761 reserves ".invalid").
BASE_URL = "http://world.invalid"

#: One last name in so many has a page that lists the people who bear it, up to so many of them.
_LISTED_NAMES, _LISTED_BEARERS = 4, 8


@dataclass(frozen=True, slots=True)
class PageKey:
    """Which page: "entity" (of ``ref``), "archive" (an out-of-date copy of it), or "name"
    (the people with a last name, ``ref.number``).
    """

    type: str
    ref: Ref

    @property
    def id(self) -> str:
        """The document id: "person-17", "archive-person-16", "name-4"."""
        return f"archive-{self.ref.id}" if self.type == "archive" else self.ref.id


class World(Facts):
    """A web of invented people, towns, companies, books and events.

    The same arguments give the same world on every machine. A page, its facts and its text are
    computed when they are asked for, so that a world of a million pages is made in no time.

    Args:
        seed: which world.
        people: how many people (at least 50); a world has a little more than twice as many pages.
        split: "train" or "test"; names of different splits share no word, whatever the seeds.

    Raises:
        OVDError: naming the option, for one that is out of range.
    """

    def page_keys(self) -> Iterator[PageKey]:
        """Every page: first those of the entities, then out-of-date copies, then last names."""
        for kind in KINDS:
            for index in range(self.counts[kind]):
                yield PageKey("entity", Ref(kind, index))
        for kind, share in ARCHIVED.items():
            for index in range(0, self.counts[kind], share):
                yield PageKey("archive", Ref(kind, index))
        for last in range(0, len(self.person_names.seconds), _LISTED_NAMES):
            yield PageKey("name", Ref("name", last))

    def documents(self, base_url: str = BASE_URL) -> Iterator[Document]:
        """The corpus: every page as one passage of a few sentences, made one by one."""
        for page in self.page_keys():
            yield self._document(page, base_url)

    def document(self, id: str, base_url: str = BASE_URL) -> Document:
        """The passage of one page. Raises ``OVDError`` where there is no such page."""
        return self._document(self.page_key(id), base_url)

    def page_key(self, id: str) -> PageKey:
        """The page with this document id. Raises ``OVDError`` where there is none."""
        head, _, number = id.rpartition("-")
        kind = head.removeprefix("archive-")
        if number.isdecimal() and str(int(number)) == number:
            index = int(number)
            page = PageKey("entity" if kind == head else "archive", Ref(kind, index))
            if kind == head == "name":
                page = PageKey("name", Ref("name", index))
                if index % _LISTED_NAMES == 0 and index < len(self.person_names.seconds):
                    return page
            elif (
                kind in KINDS
                and index < self.counts[kind]
                and (page.type == "entity" or self.archived(page.ref) is not None)
            ):
                return page
        raise OVDError(f"the world has no page {id!r}")

    def title(self, page: PageKey) -> str:
        """The title of a page; no other page has it."""
        if page.type == "name":
            return f"{self.person_names.seconds[page.ref.number]} (last name)"
        name = self.name(page.ref)
        if page.type == "archive":
            return f"{name} (archived copy of {self.archive_year(page.ref)})"
        return name

    def path(self, page: PageKey) -> str:
        """Where the page is on its server, such as "/wiki/Talina_Morvek"."""
        if page.type == "name":
            return f"/wiki/{self.person_names.seconds[page.ref.number]}"
        path = self.path_of(page.ref)
        if page.type == "archive":
            return path.replace("/wiki/", f"/archive/{self.archive_year(page.ref)}/")
        return path

    def path_of(self, ref: Ref) -> str:
        """Where the page of an entity is."""
        return f"/wiki/{self.name(ref).replace(' ', '_')}"

    def page(self, id_or_path: str) -> str:
        """The HTML of a page, by document id or by path (that of a former name too).

        Raises ``OVDError`` where there is no such page.
        """
        if not id_or_path.startswith("/"):
            return pages.render(self, self.page_key(id_or_path))
        html = self.html(self.redirects.get(id_or_path, id_or_path))
        if html is None:
            raise OVDError(f"the world has no page {id_or_path!r}")
        return html

    def html(self, path: str) -> str | None:
        """What a server shows at ``path``; ``None`` where there is no page, or a redirect."""
        if path == "/":
            return pages.front_page(self)
        page = self.paths.get(path)
        return pages.list_page(self, path) if page is None else pages.render(self, page)

    def told(self, page: PageKey) -> dict[str, Fact]:
        """The facts that the page of an entity tells; one of an archived copy is out of date."""
        facts = self.facts(page.ref)
        if page.type == "archive":
            facts[OUTDATED[page.ref.kind]] = self._archive(page.ref)[1]
        return facts

    def sentences(self, page: PageKey) -> list[str]:
        """What the page says."""
        if page.type == "name":
            return self._name_sentences(page.ref.number)
        ref = page.ref
        values = {relation: self.text(fact) for relation, fact in self.told(page).items()}
        name = values["name"] = self.name(ref)
        if ref.kind == "person":
            values["short"] = name.rpartition(" ")[2]
            values["a_profession"] = with_article(values["profession"])
        former = self.former_name(ref)
        if former is not None:
            values["former"] = former
        said = write(ref.kind, values, self.noise(ref) >> 16)
        if page.type == "archive":
            year = self.archive_year(ref)
            said.insert(0, f"This is an archived copy of {year} and may be out of date.")
        return said

    def namesakes(self, person: int) -> list[int]:
        """Others with the same last name, or with a name that is one letter apart."""
        names = self.person_names
        model = names.twin_of(person)
        if model is not None:
            return [model]
        found = [i for i in names.bearers(person % len(names.seconds)) if i != person]
        twin = person + 2
        if twin < self.people and names.twin_of(twin) == person:
            found.append(twin)
        return found

    def name_page(self, person: int) -> PageKey | None:
        """The page that lists the people with this person's last name, where there is one."""
        last = person % len(self.person_names.seconds)
        if self.person_names.twin_of(person) is not None or last % _LISTED_NAMES:
            return None
        return PageKey("name", Ref("name", last))

    @cached_property
    def paths(self) -> dict[str, PageKey]:
        """Every page by its path. Made at the first use; holds the whole list of pages."""
        return {self.path(page): page for page in self.page_keys()}

    @cached_property
    def redirects(self) -> dict[str, str]:
        """Paths of former names, and the path that each now leads to."""
        found: dict[str, str] = {}
        for kind in ("town", "company"):
            for index in range(self.counts[kind]):
                former = self.former_name(Ref(kind, index))
                if former is not None:
                    found[f"/wiki/{former}"] = self.path(PageKey("entity", Ref(kind, index)))
        return found

    def _document(self, page: PageKey, base_url: str) -> Document:
        text = " ".join(self.sentences(page))
        return Document(page.id, self.title(page), text, base_url + self.path(page))

    def archive_year(self, ref: Ref) -> int:
        """When the archived copy of an entity's page was made. ``OVDError`` where it has none."""
        return self._archive(ref)[0]

    def _archive(self, ref: Ref) -> tuple[int, Fact]:
        archived = self.archived(ref)
        if archived is None:
            raise OVDError(f"the world has no archived copy of {ref.id!r}")
        return archived

    def _name_sentences(self, last: int) -> list[str]:
        word = self.person_names.seconds[last]
        names = [self.name(Ref("person", i)) for i in self.person_names.bearers(last)]
        shown = names[:_LISTED_BEARERS]
        more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
        return [
            f"{word} is a last name.",
            f"People with this last name are: {', '.join(shown)}{more}.",
            "Each of them has a page of their own; take care not to mix them up.",
        ]


def shared_world(seed: int = 0, *, people: int = 400, split: str = "train") -> World:
    """As ``World``, but the same arguments give the same world in this process."""
    if type(seed) is int and type(people) is int:  # 400.0 and True are refused, not found
        return _kept(seed, people, split)
    return World(seed, people=people, split=split)


@lru_cache(maxsize=8)
def _kept(seed: int, people: int, split: str) -> World:
    return World(seed, people=people, split=split)
