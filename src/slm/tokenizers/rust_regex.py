"""A regular expression of Python's `regex` or of tiktoken, in the dialect of the library `tokenizers`: Oniguruma reads
classes (``\\w`` holds "²", each engine has the Unicode of its year) and ``{1,3}+``, no possessive repetition, otherwise
without a word. What else it does (``^`` begins any line) is found by trying."""

import functools
import itertools
import operator
import random
from collections.abc import Iterator

import regex
import tokenizers

from slm.errors import UserError
from slm.tokenizers.base import Tokenizer

_PART = regex.compile(
    r"""(?P<set> \[\^?\]? (?: \[:\^?\w+:\] | \\. | [^\]\\] )* \] | \\[pP](?:\{[^}]*\}|.) | \\[dDhHsSwW] )
      | (?P<possessive> \{\d+(?:,\d*)?\}\+ )
      | (?P<opening> \( )
      | (?P<closing> \) )
      | \\. | .""",
    regex.DOTALL | regex.VERBOSE,
)
_TEXTS = (
    "def f(x):\n\treturn x  # it's 42\n\n\n    y = 1234567.89 \r\n \r\n  \t\n",
    "I'm, you'LL, we've; THEY'RE don't 'ſ 'K ain’t  ",
    "x² ½ 1٣४ ⅷ 一二 a_b‿c e\u0301 n\u0303o ß ﬁ ǅ ʰ\u200ca\u200d_ \ufeff",
    "日本語のテキスト、한국어 हिन्दी ไทย עברית العربية 🙂👩‍👩‍👧🏳️‍🌈🇩🇪",
    "\x00\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2003\u2028\u2029\u3000\ufffd",
    "<|endoftext|>[MASK]{{}}((a|b)*)\\n$1^2//",
)
_PALETTE = "aZſß日²½5٣_-.'\"(\\ \t\n\r\x0b\x85\xa0\u2028\u200c\u0301🙂"
_IDS_A_TEXT = 1000


def rust_regex(pattern: str, setting: str, *, spell_sets: bool) -> tokenizers.Regex:
    """`rust_pattern`, compiled; `UserError` that names `setting` if it is no pattern there."""
    try:
        return tokenizers.Regex(rust_pattern(pattern, spell_sets=spell_sets))
    except Exception as error:  # the library raises this very class
        raise UserError(
            f"{setting}: the pattern '{pattern}' cannot be exported to Hugging Face's form, whose library `tokenizers` "
            f"does not take it ({error}); train with another one, or with tokenizer=bpe"
        ) from error


def rust_pattern(pattern: str, *, spell_sets: bool) -> str:
    """`pattern`, of the package `regex` or of tiktoken, changed where Oniguruma is known to read it otherwise; with
    `spell_sets` every set of characters is written as the ranges that `regex` finds in it."""
    parts: list[str] = []
    atom = 0  # the part where what a quantifier would repeat begins
    groups: list[int] = []
    for match in _PART.finditer(pattern):
        part = match.group()
        if match["possessive"]:
            parts[atom:] = ["(?>", *parts[atom:], part[:-1], ")"]
            continue
        atom = groups.pop() if match["closing"] and groups else len(parts)
        if match["opening"]:
            groups.append(len(parts))
        parts.append(_ranges(part) if spell_sets and match["set"] else part)
    return "".join(parts)


@functools.cache
def _ranges(charset: str) -> str:
    runs = [match.group() for match in regex.finditer(f"(?:{charset})+", _all_characters())]
    spelt = [rf"\x{{{ord(run[0]):X}}}-\x{{{ord(run[-1]):X}}}" for run in runs]
    return f"[{''.join(spelt)}]" if spelt else "(?!)"


@functools.cache
def _all_characters() -> str:
    return "".join(map(chr, (*range(0xD800), *range(0xE000, 0x110000))))


def check_export(tokenizer: Tokenizer, exported: tokenizers.Tokenizer, setting: str) -> None:
    """`UserError` that names `setting` if ids of some thousand texts, with all of the basic plane in them, differ."""
    probes = list(_probes(tokenizer))
    exported.encode_special_tokens = True  # the one difference that is meant
    batch = exported.encode_batch_fast(probes, add_special_tokens=False)
    exported.encode_special_tokens = False
    for text, ids, encoding in zip(probes, tokenizer.encode_batch(probes), batch, strict=True):
        if ids != encoding.ids:
            same = sum(1 for _ in itertools.takewhile(bool, map(operator.eq, ids, encoding.ids)))
            offset = exported.encode(text, add_special_tokens=False).offsets[: same + 1][-1][0]
            raise UserError(
                f"tokenizer={tokenizer.kind} cannot be exported to Hugging Face's form: the library `tokenizers` cuts "
                f"text such as {text[max(0, offset - 4) : offset + 4]!r} otherwise; train with another {setting}, "
                "or with tokenizer=bpe"
            )


def _probes(tokenizer: Tokenizer) -> Iterator[str]:
    yield from _TEXTS
    draw = random.Random(0)
    for _ in range(2000):
        yield "".join(draw.choices(_PALETTE, k=draw.randint(1, 16)))
    characters = [chr(code) for code in range(0x10000) if not 0xD800 <= code < 0xE000]
    for start in range(0, len(characters), 256):
        yield "".join(f"a{c}{c}1{c} {c}" for c in characters[start : start + 256])
    for start in range(0, tokenizer.vocab_size, _IDS_A_TEXT):
        yield tokenizer.decode(range(start, min(start + _IDS_A_TEXT, tokenizer.vocab_size)))
