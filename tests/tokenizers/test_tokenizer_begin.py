"""What stands before every text: Llama's ``<s>``, say, in the data and in the prompt alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
from small_store import Split, split_documents, write_store
from tokenizers import processors

from slm.data.batches.windows import WindowDataset
from slm.data.documents.source import Document
from slm.generation.config import GenerationConfig
from slm.generation.engine import Engine
from slm.generation.language_model import LanguageModel
from slm.generation.request import Request, Token
from slm.models.config import ModelConfig
from slm.models.contract import build_model
from slm.tokenizers.base import Tokenizer
from slm.tokenizers.hf_gpt2 import HfGpt2Tokenizer
from slm.tokenizers.load import load_tokenizer


def sentencepiece(source: Path, folder: Path, single: str) -> HfGpt2Tokenizer:
    """The small one of the fixtures; `single` says what it adds to a text ($A)."""
    backend = tokenizers.Tokenizer.from_file(str(source / "sentencepiece" / "tokenizer.json"))
    backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=[("<s>", 1), ("</s>", 2)])
    folder.mkdir(exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    return HfGpt2Tokenizer.create([], name=str(folder))


@pytest.fixture
def llama(hf_folder: Path, tmp_path: Path) -> HfGpt2Tokenizer:
    return sentencepiece(hf_folder, tmp_path / "llama", "<s> $A </s>")


@pytest.mark.parametrize(
    ("single", "begin_ids"), [("<s> $A </s>", (1,)), ("<s> </s> $A", (1, 2)), ("$A </s>", ()), ("$A", ())]
)
def test_they_are_what_the_post_processor_puts_in_front(
    hf_folder: Path, tmp_path: Path, single: str, begin_ids: tuple[int, ...]
) -> None:
    tokenizer = sentencepiece(hf_folder, tmp_path, single)
    assert tokenizer.begin_ids == begin_ids
    assert 1 not in tokenizer.encode("the cat")


def test_a_saved_tokenizer_keeps_them_and_an_older_one_stays_without(llama: HfGpt2Tokenizer, tmp_path: Path) -> None:
    """A model that was trained with nothing before its texts is not to be prompted with something."""
    llama.save(tmp_path)
    assert load_tokenizer(tmp_path).begin_ids == (1,)
    older = HfGpt2Tokenizer.from_state({k: v for k, v in llama.state().items() if k != "begin_ids"})
    assert older.begin_ids == ()
    assert older.fingerprint != load_tokenizer(tmp_path).fingerprint == llama.fingerprint


def test_tokenizers_without_them_are_saved_as_ever(made: dict[str, Tokenizer]) -> None:
    """The fingerprint of a run's tokenizer, and so of its data, is that of earlier versions."""
    assert [tokenizer.begin_ids for tokenizer in made.values()] == [()] * len(made)
    assert set(made["byte_level"].state()) == set(made["bpe"].state()) == {"tokenizer", "eos_token", "pad_token"}


def test_each_document_begins_with_them_and_a_part_only_if_it_is_the_first(
    llama: HfGpt2Tokenizer, tmp_path: Path
) -> None:
    one, two = (Document(name, f"the cat {name}") for name in "ab")
    store = write_store(tmp_path / "whole", Split([one, two], [two]), llama)
    a, b = llama.encode(one.text), llama.encode(two.text)
    assert np.asarray(store.tokens("train")).tolist() == [1, *a, 2, 1, *b, 2]
    assert np.asarray(store.tokens("val")).tolist() == [1, *b, 2]
    parts = split_documents([Document("c", "the cat sat on the mat " * 9)], 0.5)
    store = write_store(tmp_path / "parts", parts, llama)
    assert np.asarray(store.tokens("train")).tolist() == [1, *llama.encode(parts.train[0].text)]
    assert np.asarray(store.tokens("val")).tolist() == llama.encode(parts.val[0].text)


def test_a_window_begins_with_them_where_a_text_does(llama: HfGpt2Tokenizer, tmp_path: Path) -> None:
    """Decided: a window is a piece of the running text, as in the pretraining of the models that have them. All tokens
    but the first are labels once, the beginnings among them."""
    documents = [Document(name, f"the cat {name} sat on the mat") for name in "abc"]
    tokens = write_store(tmp_path / "store", Split(documents, documents), llama).tokens("train")
    windows = WindowDataset(tokens, 8)
    batch = windows.__getitems__(range(len(windows)))
    ids, labels = batch["input_ids"].flatten().tolist(), batch["labels"].flatten().tolist()
    assert ids[: len(tokens) - 1] == tokens[:-1].tolist()
    assert labels[: len(tokens) - 1] == tokens[1:].tolist()
    assert batch["input_ids"][0, 0] == 1
    assert batch["input_ids"][1, 0] != 1


def test_a_prompt_begins_with_them(hf_folder: Path, tmp_path: Path) -> None:
    """An empty one too, which else stands for the end of the text before."""
    backend = tokenizers.Tokenizer.from_file(str(hf_folder / "byte_level" / "tokenizer.json"))
    backend.add_special_tokens(["<s>"])
    bos = backend.token_to_id("<s>")
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    tokenizer = HfGpt2Tokenizer(backend, "<|endoftext|>")
    config = ModelConfig.from_dict(
        {
            "name": "gpt",
            "params": {"max_seq_len": 32, "vocab_size": tokenizer.vocab_size},
            "modules": {"transformer": {"dim": 16, "n_layers": 2, "n_heads": 2, "activation": "gelu_tanh"}},
        }
    )
    torch.manual_seed(0)
    model = build_model(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    settings = GenerationConfig(greedy=True, stop_at_eos=False, max_new_tokens=12)

    def continued(prompt_ids: list[int]) -> str:
        engine = Engine(model, settings, tokenizer.eos_id, vocab_size=tokenizer.vocab_size)
        events = engine.run([Request(prompt_ids, settings.max_new_tokens, settings.seed)])
        return tokenizer.decode(event.token_id for event in events if isinstance(event, Token))

    for prompt in ("the cat", ""):
        ids = tokenizer.encode(prompt)
        assert LanguageModel(model, tokenizer, facts={}).generate(prompt, settings) == continued([bos, *ids])
        assert continued([bos, *ids]) != continued(ids)
