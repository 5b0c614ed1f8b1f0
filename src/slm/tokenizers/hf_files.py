"""The files of a Hugging Face tokenizer: what those beside a vocabulary say of it, and ours as a folder of them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm.errors import UserError
from slm.files.reading import bounded_text, read_json_object

if TYPE_CHECKING:
    import tokenizers

    from slm.tokenizers.base import Tokenizer

CONFIG_FILE = "tokenizer_config.json"
SPECIAL_FILE = "special_tokens_map.json"
MODEL_FILE = "config.json"
GENERATION_FILE = "generation_config.json"
_TEMPLATE_FILE = "chat_template.jinja"
_LONGEST_TEMPLATE = 1 << 20
_MARK, _END_OF_MARK = (re.compile(rf"(\{{%[-+]?\s*){name}(\s*[-+]?%\}})") for name in ("generation", "endgeneration"))
_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def from_hub(name: str, here: str, mend: str, files: Sequence[str], ignored: Sequence[str] = ()) -> Path:
    """The folder of `files` of a repository on the hub; `UserError` that says what is `here`, and how to `mend` it."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(files), ignore_patterns=list(ignored)))
    except (OSError, ValueError) as error:  # no network, no such repository, not a repository's name
        raise UserError(
            f"{here}, and cannot be had from the Hugging Face hub ({type(error).__name__}): "
            f"correct it, go online once, or give a folder{mend}"
        ) from error


def named_tokens(folder: Path, backend: tokenizers.Tokenizer) -> dict[str, str]:
    """``eos_token``, ``pad_token``, … to tokens of the vocabulary; others are left out. Where no tokenizer file speaks
    of a beginning of text (GPT-2's do not), the model's ``config.json`` may."""
    entries = {**_read(folder / SPECIAL_FILE), **_read(folder / CONFIG_FILE)}
    if "bos_token" not in entries and isinstance(bos_id := _read(folder / MODEL_FILE).get("bos_token_id"), int):
        entries["bos_token"] = backend.id_to_token(bos_id) if 0 <= bos_id < 1 << 32 else None
    named = {name: _content(entries.get(name)) for name in _NAMES}
    return {
        name: token
        for name, token in named.items()
        if isinstance(token, str) and backend.token_to_id(token) is not None
    }


def chat_template(folder: Path) -> str | None:
    """The Jinja template for conversations: the file of that name, else the configuration's (its default one)."""
    file = folder / _TEMPLATE_FILE
    if file.is_file():
        return bounded_text(file, _LONGEST_TEMPLATE)
    template = _read(folder / CONFIG_FILE).get("chat_template")
    if isinstance(template, list):  # several, each with a name
        defaults = (entry for entry in template if _content(entry, "name") == "default")
        template = _content(next(defaults, None), "template")
    return template if isinstance(template, str) else None


def end_ids(folder: Path) -> list[int]:
    """Ids at which the model stops, by generation's file or else, if several, the model's: a single one says no more
    than the tokenizer's end of text, and is often a default that nobody set."""
    found = _read(folder / GENERATION_FILE).get("eos_token_id")
    if found is None and isinstance(of_model := _read(folder / MODEL_FILE).get("eos_token_id"), list):
        found = of_model
    return [i for i in (found if isinstance(found, list) else [found]) if type(i) is int]


def published_ids(folder: Path) -> dict[str, dict[str, Any]]:
    """``bos_token_id`` and the like of the model's configuration and of generation's, by file, as they stand there."""
    files = {name: _read(folder / name) for name in (MODEL_FILE, GENERATION_FILE)}
    said = {name: {key: values[key] for key in _IDS if _is_id(values.get(key))} for name, values in files.items()}
    return {name: ids for name, ids in said.items() if ids}


def _is_id(value: Any) -> bool:
    return all(type(one) is int and one >= 0 for one in (value if isinstance(value, list) else [value]))


def _content(entry: Any, key: str = "content") -> Any:
    return entry.get(key) if isinstance(entry, Mapping) else entry


def tokenizer_settings(folder: Path) -> dict[str, Any]:
    """What ``tokenizer_config.json`` says."""
    return _read(folder / CONFIG_FILE)


def _read(file: Path) -> dict[str, Any]:
    return read_json_object(file) if file.is_file() else {}


def published_template(tokenizer: Tokenizer, marks: bool = True) -> str | None:
    """The chat template, given what it was in training by itself where who asks it says nothing else. Without `marks`,
    ``{% generation %}`` blocks are plain ones: readers but for `transformers` may refuse a template that has such."""
    if tokenizer.chat_template is None:
        return None
    args = "".join(
        f"{{%- if {name} is not defined %}}{{%- set {name} = {_in_jinja(value)} %}}{{%- endif %}}"
        for name, value in tokenizer.template_args.items()
    )
    template = args + tokenizer.chat_template
    return template if marks else _END_OF_MARK.sub(r"\1endif\2", _MARK.sub(r"\1if true\2", template))


def _in_jinja(value: Any) -> str:
    """A plain value as Jinja spells it: as JSON does, but for null."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_in_jinja(key)}: {_in_jinja(one)}' for key, one in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_in_jinja, value))}]"
    return "none" if value is None else json.dumps(value)


def save_huggingface(tokenizer: Tokenizer, folder: Path, max_seq_len: int) -> None:
    """Write ``tokenizer.json``, ``tokenizer_config.json`` and ``special_tokens_map.json`` into `folder`: what
    `AutoTokenizer` makes of them is what `Tokenizer.to_huggingface`, which may refuse, says (the difference is its
    ``split_special_tokens``); with ``add_special_tokens=True`` it adds what the vocabulary's own files asked for."""
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
        config["chat_template"] = published_template(tokenizer)
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    for file, content in ((CONFIG_FILE, config), (SPECIAL_FILE, names)):
        text = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
        (folder / file).write_text(text, encoding="utf-8")
