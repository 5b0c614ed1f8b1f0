"""The tokenizer of a GGUF file, from the tokens, merges and scores in its header."""

from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models

from slm.errors import UserError
from slm.notices import notice
from slm.tokenizers.base import Tokenizer, breakdowns_refused
from slm.tokenizers.hf_gpt2 import HfGpt2Tokenizer
from slm.tokenizers.load import missing_tokenizer
from slm.tokenizers.sentence_pieces import begin_with, merges_by_score, sentence_piece_backend
from slm.weights.gguf.splits import GPT2, SPLITS, Split, cut_by

_UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED = 2, 3, 4, 5  # types of tokens
_NAMES = {
    "bos_token": "bos",
    "eos_token": "eos",
    "unk_token": "unknown",
    "sep_token": "seperator",
    "pad_token": "padding",
}
_ENDS = ("eot", "eom")  # of a turn, beside the end of text


def read_tokenizer(values: dict[str, Any], where: str) -> Tokenizer:
    """`UserError` for a kind that slm does not know; a stand-in if the file has none."""

    def get(key: str, default: Any = None) -> Any:
        return values.get(f"tokenizer.ggml.{key}", default)

    kind, tokens = get("model"), get("tokens")
    if kind in (None, "no_vocab", "none") or not tokens:
        return missing_tokenizer(where)
    ids = {name: get(f"{key}_token_id") for name, key in _NAMES.items()}
    if kind == "llama":  # llama.cpp's own where a file does not say
        defaults = {"bos_token": 1, "eos_token": 2, "unk_token": 0}
        ids = {name: defaults.get(name) if found is None else found for name, found in ids.items()}
    named = {name: tokens[i] for name, i in ids.items() if type(i) is int and 0 <= i < len(tokens)}
    with breakdowns_refused(f"{where}: its tokenizer is damaged", "fetch the file again", also=Exception):
        backend, begins = _backend(kind, values, named, where)
        if get("add_bos_token", begins) and "bos_token" in named:
            begin_with(named["bos_token"], backend)
    template = values.get("tokenizer.chat_template")
    said = {
        key: ids[name] for key, name in (("bos_token_id", "bos_token"), ("eos_token_id", "eos_token")) if name in named
    }
    return HfGpt2Tokenizer.given(
        backend,
        named,
        template if isinstance(template, str) else None,
        [end for end in (get(f"{key}_token_id") for key in _ENDS) if type(end) is int],
        {"config.json": said} if said else {},
        where=where,
    )


def _backend(kind: str, values: dict[str, Any], named: dict[str, str], where: str) -> tuple[tokenizers.Tokenizer, bool]:
    """And whether its texts begin with the beginning of text by default."""
    whole, pre = values.get("tokenizer.huggingface.json"), values.get("tokenizer.ggml.pre")
    begins = kind == "llama" or (pre in SPLITS and SPLITS[pre].begins)
    if isinstance(whole, str):
        return tokenizers.Tokenizer.from_str(whole), begins
    tokens = values["tokenizer.ggml.tokens"]
    kinds = values.get("tokenizer.ggml.token_type") or [_CONTROL if token in named.values() else 1 for token in tokens]
    vocab = {token: i for i, (token, of) in enumerate(zip(tokens, kinds, strict=True)) if of != _UNUSED}
    if kind == "gpt2":
        split = _split(pre, where)
        merges = [tuple(merge.split(" ", 1)) for merge in values["tokenizer.ggml.merges"]]
        backend = tokenizers.Tokenizer(models.BPE(vocab, merges, ignore_merges=split.whole_tokens_first))
        backend.decoder = decoders.ByteLevel()
        cut_by(split, backend)
    elif kind == "llama":
        scores = dict(zip(tokens, values["tokenizer.ggml.scores"], strict=True))
        prefixed = values.get("tokenizer.ggml.add_space_prefix", True)
        backend = sentence_piece_backend(vocab, merges_by_score(vocab, scores), named["unk_token"], prefixed)
    else:
        known = "gpt2 (byte-level merges) and llama (SentencePiece)"
        raise UserError(f"{where}: a tokenizer of the kind '{kind}' cannot be read; known are {known}")
    for token, i in vocab.items():
        if kinds[i] in (_UNKNOWN, _CONTROL):
            backend.add_special_tokens([token])
        elif kinds[i] == _USER_DEFINED:
            backend.add_tokens([AddedToken(token, normalized=False)])
    return backend, begins


def _split(pre: str | None, where: str) -> Split:
    if pre is None:
        notice(f"{where} does not say how its tokenizer cuts texts (tokenizer.ggml.pre): cut as GPT-2 does")
        return GPT2
    if pre not in SPLITS:
        raise UserError(
            f"{where}: its tokenizer cuts texts as '{pre}' does, which slm cannot (known: {', '.join(SPLITS)}); take "
            "the model's Hugging Face files"
        )
    return SPLITS[pre]
