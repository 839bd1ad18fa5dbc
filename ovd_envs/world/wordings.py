"""How questions are asked. ``{}`` is what the question is about."""

from __future__ import annotations

from collections.abc import Mapping

#: Questions for the value of a relation.
ASK: Mapping[str, tuple[str, ...]] = {
    "birthplace": (
        "In which town was {} born?",
        "Which town is the birthplace of {}?",
        "What is the birthplace of {}?",
    ),
    "birth_year": (
        "In which year was {} born?",
        "What is the birth year of {}?",
        "When was {} born?",
    ),
    "profession": (
        "What is the profession of {}?",
        "What does {} do for a living?",
        "Which profession does {} have?",
    ),
    "employer": (
        "Which company does {} work for?",
        "Which company employs {}?",
        "What is the employer of {}?",
    ),
    "spouse": (
        "Who is {} married to?",
        "Who is the spouse of {}?",
        "What is the name of the spouse of {}?",
    ),
    "hobby": (
        "What is the hobby of {}?",
        "Which hobby does {} have?",
        "What does {} like as a hobby?",
    ),
    "region": (
        "In which region is {}?",
        "Which region does {} belong to?",
        "What is the region of {}?",
    ),
    "river": (
        "On which river is {}?",
        "Which river flows through {}?",
        "What is the name of the river of {}?",
    ),
    "mayor": (
        "Who is the mayor of {}?",
        "What is the name of the mayor of {}?",
        "Which person is the mayor of {}?",
    ),
    "settled": (
        "In which year was {} founded?",
        "What is the founding year of {}?",
        "When was {} founded?",
    ),
    "sight": (
        "What is the main sight of {}?",
        "Which sight is {} known for?",
        "What is the best known sight of {}?",
    ),
    "headquarters": (
        "In which town are the headquarters of {}?",
        "Where does {} have its headquarters?",
        "Which town is the seat of {}?",
    ),
    "founder": (
        "Who founded {}?",
        "Who is the founder of {}?",
        "What is the name of the founder of {}?",
    ),
    "founded": (
        "In which year was {} founded?",
        "What is the founding year of {}?",
        "When was {} founded?",
    ),
    "product": (
        "What does {} make?",
        "What is the product of {}?",
        "Which product does {} make?",
    ),
    "logo": (
        "What is the logo of {}?",
        "What does the logo of {} show?",
        "Which logo does {} have?",
    ),
    "author": (
        "Who wrote {}?",
        "Who is the author of {}?",
        "What is the name of the author of {}?",
    ),
    "published": (
        "In which year was {} published?",
        "What is the year of publication of {}?",
        "When was {} published?",
    ),
    "publisher": (
        "Which company published {}?",
        "What is the publisher of {}?",
        "Which company is the publisher of {}?",
    ),
    "genre": (
        "What is the genre of {}?",
        "Which genre does {} belong to?",
        "Under which genre is {} listed?",
    ),
    "setting": (
        "In which town is {} set?",
        "Which town is the setting of {}?",
        "Where is {} set?",
    ),
    "host": (
        "In which town is {} held?",
        "Which town hosts {}?",
        "Where is {} held?",
    ),
    "since": (
        "In which year was {} first held?",
        "What is the first year of {}?",
        "When was {} first held?",
    ),
    "organiser": (
        "Which company organises {}?",
        "What is the organiser of {}?",
        "Which company is the organiser of {}?",
    ),
    "theme": (
        "What is the theme of {}?",
        "Which theme does {} have?",
        "What is {} about?",
    ),
    "prize": (
        "What is the prize at {}?",
        "What does the winner of {} get?",
        "Which prize does the winner of {} get?",
    ),
}

#: What stands, within a longer question, for the entity that a relation leads to.
NOUN: Mapping[str, tuple[str, ...]] = {
    "birthplace": ("the town where {} was born", "the birthplace of {}"),
    "employer": ("the company that employs {}", "the employer of {}"),
    "spouse": ("the spouse of {}", "the person married to {}"),
    "mayor": ("the mayor of {}", "the person who is mayor of {}"),
    "headquarters": (
        "the town with the headquarters of {}",
        "the town where {} has its headquarters",
    ),
    "founder": ("the founder of {}", "the person who founded {}"),
    "author": ("the author of {}", "the person who wrote {}"),
    "publisher": ("the publisher of {}", "the company that published {}"),
    "setting": ("the town where {} is set", "the setting of {}"),
    "host": ("the town where {} is held", "the town that hosts {}"),
    "organiser": ("the organiser of {}", "the company that organises {}"),
}

#: How a question calls the one entity that it names.
CALLED: Mapping[str, tuple[str, ...]] = {
    "person": ("{}",),
    "town": ("{}", "the town of {}"),
    "company": ("{}", "the company {}"),
    "book": ("{}", "the book {}"),
    "event": ("{}", "the event {}"),
}

#: Which of two has the smaller (first wordings) or the larger year (second wordings)?
COMPARE: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "birth_year": (
        ("Who was born earlier, {} or {}?", "Who is older, {} or {}?"),
        ("Who was born later, {} or {}?", "Who is younger, {} or {}?"),
    ),
    "settled": (
        ("Which town was founded earlier, {} or {}?", "Which town is older, {} or {}?"),
        ("Which town was founded later, {} or {}?", "Which town is younger, {} or {}?"),
    ),
    "founded": (
        ("Which company was founded earlier, {} or {}?", "Which company is older, {} or {}?"),
        ("Which company was founded later, {} or {}?", "Which company is younger, {} or {}?"),
    ),
    "published": (
        ("Which book was published earlier, {} or {}?", "Which book is older, {} or {}?"),
        ("Which book was published later, {} or {}?", "Which book is newer, {} or {}?"),
    ),
    "since": (
        ("Which event was first held earlier, {} or {}?", "Which event is older, {} or {}?"),
        ("Which event was first held later, {} or {}?", "Which event is younger, {} or {}?"),
    ),
}

#: Do two have the same value? The answer is yes or no.
SAME: Mapping[str, tuple[str, ...]] = {
    "birthplace": (
        "Were {} and {} born in the same town?",
        "Do {} and {} have the same birthplace?",
    ),
    "employer": ("Do {} and {} work for the same company?", "Are {} and {} colleagues?"),
    "profession": (
        "Do {} and {} have the same profession?",
        "Do {} and {} do the same for a living?",
    ),
    "region": ("Are {} and {} in the same region?", "Do {} and {} belong to the same region?"),
    "river": ("Are {} and {} on the same river?", "Does the same river flow through {} and {}?"),
    "publisher": (
        "Do {} and {} have the same publisher?",
        "Were {} and {} published by the same company?",
    ),
    "genre": ("Do {} and {} have the same genre?", "Do {} and {} belong to the same genre?"),
    "setting": ("Are {} and {} set in the same town?", "Do {} and {} have the same setting?"),
    "host": ("Are {} and {} held in the same town?", "Does the same town host {} and {}?"),
    "organiser": (
        "Do {} and {} have the same organiser?",
        "Are {} and {} organised by the same company?",
    ),
    "theme": ("Do {} and {} have the same theme?", "Are {} and {} about the same theme?"),
}
