"""Invented names: words of syllables, each word of one role and one split, whatever the seed."""

from __future__ import annotations

from functools import cached_property
from itertools import product

from ovd_envs.errors import OVDError
from ovd_envs.stable import stable_hash
from ovd_envs.world.shuffle import Shuffle, noise

SPLITS = ("train", "test")

_VOWELS = "aeiou"
_ONSETS = (*"bdfghjklmnprstvz", "br", "dr", "gr", "kr", "pr", "st", "tr", "vr")

#: A word is a start, a middle (in large worlds, when the words without one are used up) and an
#: ending: 5 to 9 letters.
_STARTS = tuple(map("".join, product(_ONSETS, _VOWELS)))
_MIDDLES = tuple(map("".join, product("bdfghklmnprstvwz", _VOWELS)))

#: No ending is the end of another, so that no word has two roles or is made in two ways.
ENDINGS: dict[str, tuple[str, ...]] = {
    role: tuple(endings.split())
    for role, endings in {
        "first name": "lia nora mira dan vin sela rik lon bert nka tiel ris",
        "last name": "rvek ndel lsko mmer stik rgan ltov zari nkel kard vski ppen",
        "town": "holm burg ford wick stad dale bury gate moor pool mond beck",
        "company": "tex dyne tron plex quor bix vox zeum lix rax gent kord",
        "region": "land mark nia thia vell rene cany bria ssia gard dor",
        "river": "wash rook lune tham sey rith mell nwy strom due vra",
        "book": "rune lora saga mora phis lyra thea ndra nyx vane sol",
        "subtitle": "nell stra quin sune fane lude moss rion dyll cant vail",
        "event": "jol ludi ren tide vara ziel nox chim roda psi",
        "occasion": "fest gala fera gild cade rond jube tavo mars zant",
    }.items()
}


def split_of(word: str) -> str:
    """The one split whose worlds may use ``word``."""
    return SPLITS[stable_hash(f"split {word.lower()}") % len(SPLITS)]


def make_words(role: str, count: int, *, seed: int, split: str) -> tuple[str, ...]:
    """``count`` different words of ``role`` and ``split``, the shorter ones first.

    Raises ``OVDError`` where there are not that many.
    """
    endings = ENDINGS[role]
    words: list[str] = []
    for middles in (("",), _MIDDLES):
        size = len(_STARTS) * len(middles) * len(endings)
        shuffle = Shuffle(size, f"{seed} {role} {len(middles)}")
        for number in range(size):
            if len(words) == count:
                return tuple(words)
            rest, ending = divmod(shuffle(number), len(endings))
            start, middle = divmod(rest, len(middles))
            word = (_STARTS[start] + middles[middle] + endings[ending]).capitalize()
            if split_of(word) == split:
                words.append(word)
    if len(words) < count:
        raise OVDError(f"the world is too large: {count} words for {role!r}, {len(words)} exist")
    return tuple(words)


class PairedNames:
    """Names of two words: many share the second, none both.

    Name ``i`` has second word ``i % len(seconds)``; those who share it differ in the first.
    """

    def __init__(
        self, firsts: tuple[str, ...], seconds: tuple[str, ...], *, size: int, key: str
    ) -> None:
        if -(-size // len(seconds)) > len(firsts):
            raise OVDError(f"the world is too large: {size} names of two words for {key!r}")
        self.firsts = firsts
        self.seconds = seconds
        self.size = size
        self._key = stable_hash(f"pairs {key}")

    def __call__(self, index: int) -> str:
        """The name of number ``index``."""
        number, second = divmod(index, len(self.seconds))
        first = (noise(self._key, second) + number) % len(self.firsts)
        return f"{self.firsts[first]} {self.seconds[second]}"


class PersonalNames(PairedNames):
    """Names of people; a few are one letter away from somebody else's."""

    #: One in this many people has such a name.
    TWINS = 50

    def __call__(self, index: int) -> str:
        """The name of person ``index``."""
        model = self.twin_of(index)
        if model is None:
            return super().__call__(index)
        first, last = super().__call__(model).split()
        return f"{first} {self._similar[last]}"

    def twin_of(self, index: int) -> int | None:
        """The person whose name differs from that of ``index`` in one letter, by intent."""
        if index % self.TWINS != self.TWINS - 1:
            return None
        model = index - 2
        return model if self.seconds[model % len(self.seconds)] in self._similar else None

    def bearers(self, last: int) -> list[int]:
        """The people whose last name is number ``last`` of ``seconds``."""
        everyone = range(last, self.size, len(self.seconds))
        return [index for index in everyone if self.twin_of(index) is None]

    @cached_property
    def _similar(self) -> dict[str, str]:
        """For a last name, one that differs in its first vowel and that nobody else has."""
        taken = set(self.seconds)
        similar: dict[str, str] = {}
        for word in self.seconds:
            at = next(i for i, letter in enumerate(word) if letter in _VOWELS)
            for vowel in _VOWELS:
                other = word[:at] + vowel + word[at + 1 :]
                if other not in taken and split_of(other) == split_of(word):
                    similar[word] = other
                    taken.add(other)
                    break
        return similar
