"""GGUF files: the logits of the model that was written, dequantized numbers to the bit, tokenizers' own ids."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_gguf import write_gguf
from test_hugging_face_parity import GPT2, LLAMA, MISTRAL, NEOX, QWEN2, QWEN3, VOCAB, their_model
from test_other_tools import write_adapter
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

import slm
from slm.errors import UserError
from slm.tokenizers.load import is_missing
from slm.weights.gguf.parts import read_gguf
from slm.weights.gguf.read import open_gguf
from slm.weights.name_table import their_tensors

gguf = pytest.importorskip("gguf", reason="the extra slm[gguf] is not installed")
transformers = pytest.importorskip("transformers", reason="the extra slm[hf] is not installed")

CASES_OF_OTHERS = Path(os.environ.get("SLM_TEST_CASES", Path(__file__).parents[3] / "shared" / "cases")) / "checkpoints"
WIDE = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 96}  # rows that blocks of 32 fit
CASES: dict[str, dict[str, Any]] = {
    "gpt2": GPT2,
    "llama": LLAMA,
    "llama tied, wide heads, biases": {**LLAMA, "tie_word_embeddings": True, "head_dim": 12, "attention_bias": True},
    "mistral": {**MISTRAL, "sliding_window": None},
    "qwen2": QWEN2,
    "qwen3": {**QWEN3, "rope_theta": 1e6},
    "gpt_neox": NEOX,
    "gpt_neox sequential": {**NEOX, "use_parallel_residual": False, "rotary_pct": 0.5},
}
TEXTS = (
    "Hello, world! It's 12345 and 6.7; we'll see.\n\n  def f(x):\n\treturn x  # done   \r\n",
    "naïve Füße 東京 🙂🙂 I'LL don'T ÀÉ \u0130x e\u0301 ٣٤٥ a_b--c...   d",
    " leading, trailing ",
    "a <|endoftext|> in a text\u00a0and\u2028more",
)


@pytest.mark.parametrize("case", CASES)
def test_a_file_is_the_model_that_was_written(case: str, tmp_path: Path) -> None:
    """And the table gives the file's tensors back, all of them, to the bit."""
    theirs = their_model(CASES[case])
    write_gguf(tmp_path / "m.gguf", theirs)
    opened = open_gguf(tmp_path / "m.gguf")
    ours = opened.model()
    ids = torch.randint(1, VOCAB, (2, 24), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours(ids), theirs(ids).logits, rtol=1e-4, atol=1e-4)
    written = their_tensors(opened.table, ours.state_dict(), opened.config.vocab_size)
    assert written.keys() == opened.tensors.stored.keys()
    assert all(torch.equal(written[name], opened.tensors.read(name)) for name in written)


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_quantized_weights_are_what_their_codes_stand_for(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = their_model({**LLAMA, **WIDE})
    write_gguf(tmp_path / "m.gguf", theirs, quantized=kind)
    opened = open_gguf(tmp_path / "m.gguf")
    ids = torch.arange(1, 20)[None]
    torch.testing.assert_close(opened.model()(ids), theirs(ids).logits, rtol=1e-4, atol=1e-4)
    told = capsys.readouterr().err
    assert (f"16 {kind}" in told) == kind.startswith("Q")


@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"])
def test_k_quants_are_read_by_the_package_gguf(kind: str, tmp_path: Path) -> None:
    form = gguf.GGMLQuantizationType[kind]
    block, block_bytes = gguf.GGML_QUANT_SIZES[form]
    codes = np.random.default_rng(0).integers(0, 60, (3, 2 * block_bytes), dtype=np.uint8)  # small: no scale is inf
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tensor("x", codes, raw_dtype=form)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    stored = read_gguf(tmp_path / "m.gguf").tensors.stored["x"]
    assert stored.shape == (3, 2 * block)
    expected = gguf.dequantize(codes, form)
    assert np.isfinite(expected).all()
    assert np.ptp(expected) > 0
    assert np.array_equal(stored.read().numpy(), expected)


def test_scaled_rotary_positions(tmp_path: Path) -> None:
    """llama3's scaling is a tensor of divisors and no key; yarn's and the linear one are keys."""
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    settings = {**LLAMA, "head_dim": 16, "rope_theta": 100.0}
    settings["rope_scaling"] = {**scaling, "original_max_position_embeddings": 64}
    theirs = their_model(settings)
    base = 1.0 / 100.0 ** (torch.arange(0, 16, 2).float() / 16)
    divisors = (base / theirs.model.rotary_emb.inv_freq).numpy()
    write_gguf(tmp_path / "m.gguf", theirs, lambda writer: writer.add_tensor("rope_freqs.weight", divisors))
    opened = open_gguf(tmp_path / "m.gguf")
    found = opened.config.modules.position_embedding.rotary.scaling
    assert found is not None
    assert (found.kind, found.original_max_seq_len) == ("llama3", 64)
    assert found.factor == pytest.approx(8.0)
    ids = torch.randint(1, VOCAB, (1, 90), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(opened.model()(ids), theirs(ids).logits, rtol=1e-4, atol=1e-4)

    odd = np.linspace(1, 3, 8, dtype=np.float32)  # of no formula: taken as they are
    write_gguf(tmp_path / "odd.gguf", theirs, lambda writer: writer.add_tensor("rope_freqs.weight", odd))
    found = open_gguf(tmp_path / "odd.gguf").config.modules.position_embedding.rotary.scaling
    assert found is not None
    assert found.long_factors == found.short_factors == tuple(odd.tolist())

    theirs = their_model({**LLAMA, "rope_scaling": {"rope_type": "linear", "factor": 4.0}})

    def linear(writer: Any) -> None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(4.0)

    write_gguf(tmp_path / "linear.gguf", theirs, linear)
    opened = open_gguf(tmp_path / "linear.gguf")
    torch.testing.assert_close(opened.model()(ids), theirs(ids).logits, rtol=1e-4, atol=1e-4)


def test_longrope_has_its_divisors_in_tensors(tmp_path: Path) -> None:
    """Those of short texts and of long ones; llama.cpp's formula for cosines and sines is a key, too."""
    short, long = [1.0, 1.1, 1.5, 2.0], [1.0, 2.0, 4.0, 8.0]
    scaling = {"rope_type": "longrope", "short_factor": short, "long_factor": long}
    theirs = their_model({**LLAMA, "rope_scaling": {**scaling, "original_max_position_embeddings": 16, "factor": 6.0}})

    def say(writer: Any) -> None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE)
        writer.add_rope_scaling_orig_ctx_len(16)
        writer.add_rope_scaling_attn_factors(float(theirs.model.rotary_emb.attention_scaling))
        for name, values in (("short", short), ("long", long)):
            writer.add_tensor(f"rope_factors_{name}.weight", np.array(values, dtype=np.float32))

    write_gguf(tmp_path / "m.gguf", theirs, say)
    ours = open_gguf(tmp_path / "m.gguf").model()
    for length in (12, 40):
        ids = torch.randint(1, VOCAB, (1, length), generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(ours(ids), theirs(ids).logits, rtol=1e-4, atol=1e-4)
    kind = gguf.RopeScalingType.LONGROPE
    write_gguf(tmp_path / "without.gguf", theirs, lambda writer: writer.add_rope_scaling_type(kind))
    with pytest.raises(UserError, match="short_factor"):
        open_gguf(tmp_path / "without.gguf")


# ---- models in parts ----


@pytest.fixture
def in_parts(tmp_path: Path) -> tuple[list[Path], Any]:
    """A model in parts of nine tensors, and what it was written of."""
    theirs = their_model({**LLAMA, "vocab_size": 420})
    say = says_bpe(trained(PUBLISHED["gpt-2"]), "gpt-2", eos_token_id=0)
    write_gguf(tmp_path / "m.gguf", theirs, say, split_max_tensors=9)
    return sorted(tmp_path.glob("*.gguf")), theirs


def test_a_model_in_parts_is_one(in_parts: tuple[list[Path], Any]) -> None:
    """Whichever part is named, or their folder."""
    parts, theirs = in_parts
    assert [part.name for part in parts] == [f"m-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    ids = torch.arange(1, 20)[None]
    for source in (*parts, parts[0].parent):
        torch.testing.assert_close(slm.load(source).model(ids), theirs(ids).logits, rtol=1e-4, atol=1e-4)


def test_parts_that_do_not_make_up_a_model(in_parts: tuple[list[Path], Any], tmp_path: Path) -> None:
    parts, _ = in_parts
    whole = parts[1].read_bytes()
    parts[1].unlink()
    with pytest.raises(UserError, match=r"one of 3 parts, and beside it lie not all: m-00002-of-00003.gguf"):
        open_gguf(parts[0])
    parts[1].write_bytes(parts[2].read_bytes())
    with pytest.raises(UserError, match=r"m-00002-of-00003.gguf is no part 2 of 3 of this model"):
        open_gguf(parts[2])
    parts[1].write_bytes(whole)
    parts[0].rename(tmp_path / "first.gguf")
    with pytest.raises(UserError, match=r"call it as it was \(NAME-00001-of-00003.gguf\)"):
        open_gguf(tmp_path / "first.gguf")


# ---- tokenizers ----

WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def split(pattern: str) -> Any:
    cut = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    return pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


# as the tokenizer.json of models whose files say so
PUBLISHED: dict[str, Any] = {
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "llama-bpe": split(WORDS % "{1,3}"),
    "qwen2": split(WORDS % ""),
}


def trained(pre_tokenizer: Any, normalizer: Any = None) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizer, decoders.ByteLevel()
    if normalizer is not None:
        backend.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=420, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    )  # fmt: skip
    backend.train_from_iterator([*TEXTS, *TEXTS, Path(__file__).read_text(encoding="utf-8")], trainer)
    return backend


def says_bpe(backend: Tokenizer, pre: str | None, **more: Any) -> Callable[[Any], None]:
    """The header of its tokenizer."""
    import json

    state = json.loads(backend.to_str())
    size = backend.get_vocab_size(with_added_tokens=True)
    tokens = [backend.id_to_token(i) for i in range(size)]
    added = {token["id"]: 3 if token["special"] else 4 for token in state["added_tokens"]}

    def say(writer: Any) -> None:
        writer.add_tokenizer_model("gpt2")
        if pre is not None:
            writer.add_tokenizer_pre(pre)
        writer.add_token_list(tokens)
        writer.add_token_types([added.get(i, 1) for i in range(size)])
        writer.add_token_merges([" ".join(merge) for merge in state["model"]["merges"]])
        for name, value in more.items():
            getattr(writer, f"add_{name}")(value)

    return say


def tokenizer_of(folder: Path, say: Callable[[Any], None], vocab_size: int = 640) -> Any:
    write_gguf(folder / "t.gguf", their_model({**LLAMA, "vocab_size": vocab_size}), say)
    return open_gguf(folder / "t.gguf").tokenizer


@pytest.mark.parametrize("pre", PUBLISHED)
def test_a_vocabulary_of_merges_has_its_own_ids(pre: str, tmp_path: Path) -> None:
    original = trained(PUBLISHED[pre], normalizers.NFC() if pre == "qwen2" else None)
    ours = tokenizer_of(tmp_path, says_bpe(original, pre, eos_token_id=0, bos_token_id=1))
    original.encode_special_tokens = True
    for text in TEXTS:
        assert ours.encode(text) == original.encode(text).ids
        assert ours.decode(ours.encode(text)) == original.decode(original.encode(text).ids)
    assert ours.encode_parts(["", "<|im_start|>", "user"]).ids[0] == 1
    assert (ours.eos_id, ours.begin_ids) == (0, (1,) if pre == "llama-bpe" else ())


def test_ends_and_template_come_from_the_header(tmp_path: Path) -> None:
    template = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    say = says_bpe(
        trained(PUBLISHED["gpt-2"]), "gpt-2", eos_token_id=2, eot_token_id=1, add_bos_token=True, bos_token_id=1,
        chat_template=template,
    )  # fmt: skip
    ours = tokenizer_of(tmp_path, say)
    assert ours.eos_id == 0, "the end of a text, not of a turn"
    assert ours.end_ids == {0, 1, 2}
    assert ours.begin_ids == (1,)
    assert ours.chat_template == template
    assert ours.special_names["eos_token"] == "<|im_end|>"


def test_what_a_header_does_not_say_is_told_or_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original = trained(PUBLISHED["gpt-2"])
    ours = tokenizer_of(tmp_path, says_bpe(original, None))
    assert "cut as GPT-2 does" in capsys.readouterr().err
    assert ours.encode(TEXTS[0]) == original.encode(TEXTS[0]).ids
    with pytest.raises(UserError, match=r"'unheard-of'.*known: gpt-2"):
        tokenizer_of(tmp_path, says_bpe(original, "unheard-of"))
    with pytest.raises(UserError, match="kind 'bert' cannot be read"):
        tokenizer_of(tmp_path, lambda writer: (writer.add_tokenizer_model("bert"), writer.add_token_list(["a"])))
    assert is_missing(tokenizer_of(tmp_path, lambda writer: None))


def test_a_whole_tokenizer_json_in_the_header_comes_first(tmp_path: Path) -> None:
    original = trained(split(r"\p{L}{1,2}"))
    say = says_bpe(original, "gpt-2", eos_token_id=0)

    def with_json(writer: Any) -> None:
        say(writer)
        writer.add_string("tokenizer.huggingface.json", original.to_str())

    original.encode_special_tokens = True
    ours = tokenizer_of(tmp_path, with_json)
    assert ours.encode(TEXTS[1]) == original.encode(TEXTS[1]).ids


@pytest.mark.skipif(not CASES_OF_OTHERS.is_dir(), reason="needs shared/cases")
@pytest.mark.parametrize(("case", "pre"), [("qwen3", "qwen2"), ("llama32_instruct", "llama-bpe")])
def test_published_vocabularies_have_their_own_ids(case: str, pre: str, tmp_path: Path) -> None:
    original = Tokenizer.from_file(str(CASES_OF_OTHERS / case / "tokenizer.json"))
    ours = tokenizer_of(tmp_path, says_bpe(original, pre, eos_token_id=493))
    original.encode_special_tokens = True
    for text in TEXTS:
        assert ours.encode(text) == original.encode(text, add_special_tokens=False).ids


@pytest.mark.skipif(not CASES_OF_OTHERS.is_dir(), reason="needs shared/cases")
def test_a_vocabulary_of_sentence_pieces_has_its_own_ids(tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece", reason="the extra slm[hf] is not installed")
    original = sentencepiece.SentencePieceProcessor(model_file=str(CASES_OF_OTHERS / "llama_spm_both/tokenizer.model"))
    ids = range(original.vocab_size())

    def say(writer: Any) -> None:
        writer.add_tokenizer_model("llama")
        writer.add_token_list([original.id_to_piece(i) for i in ids])
        writer.add_token_scores([original.get_score(i) for i in ids])
        kinds = ((original.is_unknown, 2), (original.is_control, 3), (original.is_byte, 6), (lambda i: True, 1))
        writer.add_token_types([next(kind for test, kind in kinds if test(i)) for i in ids])

    ours = tokenizer_of(tmp_path, say)
    for text in TEXTS:
        assert ours.encode(text) == original.encode(text)
        assert ours.decode(ours.encode(text)) == text
    assert (ours.begin_ids, ours.eos_id) == ((1,), 2)


# ---- commands ----


def test_commands_take_a_file_and_an_adapter_beside_it(run_cli: Any, text_file: Path, tmp_path: Path) -> None:
    """Merged into a GGUF file's weights, an adapter leaves as a folder of Hugging Face; it writes, and trains on."""
    theirs = their_model({**LLAMA, "vocab_size": 420})
    write_gguf(tmp_path / "base.gguf", theirs, says_bpe(trained(PUBLISHED["gpt-2"]), "gpt-2", eos_token_id=0))
    write_adapter(tmp_path / "adapter", theirs, ("q_proj", "k_proj"))
    outcome = run_cli("convert", "source=adapter", "base=base.gguf", "out=merged", "to=hf")
    assert outcome.status == 0, outcome.err
    assert "a PEFT adapter, merged into its base: 4 matrices" in outcome.err
    ids = torch.arange(1, 20)[None]
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(merged(ids).logits, theirs(ids).logits, rtol=1e-4, atol=1e-4)

    of_model = ("model_dir=adapter", "base=base.gguf", "prompt=Hello", "generation=greedy")
    outcome = run_cli("generate", *of_model, "generation.max_new_tokens=4")
    assert outcome.status == 0, outcome.err
    outcome = run_cli("generate", *of_model[:1], "prompt=Hello")
    assert outcome.status == 2
    assert "base=PATH|NAME" in outcome.err
    outcome = run_cli(
        "train", "model.weights=adapter", "model.base=base.gguf", "data=text", f"data.path={text_file}", "run_dir=run",
        "data.seq_len=16", "trainer.max_steps=1", "trainer.batch_size=2", "trainer.precision=32",
        "trainer.accelerator=cpu", "callbacks=none",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err


# ---- files that are not whole ----


def test_from_a_file_to_text(tmp_path: Path) -> None:
    """By the front door, whatever the file is called; a folder with one will do."""
    say = says_bpe(trained(PUBLISHED["gpt-2"]), "gpt-2", eos_token_id=0)
    write_gguf(tmp_path / "model.Q4", their_model({**LLAMA, "vocab_size": 420}), say)
    text = slm.load(tmp_path / "model.Q4").generate("Hello", max_new_tokens=8, greedy=True)
    (tmp_path / "model.Q4").rename(tmp_path / "model.gguf")
    assert slm.load(tmp_path).generate("Hello", max_new_tokens=8, greedy=True) == text
    (tmp_path / "other.gguf").write_bytes((tmp_path / "model.gguf").read_bytes())
    with pytest.raises(UserError, match=r"holds 2 GGUF files \(model.gguf, other.gguf\); give one"):
        slm.load(tmp_path)


def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", their_model(LLAMA))
    whole = (tmp_path / "m.gguf").read_bytes()
    damaged = {
        "ends too early": whole[:300],
        "does not lie in it whole": whole[:-64],
        "more than 4,000,000 values": whole[:8] + struct.pack("<Q", 1 << 60) + whole[16:],
        "version 1": whole[:4] + struct.pack("<I", 1) + whole[8:],
        "big-endian": whole[:4] + struct.pack(">I", 3) + whole[8:],
    }
    for message, content in damaged.items():
        (tmp_path / "d.gguf").write_bytes(content)
        with pytest.raises(UserError, match=message) as told:
            open_gguf(tmp_path / "d.gguf")
        assert "\n" not in str(told.value)


def test_an_architecture_that_slm_does_not_know_is_named(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(UserError, match=r"architecture 'mamba' is not one that slm can read \(known: gpt2, llama"):
        open_gguf(tmp_path / "m.gguf")
