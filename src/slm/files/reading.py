"""Files that others may have made, read within bounds, so that none can fill the memory; and their digests."""

import functools
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slm.errors import UserError

_AGAIN = "fetch or make it again"
_MOST_JSON_BYTES = 48 << 20  # the largest tokenizers, of 262,000 tokens, take 33 MB
_MOST_JSON_VALUES = 3_000_000  # `[],` is three bytes of text and seventy of memory; those tokenizers hold two million
MOST_YAML_BYTES = 1 << 18  # a run's whole configuration takes 5 KiB


def bounded_text(file: Path, most_bytes: int, mend: str = _AGAIN) -> str:
    """The text of a regular file; `UserError` if it is missing, longer than `most_bytes`, unreadable or not UTF-8."""
    try:
        if not file.exists():
            raise UserError(f"{file} is missing")
        if not file.is_file():  # a pipe would wait for ever
            raise UserError(f"{file} is no file; {mend}")
        with file.open("rb") as content:
            raw = content.read(most_bytes + 1)
        if len(raw) > most_bytes:
            raise UserError(f"{file} is longer than {most_bytes >> 10:,} KiB, which is not what it should be; {mend}")
        return raw.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is damaged ({error}); {mend}") from None


def json_text(file: Path, mend: str = _AGAIN) -> str:
    """The text of a JSON file, not parsed; `UserError` as `bounded_text`, or if there is more in it than in any file
    of a model, which takes a few hundred megabytes."""
    text = bounded_text(file, _MOST_JSON_BYTES, mend)
    if text.count(",") + text.count("[") + text.count("{") > _MOST_JSON_VALUES:
        most = f"{_MOST_JSON_VALUES:,} values"
        raise UserError(f"{file} holds more than {most}, more than any model's file; {mend}")
    return text


def read_json_object(file: Path, mend: str = _AGAIN) -> dict[str, Any]:
    """What a JSON file holds; `UserError` as `json_text`, or if it is no JSON object, or nested without end."""
    text = json_text(file, mend)

    def parse() -> Any:
        content = json.loads(text)
        if "\\u" in text:  # it can spell half a surrogate pair, which is no text and can be written nowhere
            json.dumps(content, ensure_ascii=False).encode()
        return content

    return _mapping(file, parse, "JSON object", mend)


def read_yaml_object(file: Path) -> dict[str, Any]:
    """What a YAML file holds: mappings, lists, numbers, texts, and no Python objects; `UserError` as `bounded_text`, or
    if it is no mapping, is nested without end, or has aliases: a few lines of them can stand for a memory of values."""
    return yaml_object(bounded_text(file, MOST_YAML_BYTES, "restore it"), file)


def yaml_object(text: str, file: Path) -> dict[str, Any]:
    """The same of a text, or a part of it, out of `file`."""
    import yaml

    # an alias begins with a star: without one the parser in C, ten times as fast, which cannot refuse them, will do
    fast = None if "*" in text else getattr(yaml, "CSafeLoader", None)
    return _mapping(
        file, lambda: yaml.load(text, fast or _loader_without_aliases()), "mapping", "restore it", yaml.YAMLError
    )


@functools.cache
def _loader_without_aliases() -> type:
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise ValueError("it has aliases")
            return super().compose_node(parent, index)

    return Loader


def _mapping(
    file: Path, parse: Callable[[], Any], kind: str, mend: str, failure: type[Exception] = ValueError
) -> dict[str, Any]:
    try:
        content = parse()
    except (failure, ValueError, RecursionError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is damaged ({' '.join(str(error).split())[:200]}); {mend}") from None
    if not isinstance(content, dict):
        raise UserError(f"{file} is damaged (it holds no {kind}); {mend}")
    return content


def digest_of(file: Path, algorithm: str = "sha256") -> str:
    """Hex digest of what `file` holds, read in blocks."""
    digest = hashlib.new(algorithm, usedforsecurity=algorithm != "md5")
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def is_unicode(text: str) -> bool:
    """It holds whole characters alone: JSON can spell half a pair of surrogates, which has no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def with_replacements(text: str) -> str:
    """The same with U+FFFD for each half of a pair of surrogates, and for each NUL."""
    return re.sub("[\0\ud800-\udfff]", "\ufffd", text)
