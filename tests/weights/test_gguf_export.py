"""GGUF: what llama.cpp reads of a file is the model, its tokenizer and its chat; what it would compute otherwise is
refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exported_models import GPT2, LLAMA, NEOX, QWEN3, TEXT, model, shape, tokenizer

from slm.chat.template import with_template
from slm.errors import UserError
from slm.models.config import ModelConfig
from slm.tokenizers.bpe import BpeTokenizer
from slm.tokenizers.byte import ByteTokenizer
from slm.tokenizers.hf_files import published_template
from slm.weights.export import vocabulary
from slm.weights.export.destinations import destinations
from slm.weights.export.gguf import write_gguf
from slm.weights.gguf.read import open_gguf

gguf = pytest.importorskip("gguf", reason="the extra slm[gguf] is not installed")

UNTIED = {"output_projection": {"tie_weights": False}}
LONG = {"original_max_seq_len": 16}
FACTORS = [1.0, 1.125, 1.25, 1.5, 1.75, 2.0, 3.0, 4.0]
ODD = {"kind": "longrope", "factor": 4.0, "original_max_seq_len": 48, "attention_factor": 1.0}
ODD |= {"short_factors": FACTORS, "long_factors": FACTORS}  # the same at all lengths
CASES: dict[str, Any] = {
    "gpt2": shape(GPT2, "learned"),
    "gpt2 untied": shape(GPT2, "learned", **UNTIED),
    "llama": shape(LLAMA),
    "llama biases": shape({**LLAMA, "qkv_bias": True, "out_proj_bias": True, "mlp_bias": True}, **UNTIED),
    "llama linear": shape(LLAMA, rotary={"scaling": {"kind": "linear", "factor": 4.0}}),
    "llama yarn": shape(LLAMA, rotary={"base": 1000.0, "scaling": {"kind": "yarn", "factor": 3.0, **LONG}}),
    "llama by odd factors": shape(LLAMA, rotary={"scaling": ODD}),
    "llama llama3": shape(LLAMA, rotary={"base": 100.0, "scaling": {"kind": "llama3", "factor": 6.0, **LONG}}),
    "qwen3": shape(QWEN3),
    "qwen3 untied": shape(QWEN3, **UNTIED),
    "gptneox": shape(NEOX, rotary={"fraction": 0.25}, **UNTIED),
    "gptneox sequential, tied": shape({**NEOX, "parallel_residual": False}),
}


def written(folder: Path, config: ModelConfig, **how: Any) -> Any:
    """The file, read back by `gguf`."""
    weights = {name: tensor.to(how.pop("dtype", torch.float32)) for name, tensor in model(config).state_dict().items()}
    write_gguf(folder, config, weights, how.pop("tokenizer", tokenizer()), how.pop("facts", {}), **how)
    return gguf.GGUFReader(folder / "model.gguf")


def entry(read: Any, key: str) -> Any:
    return read.get_field(key).contents()


@pytest.mark.parametrize("case", CASES)
def test_llama_cpp_computes_what_we_do(case: str, tmp_path: Path) -> None:
    """Logits and ids, by its own code."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    written(tmp_path / "x", CASES[case])
    theirs = llama_cpp.Llama(
        str(tmp_path / "x/model.gguf"), n_ctx=48, logits_all=True, verbose=False, type_k=0, type_v=0, n_threads=1
    )
    ids = torch.randint(2, CASES[case].vocab_size, (1, 40), generator=torch.Generator().manual_seed(1))
    theirs.eval(ids[0].tolist())
    found, expected = theirs.scores[:40], model(CASES[case])(ids)[0].detach().numpy()
    assert expected.std() > 0.3, "weights too small to show a mistake"
    assert np.abs(found - expected).max() < 0.03 * expected.std()  # its GELU is a table of half precision
    theirs.close()


def test_factors_of_no_formula_come_back(tmp_path: Path) -> None:
    """As the tensor that they were read from; llama.cpp's key of a kind would have it divide otherwise."""
    read = written(tmp_path / "x", CASES["llama by odd factors"])
    assert read.get_field("llama.rope.scaling.type") is None
    again = open_gguf(tmp_path / "x/model.gguf").config
    scaling = again.modules.position_embedding.rotary.scaling
    assert scaling == CASES["llama by odd factors"].modules.position_embedding.rotary.scaling


