"""Short stories about things that are counted, of one step or several."""

from __future__ import annotations

from dataclasses import dataclass, field

from ovd_envs.stable import Draw

_SHE = """
    Alma Amina Anna Beatriz Carla Chloe Clara Dina Elena Emma Fatima Grace Hana Ida Ines Iris
    Jade Julia Kira Laila Lena Lucia Maya Mei Mia Nadia Nina Nora Olga Priya Rosa Ruth Sana Sofia
    Tara Vera Yuki Zoe
""".split()  # noqa: SIM905 - a list of 38 strings reads worse
_HE = """
    Adam Ali Amir Arjun Ben Boris Carlos Chen Daniel David Diego Emil Felix Hugo Ivan Jamal Jonas
    Juan Karim Kofi Leo Liam Luca Marco Mateo Milan Noah Omar Oscar Pablo Pedro Rafael Ravi Samir
    Tariq Theo Tomas Victor
""".split()  # noqa: SIM905 - a list of 38 strings reads worse

#: What is counted, what it comes in, and how some of it goes.
_THINGS = (
    ("apples", "baskets", "eats {n} apples"),
    ("oranges", "bags", "eats {n} oranges"),
    ("cookies", "boxes", "eats {n} cookies"),
    ("muffins", "trays", "eats {n} muffins"),
    ("peaches", "crates", "throws away {n} bad peaches"),
    ("tomatoes", "crates", "cooks {n} tomatoes"),
    ("eggs", "cartons", "breaks {n} eggs"),
    ("marbles", "bags", "loses {n} marbles"),
    ("stickers", "packs", "uses {n} stickers"),
    ("cards", "packs", "loses {n} cards"),
    ("stamps", "folders", "uses {n} stamps"),
    ("pencils", "boxes", "loses {n} pencils"),
    ("crayons", "boxes", "breaks {n} crayons"),
    ("beads", "jars", "uses {n} beads"),
    ("buttons", "jars", "loses {n} buttons"),
    ("shells", "buckets", "drops {n} shells"),
    ("balloons", "packs", "pops {n} balloons"),
    ("candles", "boxes", "burns {n} candles"),
    ("roses", "bunches", "throws away {n} withered roses"),
    ("toy cars", "boxes", "breaks {n} toy cars"),
    ("coins", "purses", "spends {n} coins"),
    ("badges", "boxes", "loses {n} badges"),
)

#: Sentences with a number that does not matter.
_DISTRACTORS = (
    "{name} is {n} years old.",
    "{name} also has {n} {other}.",
    "{friend} has {n} {other}.",
    "{name} lives {n} streets from the school.",
    "The walk home takes {n} minutes.",
    "There are {n} children in the class of {name}.",
)

#: A story opens with "has" (no step) or one of "packs" and "gets" (one step), goes on with one
#: event a step, and ends with "count" (no step) or one of these (one step).
_LAST_STEPS = ("share", "fill", "sell", "compare", "together", "need")
_EVENTS = ("buys", "is given", "finds", "gives", "loses", "halves", "doubles")
_SCALING = ("halves", "doubles")

#: Share of the openings, and of the endings, that take no step.
_PLAIN_SHARE = 0.5
#: Share of the stories of two steps and more that hold a number that does not matter.
_DISTRACTOR_SHARE = 0.35
_LARGEST = 999


class _Impossible(Exception):
    """The numbers drawn so far do not allow the next sentence."""


def word_problem(draw: Draw, steps: int) -> tuple[str, list[str]]:
    """A story with its question, and the ``steps`` equations that solve it.

    All numbers are whole, every intermediate value is at least 2 and at most 999, and what is
    asked for is the right side of the last equation. Stories of two steps and more may hold one
    number that does not matter.
    """
    while True:
        try:
            return _Story(draw).tell(steps)
        except _Impossible:
            continue


