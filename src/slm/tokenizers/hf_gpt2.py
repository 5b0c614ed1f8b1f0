"""Any Hugging Face tokenizer: GPT-2's by default, from a folder, a ``tokenizer.json`` or the hub."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from slm.errors import UserError
from slm.extras import require
from slm.files.reading import bounded_text, json_text
from slm.registry import register_tokenizer
from slm.tokenizers.base import breakdowns_refused, special_tokens_of
from slm.tokenizers.hf_files import (
    chat_template,
    end_ids,
    from_hub,
    named_tokens,
    published_ids,
    tokenizer_settings,
)
from slm.tokenizers.huggingface import HuggingFaceTokenizer
from slm.tokenizers.sentence_pieces import read_sentence_pieces
from slm.tokenizers.spelling import EOS_TOKEN

_ENCODER_FILE = "encoder.json"
_MERGES_FILE = "vocab.bpe"
_PIECES_FILE = "tokenizer.model"
_LONGEST_MERGES = 4 << 20  # bytes; GPT-2's take 456 KB. A merge is four bytes of text and three hundred of memory
_COMMON_EOS_TOKENS = (EOS_TOKEN, "<|end_of_text|>", "</s>", "<eos>")  # the order in which they are tried
_HUB_FILES = (
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "config.json", "generation_config.json"),
    *("vocab*", "merges.txt", "encoder.json", "*.model", "*.jinja"),
)


@register_tokenizer("hf_gpt2")
class HfGpt2Tokenizer(HuggingFaceTokenizer):
    """A given vocabulary; all of it travels with a saved model, so loading needs neither folder nor hub."""

    kind = "hf_gpt2"

    @classmethod
    def source_files(cls, **settings: Any) -> list[Path]:
        path = Path(settings["name"]).expanduser()
        if path.is_file():
            return [path]
        return sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else []

    @classmethod
    def create(cls, texts: Iterable[str], *, name: str = "gpt2", eos_token: str | None = None) -> HfGpt2Tokenizer:
        """The tokenizer of a folder (with a ``tokenizer.json``, GPT-2's ``encoder.json`` and ``vocab.bpe``, or what
        `transformers` can convert), of a ``tokenizer.json``, or else of that name on the Hugging Face hub. `eos_token`
        ends a text; by default the one its files name, or a common one: also where they name what ends a turn, as those
        of chat models do. `texts` is not read."""
        path = Path(name).expanduser()
        if not path.exists():
            here = f"tokenizer.name '{name}' is not a local folder or file"
            path = from_hub(name, here, " that holds tokenizer.json", _HUB_FILES)
        backend = _read(path)
        folder = path if path.is_dir() else path.parent
        return cls.given(
            backend,
            named_tokens(folder, backend),
            chat_template(folder),
            end_ids(folder),
            published_ids(folder),
            eos_token,
            f"tokenizer.name '{name}'",
        )

    @classmethod
    def given(
        cls,
        backend: tokenizers.Tokenizer,
        named: Mapping[str, str],
        template: str | None,
        ends: Iterable[int],
        published: Mapping[str, Mapping[str, Any]],
        eos_token: str | None = None,
        where: str = "the tokenizer",
    ) -> HfGpt2Tokenizer:
        """A vocabulary with what its files say beside it: tokens that are `named` ``eos_token`` and the like, a chat
        template, ids that are further `ends`; `eos_token` as for `create`."""
        names = dict(named)
        files_eos = names.pop("eos_token", None)
        candidates = [eos_token] if eos_token else _ends_of_text(backend, files_eos, template)
        eos = next((token for token in candidates if backend.token_to_id(token) is not None), None)
        if eos is None:
            tried = ", ".join(map(repr, candidates))
            raise UserError(
                f"{where} has no end-of-text token (tried {tried}): set tokenizer.eos_token to one in its vocabulary"
            )
        all_ends: list[int | None] = [*ends]
        if files_eos is not None and template is not None and files_eos != eos:
            names["eos_token"] = files_eos  # what its template calls so
            all_ends.append(backend.token_to_id(files_eos))
        pad = names.get("pad_token")
        return cls(
            backend,
            eos,
            None if pad == files_eos else pad,
            special_names=names,
            chat_template=template,
            also_ends=dict.fromkeys(end for end in all_ends if end is not None),
            published_ids=published,
        )


def _ends_of_text(backend: tokenizers.Tokenizer, named: str | None, template: str | None) -> list[str]:
    """The likeliest first: what the files name, unless a chat template ends turns with it."""
    if named is None:
        return list(_COMMON_EOS_TOKENS)
    ends_turns = template is not None and (named in template or "eos_token" in template)
    if named in _COMMON_EOS_TOKENS or not ends_turns:
        return [named, *_COMMON_EOS_TOKENS]
    special = special_tokens_of(backend)
    return [*(token for token in _COMMON_EOS_TOKENS if token in special), named]


def _read(path: Path) -> tokenizers.Tokenizer:
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        if all((path / name).is_file() for name in (_ENCODER_FILE, _MERGES_FILE)):
            return _read_openais(path)
        pieces = path / _PIECES_FILE
        read = read_sentence_pieces(pieces, tokenizer_settings(path)) if pieces.is_file() else None
        return read or _convert(path)
    text = json_text(file)
    with breakdowns_refused(f"{file} is not a tokenizer.json", "give one that `tokenizers` can load"):
        return tokenizers.Tokenizer.from_str(text)


def _convert(folder: Path) -> tokenizers.Tokenizer:
    """Let `transformers` build one from files such as ``vocab.json`` and ``merges.txt``."""
    transformers = require("transformers", "hf", f"the tokenizer in {folder}, which has no tokenizer.json,")
    try:
        return transformers.AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        ).backend_tokenizer
    except (ImportError, OSError, ValueError, AttributeError) as error:  # unknown files; no Rust backend
        reason = str(error).partition("\n")[0].rstrip(": ")
        raise UserError(
            f"transformers cannot make a tokenizer from {folder} ({reason}): "
            "give a folder that holds tokenizer.json, or a config.json beside the vocabulary"
        ) from error


def _read_openais(folder: Path) -> tokenizers.Tokenizer:
    """GPT-2's vocabulary as OpenAI published it (`get_encoder` in openai/gpt-2 `src/encoder.py`)."""
    vocab, merges = folder / _ENCODER_FILE, folder / _MERGES_FILE
    json_text(vocab)  # neither is too large
    bounded_text(merges, _LONGEST_MERGES)
    what = f"{vocab} and {_MERGES_FILE} are not GPT-2's vocabulary and merges"
    mend = "give both as OpenAI published them, or a folder that holds tokenizer.json"
    with breakdowns_refused(what, mend, also=Exception):
        backend = tokenizers.Tokenizer(models.BPE.from_file(str(vocab), str(merges)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if backend.token_to_id(EOS_TOKEN) is not None:
        backend.add_special_tokens([EOS_TOKEN])
    return backend