def test_the_entries_of_a_file(tmp_path: Path) -> None:
    read = written(tmp_path / "x", CASES["qwen3"])
    expected = {
        "general.architecture": "qwen3",
        "general.file_type": 0,
        "qwen3.context_length": 48,
        "qwen3.embedding_length": 64,
        "qwen3.block_count": 2,
        "qwen3.feed_forward_length": 256,
        "qwen3.attention.head_count": 4,
        "qwen3.attention.head_count_kv": 2,
        "qwen3.attention.key_length": 24,
        "qwen3.rope.dimension_count": 24,
        "qwen3.rope.freq_base": 10000.0,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.eos_token_id": tokenizer().eos_id,
        "tokenizer.ggml.padding_token_id": tokenizer().pad_id,
        "tokenizer.ggml.add_bos_token": False,
    }
    assert {key: entry(read, key) for key in expected} == expected
    state = json.loads(tokenizer().to_huggingface().to_str())["model"]
    assert {token: i for i, token in enumerate(entry(read, "tokenizer.ggml.tokens"))} == state["vocab"]
    assert [merge.split(" ") for merge in entry(read, "tokenizer.ggml.merges")] == state["merges"]
    kinds = entry(read, "tokenizer.ggml.token_type")
    assert [i for i, kind in enumerate(kinds) if kind == 3] == sorted(tokenizer().special_tokens.values())
    assert (tmp_path / "x/Modelfile").read_text() == (
        'FROM ./model.gguf\nPARAMETER num_ctx 48\nTEMPLATE "{{ .Prompt }}"\n'
    )


