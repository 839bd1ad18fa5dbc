"""How pages say what they know: for every kind its sentences, each in several wordings.

A wording names relations in braces, and {name}; {a_profession} has its article. Sentences with a
relation that an entity lacks are left out. The first sentence of a page stays first.
"""

from __future__ import annotations

from collections.abc import Mapping

#: For every kind its sentences; for every sentence its wordings.
SENTENCES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "person": (
        (
            "{name} was born in {birthplace} in {birth_year}.",
            "{name}, born in {birth_year}, is a native of the town of {birthplace}.",
            "{name} was born in the year {birth_year} in the town of {birthplace}.",
            "{name} has {birthplace} as birthplace and was born in {birth_year}.",
        ),
        (
            "{name} is {a_profession} by profession.",
            "By profession, {name} is {a_profession}.",
            "{short} works as {a_profession}.",
            "{short} earns a living as {a_profession}.",
        ),
        (
            "{name} works for the company {employer}.",
            "{short} is employed by {employer}.",
            "The employer of {name} is the company {employer}.",
            "{short} has a job at the company {employer}.",
        ),
        (
            "{name} is married to {spouse}.",
            "The spouse of {short} is {spouse}.",
            "{short} is married, and the name of the spouse is {spouse}.",
            "{short} is the wedded partner of {spouse}.",
        ),
        (
            "The hobby of {short} is {hobby}.",
            "{name} likes {hobby} as a hobby.",
            "{short} spends the weekends on {hobby}.",
            "In spare time {short} enjoys {hobby}.",
        ),
    ),
    "town": (
        (
            "{name} is a town in the region of {region}, on the river {river}.",
            "{name}, a town on the river {river}, belongs to the region of {region}.",
            "The town of {name} lies in {region}, where the river {river} flows through it.",
            "In the region of {region}, on the banks of the river {river}, lies {name}.",
        ),
        (
            "The mayor of {name} is {mayor}.",
            "{mayor} is the mayor of the town.",
            "The town has {mayor} as its mayor.",
            "{name} is governed by its mayor, {mayor}.",
        ),
        (
            "{name} was founded in the year {settled}.",
            "The first settlers came to {name} in {settled}.",
            "The town goes back to {settled}, when it was founded.",
            "Its founding is dated to {settled}.",
        ),
        (
            "Visitors come to see the {sight}.",
            "The best known sight of {name} is the {sight}.",
            "The town is known for its {sight}.",
            "The main sight of the town is the {sight}.",
        ),
        (
            "{name} was formerly called {former}.",
            "The former name of the town is {former}.",
        ),
    ),
    "company": (
        (
            "{name} is a company with headquarters in {headquarters} that makes {product}.",
            "{name} is a maker of {product}; its headquarters are in the town of {headquarters}.",
            "The company {name}, which has its seat in {headquarters}, produces {product}.",
            "{name}, a company that makes {product}, has its head office in {headquarters}.",
        ),
        (
            "{founder} founded {name} in {founded}.",
            "It was founded in {founded} by {founder}.",
            "The founder of {name} is {founder}, who started it in {founded}.",
            "{name} was set up in the year {founded} by its founder, {founder}.",
        ),
        (
            "Its logo shows a {logo}.",
            "The logo of {name} is a {logo}.",
            "A {logo} is the logo of the company.",
            "Everything that {name} makes bears its logo, a {logo}.",
        ),
        (
            "{name} was formerly called {former}.",
            "The former name of the company is {former}.",
        ),
        (
            "The company sells in all regions.",
            "{name} has won several awards.",
            "The company trains many apprentices.",
            "Customers praise {name} for its quality.",
        ),
    ),
    "book": (
        (
            "{name} is a book by {author}, published in {published}.",
            "{name}, a book of the year {published}, was written by {author}.",
            "The book {name} by {author} came out in {published}.",
            "{author} is the author of {name}, a book that was published in {published}.",
        ),
        (
            "The publisher of {name} is {publisher}.",
            "It was brought out by the publisher {publisher}.",
            "The book was printed and sold by the publisher {publisher}.",
            "The company {publisher} is the publisher of {name}.",
        ),
        (
            "Its genre is {genre}.",
            "By genre, {name} belongs under {genre}.",
            "Libraries keep {name} under the genre {genre}.",
            "The genre of the book is {genre}.",
        ),
        (
            "The book is set in {setting}.",
            "The setting of {name} is the town of {setting}.",
            "All that happens in it takes place in the town of {setting}.",
            "{name} takes its readers to {setting}, where it is set.",
        ),
    ),
    "event": (
        (
            "{name} is a yearly event in {host}, and its theme is {theme}.",
            "{name} is held every year in the town of {host}; the theme is {theme}.",
            "The event {name}, hosted by the town of {host}, has {theme} as its theme.",
            "Every year the town of {host} hosts {name}, an event with the theme {theme}.",
        ),
        (
            "{name} was first held in {since}.",
            "The first {name} took place in {since}.",
            "It has been held since {since}.",
            "It began in the year {since}.",
        ),
        (
            "The organiser of {name} is {organiser}.",
            "It is organised by the company {organiser}.",
            "The company {organiser} organises it.",
            "{name} has the company {organiser} as organiser.",
        ),
        (
            "The winner gets a prize, a {prize}.",
            "The main prize of {name} is a {prize}.",
            "Whoever wins takes home a {prize}.",
            "First prize is a {prize}.",
        ),
    ),
}


def with_article(noun: str) -> str:
    """The noun with "a" or "an"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def write(kind: str, values: Mapping[str, str], choice: int) -> list[str]:
    """The sentences of a page.

    ``values`` has the texts of "name", "short" and the relations that the entity has; the random
    bits of ``choice`` pick each sentence's wording and the order of all but the first.
    """
    sentences: list[str] = []
    for wordings in SENTENCES[kind]:
        choice, pick = divmod(choice, len(wordings))
        try:
            sentences.append(wordings[pick].format_map(values))
        except KeyError:  # says something that this entity does not have
            continue
    turn = 1 + choice % (len(sentences) - 1)
    return [sentences[0], *sentences[turn:], *sentences[1:turn]]
