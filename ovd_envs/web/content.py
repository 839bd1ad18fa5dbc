"""What a server sends: decompressed within a limit, and only where it is text."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator

from ovd_envs.web.page import FetchError

#: How files that are no text begin (WHATWG MIME Sniffing; libmagic).
_MAGIC = tuple(
    (re.compile(pattern, re.DOTALL), name)
    for pattern, name in (
        (rb"(?:\xef\xbb\xbf)?\s{0,1024}%PDF-", "PDF"),
        (rb"\x89PNG\r\n", "a PNG image"),
        (rb"\xff\xd8\xff", "a JPEG image"),
        (rb"GIF8[79]a", "a GIF image"),
        (rb"RIFF.{4}WEBP", "a WebP image"),
        (rb"RIFF.{4}(?:WAVE|AVI )", "sound or video"),
        (rb"\x00\x00..ftyp", "a video or image"),
        (rb"\x1aE\xdf\xa3", "a video"),
        (rb"OggS\x00|ID3[\x02-\x04]|fLaC\x00", "sound or video"),
        (rb"PK(?:\x03\x04|\x05\x06)", "a ZIP archive or office document"),
        (rb"\x1f\x8b\x08", "a gzip archive"),
        (rb"BZh\d1AY&SY", "a bzip2 archive"),
        (rb"\xfd7zXZ\x00", "an xz archive"),
        (rb"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
        (rb"Rar!\x1a\x07", "a RAR archive"),
        (rb"\x28\xb5\x2f\xfd", "a Zstandard archive"),
        (rb".{257}ustar", "a tar archive"),
        (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an office document"),
        (rb"\{\\rtf\d", "an RTF document"),
        (rb"%!PS-Adobe-", "PostScript"),
        (rb"\x7fELF|\x00asm", "a program"),
        (rb"SQLite format 3\x00", "a database"),
        (rb"wOF[F2]", "a font"),
    )
)
_NO_TEXT = re.compile(
    r"(?:image|audio|video|font|model)/(?!.*\+xml).*"
    r"|application/(?:pdf|zip|gzip|x-gzip|x-tar|x-bzip2?|x-7z-compressed|vnd\.rar|msword|epub\+zip"
    r"|x-shockwave-flash|java-archive|vnd\.ms-.*|vnd\.openxmlformats.*|vnd\.oasis.*|wasm|rtf"
    r"|postscript)"
)
_TEXT = re.compile(
    r"text/.*|.*\+(?:xml|json)|application/(?:xml|json|javascript|ndjson|yaml|x-yaml|toml)"
)
#: A comment ends at its first "-->": what may end at any takes time exponential in their number.
_HTML = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?>(?:<!--.*?-->|<\?xml[^>]*>)\s*)*<(?:!doctype\s+html|html|head|body|"
    rb"title|meta|script|style|div|p|h1|table|a|span|br|article|main|section)\b",
    re.I | re.DOTALL,
)
_BOMS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
_ODD = bytes([*range(9), 0x0B, *range(0x0E, 0x1B), *range(0x1C, 0x20)])
_HEAD = 4096


def refuse_type(content_type: str) -> None:
    """Say no to what its header calls no text. Raises ``FetchError``."""
    kind = _kind(content_type)
    if _NO_TEXT.fullmatch(kind):
        raise FetchError(f"not text: {'PDF' if kind == 'application/pdf' else kind[:60]}")


def text_type(body: bytes, content_type: str = "") -> str:
    """The media type to read ``body`` as: its header's where that is one of text, else a look.

    Raises ``FetchError`` for what is no text, whatever the header says.
    """
    for beginning, name in _MAGIC:
        if beginning.match(body):
            raise FetchError(f"not text: {name}")
    kind, head = _kind(content_type), body[:_HEAD]
    wide = head.startswith(_BOMS) or "utf-16" in content_type.lower()
    odd = 0 if wide else len(head) - len(head.translate(None, _ODD))
    if odd > 3 and 20 * odd > len(head):  # a stray NUL makes no binary
        raise FetchError("not text: binary data")
    if _TEXT.fullmatch(kind):
        return content_type
    if _HTML.match(head):
        return "text/html"
    return "application/xml" if head.lstrip().startswith(b"<?xml") else "text/plain"


def decompressed(chunks: Iterable[bytes], encoding: str, max_bytes: int) -> Iterator[bytes]:
    """Chunks of a body without its Content-Encoding, at most ``max_bytes`` in all.

    A bomb is never unpacked beyond the limit. Raises ``FetchError`` for what is too large, broken,
    or in an encoding that was not asked for.
    """
    names = [name.strip() for name in encoding.lower().split(",") if name.strip()]
    names = [name for name in names if name != "identity"]
    if len(names) > 1 or not {*names} <= {"gzip", "x-gzip", "deflate"}:
        raise FetchError(f"cannot be decoded: Content-Encoding {encoding[:60]!r}")
    left = max_bytes
    unpacker = _Unpacker(names[0]) if names else None
    for chunk in chunks:
        data = unpacker.unpack(chunk, left + 1) if unpacker else chunk
        left -= len(data)
        if left < 0:
            raise too_large(max_bytes)
        yield data
    if unpacker is not None and not unpacker.ended:
        raise FetchError("broken off: the compressed page has no end")


def too_large(max_bytes: int) -> FetchError:
    """What is said of a page that is larger than ``max_bytes``."""
    size = f"{max_bytes / 1e6:g} MB" if max_bytes >= 100_000 else f"{max_bytes} bytes"
    return FetchError(f"too large: more than {size}")


class _Unpacker:
    """gzip (of one or more members) or deflate (zlib's form, or the raw one that some send)."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._window = zlib.MAX_WBITS | 16 if "gzip" in name else zlib.MAX_WBITS
        self._stream = zlib.decompressobj(self._window)
        self._begun = False

    @property
    def ended(self) -> bool:
        """Whether the end of the compressed data was read (or nothing was sent at all)."""
        return self._stream.eof or not self._begun

    def unpack(self, data: bytes, most: int) -> bytes:
        """What ``data`` holds, but no more than ``most`` bytes of it."""
        out = bytearray()
        while data and len(out) < most:
            if self._stream.eof:
                if "gzip" not in self._name or not data.strip(b"\0"):
                    break  # padding
                self._stream = zlib.decompressobj(self._window)
            try:
                out += self._stream.decompress(data, most - len(out))
            except zlib.error as error:
                if self._begun or self._name != "deflate":
                    raise FetchError(f"cannot be decoded: broken {self._name}") from error
                self._begun, self._stream = True, zlib.decompressobj(-zlib.MAX_WBITS)
                continue
            self._begun = True
            data = self._stream.unconsumed_tail or self._stream.unused_data
        return bytes(out)


def _kind(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()
