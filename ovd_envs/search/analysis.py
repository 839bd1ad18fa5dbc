"""How text becomes the words that BM25 counts: the same for documents and for queries."""

from __future__ import annotations

import unicodedata
from typing import Any

import tantivy

from ovd_envs.errors import OVDError
from ovd_envs.search.corpus import clean

#: What ``language`` may be: the languages that tantivy has a Snowball stemmer for.
LANGUAGES = (
    *("arabic", "danish", "dutch", "english", "finnish", "french", "german", "greek"),
    *("hungarian", "italian", "norwegian", "portuguese", "romanian", "russian", "spanish"),
    *("swedish", "tamil", "turkish"),
)

#: No stemming.
NONE = "none"

_NO_STOP_WORDS = {NONE, "arabic", "greek", "romanian", "tamil", "turkish"}

#: A longer word (bytes) is left out: it is data, not language.
_LONGEST = 120


def analyzer(language: str, *, stop_words: bool = True) -> Any:
    """Tantivy's chain of word splitting, lower case, folding of accents and stemming.

    Accents are folded in English and without a language, where they distinguish no words.
    ``stop_words=False`` leaves out the words that tantivy lists as saying nothing, where it has a
    list for the language. Raises ``OVDError`` for a language that has no stemmer.
    """
    check_language(language)
    chain = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
    chain = chain.filter(tantivy.Filter.remove_long(_LONGEST)).filter(tantivy.Filter.lowercase())
    if language in ("english", NONE):
        chain = chain.filter(tantivy.Filter.ascii_fold())
    if not stop_words and language not in _NO_STOP_WORDS:
        chain = chain.filter(tantivy.Filter.stopword(language))
    if language != NONE:
        chain = chain.filter(tantivy.Filter.stemmer(language))
    return chain.build()


def check_language(language: str) -> None:
    """Raise ``OVDError`` for a language that has no stemmer."""
    if language not in LANGUAGES and language != NONE:
        raise OVDError(
            f"language: expected one of {', '.join(LANGUAGES)} or {NONE!r}, got {language!r}"
        )


def composed(text: str) -> str:
    """``text`` with its accents on their letters, so that they do not split words."""
    return text if text.isascii() else unicodedata.normalize("NFKC", clean(text))
