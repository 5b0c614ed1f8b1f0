"""A tokenizer that was made before: that of a token store, a bundle or a run's model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from slm.errors import UserError
from slm.registry import register_tokenizer
from slm.tokenizers.base import TOKENIZER_FILE, Tokenizer
from slm.tokenizers.load import load_tokenizer


@register_tokenizer("saved")
class SavedTokenizer(Tokenizer):
    """Only `create` is ever called; what it gives is a tokenizer of the kind that was saved."""

    kind = "saved"

    @classmethod
    def create(cls, texts: Iterable[str], *, path: str) -> Tokenizer:
        """The tokenizer in the folder `path`.

        Raises:
            UserError: there is none.
        """
        return load_tokenizer(Path(path).expanduser())

    @classmethod
    def source_files(cls, *, path: str) -> list[Path]:  # type: ignore[override]
        file = Path(path).expanduser() / TOKENIZER_FILE
        if not file.is_file():
            raise UserError(
                f"tokenizer.path: no tokenizer in '{path}': {TOKENIZER_FILE} is missing; "
                "give a token store, or the folder model/ of a run"
            )
        return [file]