@pytest.mark.parametrize(
    ("how", "kind", "bits", "error"),
    [
        ({"dtype": torch.float32}, "F32", 32, 0),
        ({"dtype": torch.bfloat16}, "BF16", 16, 0),
        ({"dtype": torch.float16}, "F16", 16, 0),
        ({"quantize": "q8_0"}, "Q8_0", 8.5, 0.01),
        ({"quantize": "q4_0"}, "Q4_0", 4.5, 0.15),
    ],
    ids=str,
)
def test_forms_of_the_numbers(tmp_path: Path, how: dict[str, Any], kind: str, bits: float, error: float) -> None:
    """Norms and biases stay fp32; a dtype keeps its bits; of 4 bits tokens' rows have 8; rows of 24 fill no block."""
    config = CASES["qwen3"]
    source = model(config).state_dict()["transformer.blocks.0.mlp.up_proj.weight"]
    read = written(tmp_path / "x", config, **how)
    tensors = {tensor.name: tensor for tensor in read.tensors}
    up = tensors["blk.0.ffn_up.weight"]
    assert up.tensor_type.name == kind
    assert up.n_bytes * 8 == bits * up.n_elements
    expected = source.to(how.get("dtype", torch.float32)).float().numpy()
    found = gguf.quants.dequantize(up.data, up.tensor_type)
    assert np.abs(found - expected).max() <= error * np.abs(expected).max()
    assert tensors["blk.0.attn_norm.weight"].tensor_type.name == "F32"
    assert tensors["token_embd.weight"].tensor_type.name == {"Q4_0": "Q8_0"}.get(kind, kind)
    name = gguf.LlamaFileType(entry(read, "general.file_type")).name
    assert name.removeprefix("ALL_").removeprefix("MOSTLY_") == kind


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (shape({"activation": "relu2"}, "learned"), "llama.cpp's gpt2 would compute something else: activation=relu2"),
        (shape({"activation": "gelu"}, "learned"), "activation=gelu (it computes gelu_tanh)"),
        (shape({**NEOX, "activation": "gelu"}), "llama.cpp's gptneox would compute something else: activation=gelu"),
        (shape({**LLAMA, "activation": "gelu_tanh"}), "activation=gelu_tanh (it computes silu)"),
        (shape({**QWEN3, "sliding_window": 9}), "sliding_window=9 (it sees all positions)"),
        (shape({**QWEN3, "qkv_bias": True, "out_proj_bias": True}), "qkv_bias=True (it has none)"),
        (shape(QWEN3, rotary={"scaling": {"kind": "llama3", "factor": 6.0, **LONG}}), "kind llama3"),
        (shape(LLAMA, rotary={"scaling": {"kind": "dynamic", "factor": 3.0, **LONG}}), "dynamic"),
        (shape(LLAMA, rotary={"scaling": {**ODD, "long_factors": [2.0] * 8}}), "kind longrope"),
        (shape(NEOX, rotary={"scaling": ODD}), "kind longrope"),
        (shape(LLAMA, output_projection={"softcap": 9.0}), "cannot say modules.output_projection.softcap=9.0"),
        (shape(LLAMA, token_embedding={"values": True}), "token_embedding.values=True"),
        (shape({**LLAMA, "embedding_skip": True}), "embedding_skip=True"),
    ],
)  # fmt: skip
def test_what_llama_cpp_would_compute_otherwise_is_refused(tmp_path: Path, config: ModelConfig, said: str) -> None:
    with pytest.raises(UserError) as refused:
        written(tmp_path / "x", config)
    assert said in str(refused.value)
    assert list(tmp_path.iterdir()) == []
    assert "no gguf" in destinations(config, tokenizer())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (ByteTokenizer, "no tokenizer that does as this one"),
        (lambda: BpeTokenizer.create([TEXT], vocab_size=258), "no vocabulary without merges"),
        (lambda: tokenizer("lines"), "llama.cpp knows no cut of texts by"),
    ],
)
def test_tokenizers_that_llama_cpp_has_not(tmp_path: Path, make: Callable[[], Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        written(tmp_path / "x", CASES["llama"], tokenizer=make())
    assert list(tmp_path.iterdir()) == []


def test_other_ids_are_refused_before_the_file_is_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text is held to llama.cpp's own ids: here it is told of another cut than the tokenizer has."""
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    monkeypatch.setitem(vocabulary._NAMES, tokenizer().cuts, "gpt-2")
    with pytest.raises(UserError, match="makes other ids of"):
        written(tmp_path / "x", CASES["llama"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("split", ["gpt2", "qwen2", "llama3"])
def test_every_split_of_bpe_has_llama_cpps_ids(tmp_path: Path, capsys: pytest.CaptureFixture[str], split: str) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    written(tmp_path / "x", CASES["llama"], tokenizer=tokenizer(split))
    assert "llama.cpp makes the same ids of 1" in capsys.readouterr().err


def test_a_chats_template_and_ends(tmp_path: Path) -> None:
    """Of a vocabulary that got two tokens more; ollama's template writes what Jinja's does."""
    talks = with_template(tokenizer(), "chatml")
    config = CASES["llama"].with_vocab_size(talks.vocab_size)
    facts = {"sampling": {"temperature": 0.5, "top_k": 7, "repetition_penalty": 1.1}}
    read = written(tmp_path / "x", config, tokenizer=talks, facts=facts)
    assert entry(read, "tokenizer.chat_template") == published_template(talks, marks=False)
    assert entry(read, "tokenizer.ggml.tokens")[-2:] == ["<|im_start|>", "<|im_end|>"]
    said = (tmp_path / "x/Modelfile").read_text()
    assert "PARAMETER temperature 0.5\nPARAMETER top_k 7\nPARAMETER repeat_penalty 1.1\n" in said
    assert said.endswith(
        'TEMPLATE """{{ $before := "<|im_start|>user\\n" }}{{ range .Messages }}'
        '{{ if eq .Role "user" }}{{ $before }}{{ .Content }}'
        '{{ else if eq .Role "assistant" }}<|im_end|>\n<|im_start|>assistant\n{{ .Content }}'
        '{{ $before = "<|im_end|>\\n<|im_start|>user\\n" }}'
        '{{ else if eq .Role "system" }}<|im_start|>system\n{{ .Content }}'
        '{{ $before = "<|im_end|>\\n<|im_start|>user\\n" }}{{ end }}{{ end }}<|im_end|>\n<|im_start|>assistant\n"""\n'
    )


def test_a_run_says_at_its_start_where_its_model_can_go(run_cli: Any, tiny: tuple[str, ...]) -> None:
    """And slm-convert does what it said."""
    family = [f"model.modules.transformer.{setting}" for setting in ("norm=rms_norm", "bias=false", "qkv_bias=false")]
    family += ["model.modules.transformer.mlp=glu", "model.modules.transformer.activation=silu"]
    family += ["model.modules.position_embedding.kind=rotary", "tokenizer=bpe", "tokenizer.vocab_size=300"]
    outcome = run_cli("train", *tiny, *family, "run_dir=family")
    assert "leaves as: hf (llama), gguf\n" in outcome.err, outcome.err
    done = run_cli("convert", "source=family", "to=gguf", "quantize=q8_0", "out=exported")
    assert done.status == 0, done.err
    assert json.loads(done.out)["dtype"] == "q8_0"
    outcome = run_cli("train", *tiny, "model.modules.output_projection.softcap=9.0", "run_dir=custom")
    assert "leaves as: hf with its own modelling file" in outcome.err
    refused = run_cli("convert", "source=custom", "to=gguf", "out=refused")
    assert (refused.status, len(refused.err.splitlines())) == (2, 1)
    assert "softcap=9.0" in refused.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("to=hf", "quantize=q8_0"), "quantize=q8_0 is a form of to=gguf; to=hf takes none"),
        (("to=gguf", "quantize=int4"), "quantize=int4 is a form of to=slm; to=gguf takes none, f16, bf16, q8_0, q4_0"),
        (("to=gguf", "quantize=f16", "dtype=float32"), "quantize=f16 names the dtype already"),
        (("to=gguf", "out=x.gguf"), "to=gguf makes a folder"),
        (("to=peft",), "trained all weights, no adapter"),
    ],
)
def test_settings_that_do_not_go_together(run_cli: Any, tiny_run: Path, arguments: tuple[str, ...], said: str) -> None:
    outcome = run_cli("convert", f"source={tiny_run}", "out=x", *arguments)
    assert (outcome.status, len(outcome.err.splitlines())) == (2, 1), outcome.err
    assert said in outcome.err
