"""One small tokenizer of each kind, and of each family of Hugging Face tokenizers, made without a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import tiktoken
import tokenizers
from byte_fallback import with_byte_fallback
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from slm.tokenizers.base import Tokenizer
from slm.tokenizers.build import build_tokenizer

CORPUS = [
    "def main():\n    print('hello, world')\n\n    return 0\n",
    "the cat sat on the mat; the dog did not.\n",
    "naïve café — 日本語 日本 🙂🙂 <|endoftext|> <|pad|> <unk> </s>\n",
] * 3


def byte_level_backend() -> tokenizers.Tokenizer:
    """À la GPT-2, its end of text last and written by nothing but its name."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    backend.add_special_tokens(["<|endoftext|>"])
    return backend


def sentencepiece_backend() -> tokenizers.Tokenizer:
    """À la Llama: Metaspace, and bytes for what the vocabulary lacks."""
    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    trained.train_from_iterator(CORPUS[:2], trainers.BpeTrainer(vocab_size=80, show_progress=False))
    backend = with_byte_fallback(trained, ["<unk>", "<s>", "</s>"])
    backend.pre_tokenizer = trained.pre_tokenizer
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    backend.enable_truncation(8)  # as some published files have it
    return backend


def wordpiece_backend() -> tokenizers.Tokenizer:
    """À la BERT: a decoder that looks at neighbours."""
    backend = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    specials = ["[UNK]", "[SEP]"]
    backend.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=120, special_tokens=specials, show_progress=False)
    )
    return backend


def tiny_encoding() -> dict[str, object]:
    """What a tiktoken plugin gives: bytes in a shuffled order, some merges, a gap, two special tokens."""
    merges = [b"he", b"ll", b"hell", b" t", b" th", "é".encode(), b"  ", b"    "]
    ranks = [bytes([(byte * 7) % 256]) for byte in range(256)] + merges
    return {
        "name": "tiny",
        "pat_str": r" ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        "mergeable_ranks": {token: rank for rank, token in enumerate(ranks)},
        "special_tokens": {"<|endoftext|>": len(ranks) + 3, "<|fim|>": len(ranks) + 4},
    }


@pytest.fixture(scope="session")
def tiny_plugin() -> Iterator[None]:
    tiktoken.list_encoding_names()  # finds the real ones first
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tiktoken.registry.ENCODING_CONSTRUCTORS, "tiny", tiny_encoding)
        yield


@pytest.fixture(scope="session")
def hf_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ``byte_level``, ``sentencepiece`` and ``wordpiece`` with a tokenizer.json each."""
    root = tmp_path_factory.mktemp("hf")
    for name, make in (
        ("byte_level", byte_level_backend),
        ("sentencepiece", sentencepiece_backend),
        ("wordpiece", wordpiece_backend),
    ):
        (root / name).mkdir()
        make().save(str(root / name / "tokenizer.json"))
    return root


def _written(file: Path, text: str) -> Path:
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def made(tiny_plugin: None, hf_folder: Path) -> dict[str, Tokenizer]:
    settings = {
        "byte": ("byte", {}),
        "simple": ("simple", {}),
        "characters": ("characters", {"path": str(_written(hf_folder / "characters.txt", "".join(CORPUS)))}),
        "regex": ("regex", {}),
        "bpe": ("bpe", {"vocab_size": 330}),
        "tiktoken": ("tiktoken", {"encoding": "tiny"}),
        "byte_level": ("hf_gpt2", {"name": str(hf_folder / "byte_level")}),
        "sentencepiece": ("hf_gpt2", {"name": str(hf_folder / "sentencepiece")}),
        "wordpiece": ("hf_gpt2", {"name": str(hf_folder / "wordpiece"), "eos_token": "[SEP]"}),
    }
    return {label: build_tokenizer({"kind": kind, **given}, CORPUS) for label, (kind, given) in settings.items()}
