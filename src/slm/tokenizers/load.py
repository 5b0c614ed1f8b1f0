"""Tokenizers that were made before, and what stands for one where a model came without."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from slm.errors import UserError
from slm.files.reading import read_json_object
from slm.registry import TOKENIZERS, register_tokenizer
from slm.tokenizers.base import ADDED_TOKENS, TOKENIZER_FILE, Tokenizer, breakdowns_refused
from slm.tokenizers.extended import ExtendedTokenizer


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer that `Tokenizer.save` wrote into `folder`; `UserError` if it is missing or damaged."""
    path = Path(folder) / TOKENIZER_FILE
    if not path.is_file():
        raise UserError(f"the model or token store '{folder}' is not whole: {path.name} is missing; make it again")
    state = read_json_object(path)
    kind, added = state.pop("kind", None), state.pop(ADDED_TOKENS, None)
    if not isinstance(kind, str):
        raise UserError(f"{path} is not a saved tokenizer (it names no kind); make the run or bundle again")
    from_state = TOKENIZERS.get(kind).from_state
    with breakdowns_refused(f"{path} is not a saved tokenizer", "make the run or bundle again", also=Exception):
        tokenizer: Tokenizer = from_state(state)
        if added is not None:
            ends = [int(token_id) for token_id in state.get("also_ends", ())]
            template, template_args = state.get("chat_template"), dict(state.get("template_args", {}))
            return ExtendedTokenizer(tokenizer, [str(token) for token in added], template, ends, template_args)
    return tokenizer


@register_tokenizer("saved")
class SavedTokenizer(Tokenizer):
    """That of a token store, a bundle or a run: only `create` is ever called, and gives one of the kind saved there."""

    kind = "saved"

    @classmethod
    def create(cls, texts: Iterable[str], *, path: str) -> Tokenizer:
        (file,) = cls.source_files(path=path)
        return load_tokenizer(file.parent)

    @classmethod
    def source_files(cls, *, path: str) -> list[Path]:  # type: ignore[override]
        file = Path(path).expanduser() / TOKENIZER_FILE
        if not file.is_file():
            raise UserError(
                f"tokenizer.path: no tokenizer in '{path}': {TOKENIZER_FILE} is missing; "
                "give a token store, or the folder model/ of a run"
            )
        return [file]


class _Missing:
    """Refuses whatever is asked of it: the model itself needs no tokenizer."""

    def __init__(self, place: str) -> None:
        self._place = place

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise UserError(
            f"'{self._place}' holds a model without a tokenizer, so it reads ids and no text (lm.model takes them); "
            "put the tokenizer's files there (tokenizer.json), or train with one of your own (tokenizer=…)"
        )


def missing_tokenizer(place: str) -> Tokenizer:
    """Of the model in the folder `place`."""
    return cast(Tokenizer, _Missing(place))


def is_missing(tokenizer: Tokenizer) -> bool:
    """Whether the model came without one."""
    return isinstance(tokenizer, _Missing)
