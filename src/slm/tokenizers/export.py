"""A tokenizer as a folder that ``transformers.AutoTokenizer.from_pretrained`` loads, with no code of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from slm.tokenizers.base import Tokenizer
from slm.tokenizers.hf_names import CONFIG_FILE, SPECIAL_FILE


def save_huggingface(tokenizer: Tokenizer, folder: Path, max_seq_len: int) -> None:
    """Write ``tokenizer.json``, ``tokenizer_config.json`` and ``special_tokens_map.json`` into `folder`.

    What `AutoTokenizer` makes of them is what `Tokenizer.to_huggingface`, which may refuse, says (the difference is its
    ``split_special_tokens``); with ``add_special_tokens=True`` it adds what the vocabulary's own files asked for.
    """
    backend = tokenizer.to_huggingface()
    names = dict(tokenizer.special_names)  # as they came, else the ends and the padding that are in use
    for name, token_id in (("eos_token", tokenizer.eos_id), ("pad_token", tokenizer.pad_id)):
        if name not in names and token_id is not None and (token := backend.id_to_token(token_id)) is not None:
            names[name] = token
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # the name that `transformers` 4 and 5 both know
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
    backend.save(str(folder / "tokenizer.json"))
    for file, content in ((CONFIG_FILE, config), (SPECIAL_FILE, names)):
        text = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
        (folder / file).write_text(text, encoding="utf-8")
