"""A regular expression of Python's `regex` or of tiktoken, in the dialect of the library `tokenizers`.

That library reads patterns with Oniguruma in Ruby's syntax. Two things there mean something else without a
word: what belongs to a class (``\\w`` holds "²", and each engine has the Unicode of its year), and ``{1,3}+``,
which is no possessive repetition but a repeated one.
"""

from __future__ import annotations

import functools
import re

import regex
import tokenizers

from slm.errors import UserError

_PART = regex.compile(
    r"""(?P<set> \[\^?\]? (?: \[:\^?\w+:\] | \\. | [^\]\\] )* \] | \\[pP](?:\{[^}]*\}|.) | \\[dDhHsSwW] )
      | (?P<possessive> \{\d+(?:,\d*)?\}\+ )
      | (?P<opening> \( )
      | (?P<closing> \) )
      | \\. | .""",
    regex.DOTALL | regex.VERBOSE,
)


def rust_regex(pattern: str, setting: str, *, spell_sets: bool) -> tokenizers.Regex:
    """`rust_pattern`, compiled.

    Raises:
        UserError: it is no pattern there; `setting` is named as what to change.
    """
    try:
        return tokenizers.Regex(rust_pattern(pattern, spell_sets=spell_sets))
    except Exception as error:  # the library raises this very class
        raise UserError(
            f"{setting}: the pattern '{pattern}' cannot be exported to Hugging Face's form, whose library `tokenizers` "
            f"does not take it ({error}); train with another one, or with tokenizer=bpe"
        ) from error


def rust_pattern(pattern: str, *, spell_sets: bool) -> str:
    """`pattern`, changed where Oniguruma is known to read it unlike the engine it was written for.

    Args:
        pattern: in the syntax of the package `regex` or of tiktoken.
        spell_sets: write every set of characters as the ranges that `regex` finds in it.
    """
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
    """A class or set of characters as ranges of code points."""
    everything = _all_characters()
    runs = [match.span() for match in regex.finditer(f"(?:{charset})+", everything)]
    spelt = [(ord(everything[start]), ord(everything[end - 1])) for start, end in runs]
    return "[" + "".join(rf"\x{{{first:X}}}-\x{{{last:X}}}" for first, last in spelt) + "]" if spelt else "(?!)"


@functools.cache
def _all_characters() -> str:
    return re.sub("[\ud800-\udfff]", "", "".join(map(chr, range(0x110000))))
