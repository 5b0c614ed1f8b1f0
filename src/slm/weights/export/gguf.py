"""A model as a folder for llama.cpp and ollama: one GGUF file, checked before it is in its place, and a Modelfile."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slm.extras import require
from slm.files.writing import flush_file, new_folder
from slm.models.config import ModelConfig
from slm.notices import notice
from slm.tokenizers.base import Tokenizer
from slm.tokenizers.hf_files import GENERATION_FILE, published_template
from slm.weights.export.llama_cpp import architecture_of, rotary_factors, settings_of
from slm.weights.export.modelfile import modelfile
from slm.weights.export.vocabulary import Vocabulary, check_ids, vocabulary_of
from slm.weights.hugging_face import token_ids
from slm.weights.name_table import Table, their_tensors

MODEL_FILE = "model.gguf"
MODES = ("q8_0", "q4_0")  # 8 and 4 bits a weight, in blocks of 32 with a scale each
_BLOCK = 32
_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
_FILE_TYPES = {"F32": "ALL_F32", **{kind: f"MOSTLY_{kind}" for kind in ("F16", "BF16", "Q8_0", "Q4_0")}}
_TOKEN_ROWS = ("token_embd.weight", "output.weight")
_ADDED = ("position_embd.weight", "rope_freqs.weight")  # stay fp32, as all that has one dimension
_ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")  # the ends that a file can name


def write_gguf(
    folder: Path,
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    tokenizer: Tokenizer,
    facts: Mapping[str, Any],
    quantize: str | None = None,
) -> None:
    """Write the model in the weights' own dtype, or its matrices in one of `MODES`; an older folder is replaced whole.
    `UserError` if llama.cpp would compute something else, or makes other ids of a text."""
    gguf = require("gguf", "gguf", "to=gguf")
    architecture, table = architecture_of(config)
    vocabulary = vocabulary_of(tokenizer, config.vocab_size)
    tensors = _tensors(architecture, table, config, weights)
    kind = quantize.upper() if quantize else _DTYPES[tensors["token_embd.weight"].dtype]
    with new_folder(folder) as partial:
        file = partial / MODEL_FILE
        writer = gguf.GGUFWriter(file, architecture)
        writer.add_name(folder.name)
        writer.add_file_type(gguf.LlamaFileType[_FILE_TYPES[kind]])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        for key, value in settings_of(architecture, config).items():
            _add(writer, f"{architecture}.{key}", value)
        _add_tokenizer(writer, vocabulary, tokenizer)
        for name, tensor in tensors.items():
            stored = gguf.GGMLQuantizationType[_kind_of(name, tensor, kind)]
            writer.add_tensor(name, gguf.quants.quantize(tensor.float().numpy(), stored), raw_dtype=stored)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        check_ids(file, tokenizer)
        (partial / "Modelfile").write_text(modelfile(MODEL_FILE, config, tokenizer, facts), encoding="utf-8")
        flush_file(file)


def _tensors(architecture: str, table: Table, config: ModelConfig, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    tensors = their_tensors(table, weights, config.vocab_size)
    if architecture == "gptneox":  # alone of these it takes no head that is tied
        tensors.setdefault("output.weight", tensors["token_embd.weight"])
    if (factors := rotary_factors(config)) is not None:
        tensors["rope_freqs.weight"] = factors
    return tensors


def _kind_of(name: str, tensor: Tensor, kind: str) -> str:
    """How a tensor is stored in a file of this `kind`; what leaves fp32 where blocks do not fill the rows is told."""
    if tensor.ndim == 1 or name in _ADDED:
        return "F32"
    if kind.lower() not in MODES:
        return kind
    if tensor.shape[-1] % _BLOCK:
        notice(f"{name} stays fp32: its rows of {tensor.shape[-1]} are no multiple of {_BLOCK}, a block of {kind}")
        return "F32"
    return "Q8_0" if name in _TOKEN_ROWS else kind  # 4 bits are too few for tokens


def _add_tokenizer(writer: Any, vocabulary: Vocabulary, tokenizer: Tokenizer) -> None:
    writer.add_tokenizer_model("gpt2")  # byte-level BPE
    writer.add_tokenizer_pre(vocabulary.cut)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    ids = token_ids(tokenizer, GENERATION_FILE)
    ends = ids["eos_token_id"] if isinstance(ids["eos_token_id"], list) else [ids["eos_token_id"]]
    said = dict(zip(_ENDS, ends, strict=False))
    if left := ends[len(_ENDS) :]:
        notice(f"a GGUF file names {len(_ENDS)} ends of text at most; left out are the ids {left}")
    if "pad_token_id" in ids:
        said["padding_token_id"] = ids["pad_token_id"]
    if tokenizer.begin_ids:
        said["bos_token_id"] = tokenizer.begin_ids[0]
    for key, value in {**said, "add_bos_token": bool(tokenizer.begin_ids), "add_eos_token": False}.items():
        _add(writer, f"tokenizer.ggml.{key}", value)
    if (template := published_template(tokenizer, marks=False)) is not None:
        writer.add_chat_template(template)


def _add(writer: Any, key: str, value: Any) -> None:
    kinds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    kinds[type(value)](key, value)
