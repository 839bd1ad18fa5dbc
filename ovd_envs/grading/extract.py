"""The final answer in a message: the last ``\\boxed{}``, else ``####``, else "answer is"."""

from __future__ import annotations

import re

#: A box that opens, TeX's form without braces (the box holds the next word), an escaped
#: character (``\\{`` is no brace), a brace. Doubled backslashes come from escaped JSON.
_BOX_TOKENS = re.compile(
    r"(?P<box>\\+f?boxed\s*\{)|(?P<word>\\+f?boxed\s+(?P<content>[^\s{}$]+))|\\.|[{}]", re.DOTALL
)
_PHRASE = re.compile(
    r"\banswer\b[*_]*\s*(?:is\b|to\s+the\s+(?:question|problem)\s+is\b|[:=])[\s*:]*", re.IGNORECASE
)
_SHORT_PHRASE = re.compile(r"^[ \t*]*A[*]*:[ \t*]*", re.MULTILINE)

#: What a "####" begins that is a heading of Markdown, and no answer.
_HEADING = re.compile(
    r"[\s*:]*(?:\d+[.)]\s*)?(?:the\s+)?(?:final\s+|numerical\s+)?"
    r"(?:(?P<answer>answer|result)|solution|conclusion|explanation|summary|check|verification)"
    r"[\s*:]*",
    re.IGNORECASE,
)

#: The end of the statement of an unboxed answer: a line break, a full stop that is followed by a
#: blank or by nothing (so not the point of a decimal number), or a comma between mathematics and
#: words ("42, because").
_STATEMENT_END = re.compile(
    r"\n|\.(?=[\s*]|$)|(?<=[\d$}])\*{0,2},(?=\s+(?!and\b|or\b)[A-Za-z]{2,})"
)


def extract_answer(text: str) -> str | None:
    """The final answer that ``text`` states, or ``None`` where it states none.

    In this order: what the last closed ``\\boxed{...}`` holds (braces matched; of nested boxes the
    inner one), the rest of the line after the last ``####``, the rest of the sentence after the
    last "answer is" or "answer:" (or a line "A: ..."). Empty answers are passed over. Of a ``####``
    that is a heading ("#### Final Answer") the answer is what is said below it. Takes time linear
    in the length of ``text``.
    """
    return _last_box(text) or _last_hashes(text) or _last_phrase(text) or None


def _last_box(text: str) -> str:
    if "boxed" not in text:
        return ""
    best, best_start = "", -1
    open_braces: list[int | None] = []  # where the content starts for a box, None for a brace
    for token in _BOX_TOKENS.finditer(text):
        kind = token.group()
        if token["box"] is not None:
            open_braces.append(token.end())
        elif token["word"] is not None:
            best, best_start = token["content"].rstrip(".,;"), token.start()
        elif kind == "{":
            open_braces.append(None)
        elif kind == "}" and open_braces:
            start = open_braces.pop()
            # A box closes after those inside it, so the last to open is looked for.
            if start is not None and start > best_start:
                content = text[start : token.start()].strip()
                if content:
                    best, best_start = content, start
    return best


def _last_hashes(text: str) -> str:
    end = len(text)
    while (start := text.rfind("####", 0, end)) >= 0:
        answer, _, after = text[start + 4 : end].partition("\n")
        heading = _HEADING.fullmatch(answer)
        if heading is None:
            answer = _last_phrase(answer) or answer.strip()
        else:
            below = after.strip().partition("\n")[0] if heading["answer"] else ""
            answer = _last_phrase(after) or below.strip(" \t\r*")
        if answer:
            return answer
        end = start
    return ""


def _last_phrase(text: str) -> str:
    for pattern in (_PHRASE, _SHORT_PHRASE):
        stop = len(text)
        for match in reversed(list(pattern.finditer(text))):
            end = _STATEMENT_END.search(text, match.end(), stop)
            answer = text[match.end() : end.start() if end is not None else stop].strip(" \t\r*")
            opened, closed = (sum(map(answer.count, marks)) for marks in ("([", ")]"))
            if answer.endswith(")") and opened < closed:  # "(The answer is 5)"; not "[0, 5)"
                answer = answer[:-1]
            if answer:
                return answer
            stop = match.start()
    return ""