@dataclass(slots=True)
class _Story:
    """A story that grows sentence by sentence."""

    draw: Draw
    total: int = 0
    sentences: list[str] = field(default_factory=list)
    equations: list[str] = field(default_factory=list)
    people: list[str] = field(default_factory=list)
    name: str = ""
    pronoun: str = ""
    them: str = ""
    thing: str = ""
    container: str = ""
    goes: str = ""
    #: Whether a pronoun would be unclear in the next sentence.
    unclear: bool = True

    def tell(self, steps: int) -> tuple[str, list[str]]:
        """The whole story. Raises ``_Impossible`` where its numbers do not work out."""
        draw = self.draw
        female = draw.chance(0.5)
        self.people = list(_SHE + _HE)
        self.name = self.person(_SHE if female else _HE)
        self.pronoun, self.them = ("she", "her") if female else ("he", "him")
        self.thing, self.container, self.goes = draw.choice(_THINGS)

        opening = "has" if draw.chance(_PLAIN_SHARE) else draw.choice(("packs", "gets"))
        ending = "count" if draw.chance(_PLAIN_SHARE) else draw.choice(_LAST_STEPS)
        left = steps - (opening != "has") - (ending != "count")
        if left < 0:
            raise _Impossible
        if opening == "packs" and ending == "fill":
            raise _Impossible  # taking things out of boxes to put them into boxes

        self.open(opening)
        if steps > 1 and draw.chance(_DISTRACTOR_SHARE):
            self.distract()
        previous = ""
        for _ in range(left):
            # Twice the same, or half of twice as much, would be an odd story.
            taboo = _SCALING if previous in _SCALING else (previous,)
            event = draw.choice([name for name in _EVENTS if name not in taboo])
            self.happen(event)
            previous = event
        in_all = "get in all" if opening == "gets" else "have in all"
        self.end(ending, verb="have now" if left else in_all)
        return " ".join(self.sentences), self.equations

    def open(self, kind: str) -> None:
        """The first sentence."""
        draw, thing = self.draw, self.thing
        if kind == "has":
            self.total = draw.integer(10, 60)
            self.say(f"{self.who()} has {self.total} {thing}.")
        elif kind == "packs":
            self.total, each = draw.integer(2, 9), draw.integer(3, 12)
            self.say(f"{self.who()} has {self.total} {self.container} with {each} {thing} in each.")
            self.step("*", each)
        else:
            self.total, more = draw.integer(5, 40), draw.integer(5, 40)
            verb = "buys" if draw.chance(0.5) else "gets"
            self.say(f"{self.who()} {verb} {self.total} {thing} on Monday and {more} on Tuesday.")
            self.step("+", more)

    def distract(self) -> None:
        """A sentence with a number that does not matter."""
        others = [thing for thing, _, _ in _THINGS if thing != self.thing]
        friend = self.person()
        text = self.draw.choice(_DISTRACTORS).format(
            name=self.name,
            friend=friend,
            n=self.draw.integer(6, 30),
            other=self.draw.choice(others),
        )
        self.say(text)
        self.unclear = True

    def happen(self, kind: str) -> None:
        """One step in one sentence."""
        thing = self.thing
        if kind == "halves":
            if self.total % 2:
                raise _Impossible
            self.say(f"{self.who()} gives half of the {thing} to {self.person()}.", others=True)
            self.step("/", 2)
            return
        if kind == "doubles":
            self.say(f"By the end of the week, {self.who()} has twice as many {thing}.")
            self.step("*", 2)
            return
        n = self.draw.integer(2, 30)
        if kind == "buys":
            self.say(f"{self.who()} buys {n} more {thing}.")
        elif kind == "finds":
            self.say(f"{self.who()} finds {n} more {thing}.")
        elif kind == "is given":
            receiver = self.name if self.unclear else self.them
            self.say(f"{self.person()} gives {receiver} {n} more {thing}.", others=True)
        elif kind == "gives":
            self.say(f"{self.who()} gives {n} {thing} to {self.person()}.", others=True)
        else:
            self.say(f"{self.who()} {self.goes.format(n=n)}.")
        self.step("+" if kind in ("buys", "finds", "is given") else "-", n)

    def end(self, kind: str, *, verb: str) -> None:
        """The last step and the question; ``verb`` is what "count" asks."""
        thing, name = self.thing, self.name
        if kind == "count":
            self.say(f"How many {thing} does {name} {verb}?")
        elif kind in ("share", "fill"):
            n = self.draw.choice(self.divisors())
            if kind == "share":
                self.say(f"{self.who()} shares the {thing} equally among {n} friends.")
                self.say(f"How many {thing} does each friend get?")
            else:
                self.say(f"{self.who()} puts the {thing} into {self.container} of {n}.")
                self.say(f"How many {self.container} does {self.pronoun} fill?")
            self.step("/", n)
        elif kind == "sell":
            price = self.draw.integer(2, 9)
            self.say(f"{self.who()} sells all the {thing} for {price} dollars each.")
            self.say(f"How many dollars does {self.pronoun} get?")
            self.step("*", price)
        elif kind == "need":
            goal = self.total + self.draw.integer(2, 40)
            self.say(f"{self.who()} wants to have {goal} {thing}.")
            self.say(f"How many more {thing} does {self.pronoun} need?")
            self.equations.append(f"{goal} - {self.total} = {goal - self.total}")
        else:
            friend, n = self.person(), self.draw.integer(5, 40)
            self.say(f"{friend} has {n} {thing}.")
            if kind == "compare":
                self.say(f"How many more {thing} does {name} have than {friend}?")
            else:
                self.say(f"How many {thing} do {name} and {friend} have together?")
            self.step("-" if kind == "compare" else "+", n)

    def step(self, operator: str, number: int) -> None:
        """One equation. Raises ``_Impossible`` where its result is out of range."""
        left = self.total
        results = {"+": left + number, "-": left - number, "*": left * number, "/": left // number}
        self.total = results[operator]
        if not 2 <= self.total <= _LARGEST:
            raise _Impossible
        self.equations.append(f"{left} {operator} {number} = {self.total}")

    def divisors(self) -> list[int]:
        """What the things can be divided by without a rest. Raises ``_Impossible`` for none."""
        found = [n for n in range(2, 13) if self.total % n == 0 and self.total // n >= 2]
        if not found:
            raise _Impossible
        return found

    def person(self, among: list[str] | None = None) -> str:
        """Somebody who is not in the story yet."""
        name = self.draw.choice([n for n in among or self.people if n in self.people])
        self.people.remove(name)
        return name

    def who(self) -> str:
        """The hero of the story as the subject of a sentence, in lower case for a pronoun."""
        return self.name if self.unclear else self.pronoun

    def say(self, sentence: str, *, others: bool = False) -> None:
        """Add a sentence; ``others`` where somebody else comes in it, whom "she" could mean."""
        self.sentences.append(sentence[0].upper() + sentence[1:])
        self.unclear = others
