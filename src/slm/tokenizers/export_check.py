"""Whether a tokenizer and its export give the same ids: tried on texts that set one regex engine against another."""

from __future__ import annotations

import itertools
import operator
import random
from collections.abc import Iterator

import tokenizers

from slm.errors import UserError
from slm.tokenizers.base import Tokenizer

TEXTS = (
    "def f(x):\n\treturn x  # it's 42\n\n\n    y = 1234567.89 \r\n \r\n  \t\n",
    "I'm, you'LL, we've; THEY'RE don't 'ſ 'K ain’t  ",
    "x² ½ 1٣४ ⅷ 一二 a_b‿c e\u0301 n\u0303o ß ﬁ ǅ ʰ\u200ca\u200d_ \ufeff",
    "日本語のテキスト、한국어 हिन्दी ไทย עברית العربية 🙂👩‍👩‍👧🏳️‍🌈🇩🇪",
    "\x00\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2003\u2028\u2029\u3000\ufffd",
    "<|endoftext|>[MASK]{{}}((a|b)*)\\n$1^2//",
)
_PALETTE = "aZſß日²½5٣_-.'\"(\\ \t\n\r\x0b\x85\xa0\u2028\u200c\u0301🙂"
_IDS_A_TEXT = 1000


def check_export(tokenizer: Tokenizer, exported: tokenizers.Tokenizer, setting: str) -> None:
    """Compare the ids of some thousand texts, in which every character of the basic plane occurs.

    Raises:
        UserError: one of them differs; `setting` is named as what to change.
    """
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
    yield from TEXTS
    draw = random.Random(0)
    for _ in range(2000):
        yield "".join(draw.choices(_PALETTE, k=draw.randint(1, 16)))
    characters = [chr(code) for code in range(0x10000) if not 0xD800 <= code < 0xE000]
    for start in range(0, len(characters), 256):
        yield "".join(f"a{c}{c}1{c} {c}" for c in characters[start : start + 256])
    for start in range(0, tokenizer.vocab_size, _IDS_A_TEXT):
        yield tokenizer.decode(range(start, min(start + _IDS_A_TEXT, tokenizer.vocab_size)))
