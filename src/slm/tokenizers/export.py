"""A tokenizer as a folder that ``transformers.AutoTokenizer.from_pretrained`` loads, with no code of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers

from slm.tokenizers.base import Tokenizer
from slm.tokenizers.hf_names import CONFIG_FILE, SPECIAL_FILE

VOCABULARY_FILE = "tokenizer.json"
LIBRARY_CLASS = "PreTrainedTokenizerFast"
"""`transformers` 4 has this class, 5 knows the name; both then take ``tokenizer.json`` as it is."""


def save_huggingface(tokenizer: Tokenizer, folder: Path, max_seq_len: int) -> None:
    """Write ``tokenizer.json``, ``tokenizer_config.json`` and ``special_tokens_map.json`` into `folder`.

    What `AutoTokenizer` makes of it encodes with ``add_special_tokens=False``, and decodes with
    ``skip_special_tokens=True``, as `tokenizer` does; text that spells a special token is that token there
    unless it is loaded with ``split_special_tokens=True``. With ``add_special_tokens=True`` it does what the
    vocabulary's own files asked for: `Tokenizer.begin_ids` in front, for one.

    Args:
        tokenizer: of any kind.
        folder: made if it is not there; files of these names are replaced.
        max_seq_len: the most tokens the model takes.

    Raises:
        UserError: the tokenizer cannot be said exactly in the terms of the library `tokenizers`.
    """
    backend = tokenizer.to_huggingface()
    names = _names(tokenizer, backend)
    config: dict[str, Any] = {
        "tokenizer_class": LIBRARY_CLASS,
        "model_max_length": max_seq_len,
        "model_input_names": ["input_ids", "attention_mask"],  # no token types: models of one text know none
        "clean_up_tokenization_spaces": False,
        **names,
    }
    pre_tokenizer = json.loads(backend.to_str())["pre_tokenizer"] or {}
    if pre_tokenizer.get("add_prefix_space"):
        config["add_prefix_space"] = True  # else `transformers` 4 takes it back
    if tokenizer.chat_template is not None:
        config["chat_template"] = tokenizer.chat_template
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / VOCABULARY_FILE))
    _write(folder / CONFIG_FILE, config)
    _write(folder / SPECIAL_FILE, names)


def _names(tokenizer: Tokenizer, backend: tokenizers.Tokenizer) -> dict[str, str]:
    """What each special token is called: as it came, else the end of text and the padding that are in use."""
    names = dict(tokenizer.special_names)
    for name, token_id in (("eos_token", tokenizer.eos_id), ("pad_token", tokenizer.pad_id)):
        if name not in names and token_id is not None and (token := backend.id_to_token(token_id)) is not None:
            names[name] = token
    return names


def _write(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
