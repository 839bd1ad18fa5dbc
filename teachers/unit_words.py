"""Words around numbers: which can be dropped from a formula, and which change its numbers."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Words that no unit of measure contains.
FUNCTION_WORDS = _words(
    "a all am an and are as at be because but by each else every for from had has have he her his "
    "i if in into it left less more my number of off on or our out over remaining she since so "
    "some than that the their them then there these they this those to total up was we were what "
    "when where which who will with you your"
)
#: Before a formula these words do something to its first number: "half of 12 + 4".
ACTING_WORDS = _words(
    "half halves third thirds quarter quarters fourth fourths fifth fifths sixth sixths eighth "
    "tenth tenths twice double triple thrice percent root cube square squared mean average mod "
    "log sqrt factorial negative minus digit digits remainder reciprocal"
)
#: Units that multiply the number before them: never dropped.
SCALES = _words(
    "dozen hundred thousand million billion trillion percent percentage half halve pair k score "
    "squared cubed"
)
#: Units that convert into each other: mixed ones may hide a conversion.
MEASURES = _words(
    "second minute hour day week month year decade century sec min hr inch inche foot feet yard "
    "mile meter metre kilometer kilometre centimeter centimetre millimeter millimetre km cm mm kg "
    "gram kilogram milligram pound lb lbs ounce oz ton liter litre milliliter ml gallon quart pint "
    "cup tablespoon teaspoon dollar cent penny pennie pence nickel dime euro degree pm am mph"
)
