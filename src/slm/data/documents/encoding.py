"""Text in other encodings than UTF-8, as UTF-8."""

import codecs
from collections.abc import Iterator
from contextlib import suppress

from slm.data.documents.compression import BrokenFileError, Content, pieces
from slm.extras import require

UTF_8 = "utf-8"
_MARKS = {
    codecs.BOM_UTF8: UTF_8,
    codecs.BOM_UTF32_LE: "utf-32",  # ahead of that of UTF-16, which it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_SAMPLE = 1 << 16  # bytes of lines that are not plain ASCII: enough to know a language by
# What files are in. Of all that Python knows, one fits any French better than its own: of short texts none can be told.
_COMMON = ["cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "koi8_r"]
_COMMON += ["gb18030", "big5", "cp932", "euc_jp", "cp949"]
_NO_TEXT = b"\xff"  # in UTF-8 it stands nowhere

codecs.register_error("slm.no_text", lambda error: ("\udcff", error.end))  # type: ignore[attr-defined]


def as_utf8(source: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """Pieces of another encoding; what is none in it becomes a byte that is none in UTF-8 either."""
    decoder = codecs.getincrementaldecoder(encoding)("slm.no_text")
    for piece in source:
        yield _encoded(decoder.decode(piece))
    yield _encoded(decoder.decode(b"", True))


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _NO_TEXT.join(part.encode("utf-8", "surrogatepass") for part in text.split("\udcff"))


def encoding_of(file: Content, most: int) -> str:
    """By its mark, or as UTF-8 if its lines are that but for a few bytes, or as charset-normalizer guesses of those
    lines that are not plain ASCII; at most `most` bytes are looked at."""
    sample = bytearray()
    with suppress(BrokenFileError):  # told when it is read
        for number, piece in enumerate(pieces(file, size=most)):
            if number == 0 and (known := _by_first_bytes(piece)):
                return known
            if not piece.isascii():
                sample += b"\n".join(line for line in piece.split(b"\n") if not line.isascii())
            if len(sample) >= _SAMPLE:
                break
    text = sample[:_SAMPLE].decode(errors="replace")
    if 2 * text.count("\ufffd") <= sum(character > "\x7f" for character in text):
        return UTF_8
    return _guessed(bytes(sample[:_SAMPLE]))


def _by_first_bytes(piece: bytes) -> str | None:
    for mark, encoding in _MARKS.items():
        if piece.startswith(mark):
            return encoding
    for encoding, nul, other in (("utf-16-le", 1, 0), ("utf-16-be", 0, 1)):
        zeros, others = (piece[first::2].count(0) for first in (nul, other))
        if zeros > len(piece) // 4 and not others:
            return encoding
    return None


def _guessed(sample: bytes) -> str:
    normalizer = require("charset_normalizer", "data", "data.encoding=auto")
    found = list(normalizer.from_bytes(sample, cp_isolation=_COMMON))
    if not found:
        return UTF_8  # and refused when it is read
    best = found[0]
    alike = [one for one in found if one.chaos <= best.chaos]
    return "cp1252" if any("cp1252" in one.could_be_from_charset for one in alike) else str(best.encoding)
