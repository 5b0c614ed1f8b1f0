"""Small vocabularies of the kinds that published models have, each as the folder it would be published in."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import tokenizers
from byte_fallback import with_byte_fallback
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers

CORPUS = [
    "user assistant system User: Assistant: [INST] [/INST] ### Instruction: ### Response: <|user|> <|assistant|>\n\n",
    "Be kind. Say hello, they said we are here: the cat and the hat; 12 + 30 = 42. They went on.\n",
] * 20
SPECIALS = ["<unk>", "<s>", "</s>"]
TURNS = ["<|im_start|>", "<|im_end|>"]
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_SPACES = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]


def _spm_bpe(
    prepend: str | None = None, normalizer: normalizers.Normalizer | None = None, strip: bool = True
) -> tokenizers.Tokenizer:
    """À la SentencePiece: spaces are ▁, bytes for what the vocabulary lacks."""
    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=160, show_progress=False))
    backend = with_byte_fallback(trained, SPECIALS)
    if normalizer:
        backend.normalizer = normalizer
    if prepend:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend, split=False)
    backend.decoder = decoders.Sequence([*_SPACES, decoders.Strip(" ", 1, 0)] if strip else _SPACES)
    return backend


def _llama2() -> tokenizers.Tokenizer:
    return _spm_bpe(normalizer=normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]))


def _unigram() -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.Unigram())
    backend.normalizer = normalizers.Replace(tokenizers.Regex(" {2,}"), " ")
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=SPECIALS, unk_token="<unk>", show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    return backend


def _byte_level(
    pre: pre_tokenizers.PreTokenizer, normalizer: normalizers.Normalizer | None = None, ignore_merges: bool = False
) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE(ignore_merges=ignore_merges))
    backend.pre_tokenizer = pre
    backend.decoder = decoders.ByteLevel()
    if normalizer:
        backend.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    )
    # as GPT-2's file has it: the places of tokens are told without their spaces
    backend.post_processor = tokenizers.processors.ByteLevel(trim_offsets=True)
    return backend


def _split(pattern: str) -> pre_tokenizers.PreTokenizer:
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated"), bytes_only])


def _words() -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.WordLevel(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(r"\w+|[^\w\s]|\s+"), "isolated")
    backend.decoder = decoders.Fuse()
    backend.train_from_iterator(CORPUS, trainers.WordLevelTrainer(special_tokens=SPECIALS, show_progress=False))
    return backend


_GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
_DIGITS = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _GPT2])
# name -> how it is made, and which of its special tokens a chat template needs
VOCABULARIES: dict[str, tuple[Callable[[], tokenizers.Tokenizer], Sequence[str | AddedToken]]] = {
    "llama2": (_llama2, []),
    "llama2 with turns": (_llama2, TURNS),
    "metaspace first": (lambda: _spm_bpe("first"), TURNS),
    "metaspace always": (lambda: _spm_bpe("always"), []),
    "metaspace never": (lambda: _spm_bpe("never", strip=False), TURNS),
    "unigram": (_unigram, TURNS),
    "gpt2": (lambda: _byte_level(_GPT2), []),
    "smollm": (lambda: _byte_level(_DIGITS), TURNS),
    "prefix space": (lambda: _byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True)), TURNS),
    "llama3": (lambda: _byte_level(_split(_LLAMA3), ignore_merges=True), TURNS),
    "qwen": (lambda: _byte_level(_split(_LLAMA3.replace("{1,3}", "")), normalizers.NFC()), [*TURNS, "<|user|>"]),
    # as Phi-3 has them: they take the spaces behind them
    "words": (_words, [AddedToken(token, special=True, rstrip=True) for token in [*TURNS, "<|assistant|>"]]),
}


def published(name: str, folder: Path) -> Path:
    """The vocabulary called `name` as a folder that transformers and slm load, without a chat template."""
    make, turns = VOCABULARIES[name]
    backend = make()
    backend.add_special_tokens([*SPECIALS, *turns])
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    config: dict[str, object] = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    if name == "prefix space":
        config["add_prefix_space"] = True
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder
