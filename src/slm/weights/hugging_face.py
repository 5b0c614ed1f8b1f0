"""Models as folders that `transformers` loads: read as ours, and written by a family that can, or with code of their
own."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from slm.errors import UserError, first_few
from slm.files.reading import read_json_object
from slm.files.writing import new_folder
from slm.models.config import ModelConfig
from slm.notices import notice
from slm.registry import FAMILIES
from slm.tokenizers.base import Tokenizer
from slm.tokenizers.hf_files import GENERATION_FILE, save_huggingface
from slm.weights.custom_code import MODEL_TYPE, MODELING_FILE, custom_config, read_custom_config, unknown_parts
from slm.weights.families.family import Family, ForeignConfig
from slm.weights.model_card import Story, model_card
from slm.weights.name_table import Table, identity_table, their_tensors
from slm.weights.own_sampling import their_sampling
from slm.weights.pretrained import TOKEN_ROWS, lay_out, stored_config
from slm.weights.tensor_source import TensorSource, safetensors_in
from slm.weights.torch_files import torch_files_in

CONFIG_FILE = "config.json"
CARD_FILE = "README.md"
_NO_STORY = Story()
_SAFETENSORS, _TORCH_FILE = "model.safetensors", "pytorch_model.bin"
_ENDS = ("", ".index.json")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")


def read_hugging_face(folder: Path) -> tuple[ModelConfig, Table, TensorSource]:
    """What `transformers` would load from `folder`, in our shape, and its weights under the table's names; `UserError`
    if slm has no table for its family, no model for what it asks, or no way to read its weights."""
    file = folder / CONFIG_FILE
    values = read_json_object(file)
    model_type = values.get("model_type")
    if model_type == MODEL_TYPE:
        config = stored_config(read_custom_config(values), f"{file}: slm")
        return config, identity_table(lay_out(config)), safetensors_in(folder)
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        known = ", ".join(FAMILIES.names())
        raise UserError(f"{file}: model_type '{model_type}' is not one that slm can read (known: {known})")
    if values.get("quantization_config") or values.get("quantization"):  # the latter is MLX's
        raise UserError(f"{file}: quantized weights cannot be read; take the model's unquantized release")
    family: Family = FAMILIES.get(model_type)()
    theirs = ForeignConfig(values, str(file))
    ours = family.read_config(theirs)
    theirs.stop_if_any()
    config = stored_config(ours, f"{file}: model")
    table = family.table(config)
    return config, table, _tensors(folder, family, table)


def _tensors(folder: Path, family: Family, table: Table) -> TensorSource:
    """The base prefix is added where a file lacks it; buffers are left out, and a tied head stored a second time."""
    known = {name for entry in table for name in entry.theirs}

    def their_name(name: str) -> str | None:
        full = family.base_prefix + name
        if name in known or full in known:
            return name if name in known else full
        return None if name.endswith(family.buffers) else name

    source = _files(folder).renamed(their_name)
    if family.head in known:
        return source
    return source.without_copy(family.head, table[0].theirs[0], "correct tie_word_embeddings in config.json")


def _files(folder: Path) -> TensorSource:
    if any((folder / f"{_SAFETENSORS}{end}").is_file() for end in _ENDS):
        return safetensors_in(folder)
    if any((folder / f"{_TORCH_FILE}{end}").is_file() for end in _ENDS):
        notice(f"'{folder}' holds its weights as {_TORCH_FILE}: read as plain tensors, no code in it runs")
        return torch_files_in(folder)
    if pickled := [file.name for pattern in _PICKLES for file in sorted(folder.glob(pattern))]:
        raise UserError(
            f"'{folder}' holds its weights only as {pickled[0]}, a pickle, which could run any code when read; take "
            "the model's safetensors, or write them where you trust the file: model.save_pretrained(…) of transformers"
        )
    return safetensors_in(folder)  # says what is missing


def has_weights(folder: Path) -> bool:
    """Whether weights lie there in one of the forms of `transformers`."""
    return any((folder / f"{name}{end}").is_file() for name in (_SAFETENSORS, _TORCH_FILE) for end in _ENDS)


def nearest_family(config: ModelConfig) -> tuple[Family, list[str]]:
    """The first family that reads back the same model that it wrote; else the one that comes nearest, and the settings
    that it cannot say."""
    families: list[Family] = [FAMILIES.get(name)() for name in FAMILIES.names()]
    lost = [_lost_by(family, config) for family in families]
    nearest = min(range(len(families)), key=lambda number: len(lost[number]))
    return families[nearest], lost[nearest]


def family_of(config: ModelConfig) -> Family:
    """The family that holds the model exactly, or `UserError` of what the nearest lacks."""
    family, lost = nearest_family(config)
    if lost:
        raise UserError(f"no family of models has this shape; the nearest, {family.model_type}, {cannot_say(lost)}")
    return family


def cannot_say(lost: list[str]) -> str:
    """What a family lacks, as the end of a sentence."""
    return f"cannot say {first_few(lost)}"


def _lost_by(family: Family, config: ModelConfig) -> list[str]:
    theirs = ForeignConfig(family.write_config(config), family.model_type)
    ours = family.read_config(theirs)
    if theirs.problems:
        return theirs.problems
    wanted = _said(config)
    try:
        back = _said(ModelConfig.from_dict(ours))
    except UserError:  # what is left of the model is none: heads that do not divide the width, say
        back = {}
    return [f"{key}={value}" for key, value in wanted.items() if key not in back or back[key] != value]


def _said(config: ModelConfig) -> dict[str, Any]:
    """What of a model shows in its logits, by dotted name."""
    values = config.architecture()
    if config.modules.transformer.norm == "rms_norm":
        values.pop("modules.transformer.bias")  # this norm has none, and the other parts say their own
    return values


def write_hugging_face(
    folder: Path,
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    tokenizer: Tokenizer,
    facts: Mapping[str, Any],
    story: Story = _NO_STORY,
) -> None:
    """Write configurations, safetensors, the tokenizer and a model card that shows the `story` and the `facts`, with a
    modelling file where no family of `transformers` has the model; an older folder is replaced whole. `UserError` if no
    file can say what the model or the tokenizer does."""
    from huggingface_hub import save_torch_state_dict  # only here, since models are opened more often than exported

    name, shape = _type_and_config(config)
    tensors = their_tensors(tensor_table(config), weights, config.vocab_size)
    dtype = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    theirs = {**shape, **token_ids(tokenizer, CONFIG_FILE), "torch_dtype": dtype}
    generation = {**(their_sampling(facts) or {"_from_model_config": True}), **token_ids(tokenizer, GENERATION_FILE)}
    with new_folder(folder) as partial:
        save_huggingface(tokenizer, partial, config.params.max_seq_len)
        for file, content in ((CONFIG_FILE, theirs), (GENERATION_FILE, generation)):
            (partial / file).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        save_torch_state_dict(tensors, str(partial), max_shard_size="5GB", metadata={"format": "pt"})
        for shard in partial.glob("*.safetensors"):
            shutil.copymode(partial / CONFIG_FILE, shard)  # safetensors makes it its owner's alone
        if name == MODEL_TYPE:
            shutil.copyfile(MODELING_FILE, partial / MODELING_FILE.name)
        parameters = sum(tensor.numel() for tensor in tensors.values())
        told = replace(story, facts={**story.facts, **facts})
        card = model_card(folder.name, name, _shape(config), parameters, name == MODEL_TYPE, told)
        (partial / CARD_FILE).write_text(card, encoding="utf-8")


def tensor_table(config: ModelConfig) -> Table:
    """Names of the tensors of the model as `write_hugging_face` writes it."""
    family, lost = nearest_family(config)
    if not lost:
        return family.table(config)
    return [replace(entry, padded=entry.ours in TOKEN_ROWS) for entry in identity_table(lay_out(config))]


def _type_and_config(config: ModelConfig) -> tuple[str, dict[str, Any]]:
    """The model's type there, and its ``config.json`` but for token ids and dtype."""
    family, lost = nearest_family(config)
    if not lost:
        return family.model_type, family.write_config(config)
    if unknown := unknown_parts(config):
        raise UserError(
            f"a part of your own leaves by to=slm alone, for others know nothing of it: {', '.join(unknown)}"
        )
    notice(
        f"no family of transformers has this model (the nearest, {family.model_type}, {cannot_say(lost)}): it brings "
        f"its own {MODELING_FILE.name}, and loads with trust_remote_code=True"
    )
    return MODEL_TYPE, custom_config(config)


def _shape(config: ModelConfig) -> dict[str, int]:
    shape = config.modules.transformer
    return {
        "width": shape.dim,
        "layers": shape.n_layers,
        "heads": shape.n_heads,
        "key/value heads": shape.n_kv_heads,
        "context (tokens)": config.params.max_seq_len,
        "vocabulary": config.vocab_size,
    }


def token_ids(tokenizer: Tokenizer, file: str) -> dict[str, Any]:
    """As the model's publisher said them in `file`, with ends that no file of theirs had; else the tokenizer's."""
    published = tokenizer.published_ids
    said = published.get(file) or published.get(CONFIG_FILE, {})
    special = tokenizer.special_tokens
    named = {name: special[token] for name, token in tokenizer.special_names.items() if token in special}
    begin = tokenizer.begin_ids[0] if tokenizer.begin_ids else named.get("bos_token", tokenizer.eos_id)
    pad = named.get("pad_token") if tokenizer.pad_id is None else tokenizer.pad_id
    known = [one for ids in published.values() for one in _listed(ids.get("eos_token_id"))]
    first = named.get("eos_token", tokenizer.eos_id)
    ends = _listed(said.get("eos_token_id", first))
    ends = [*([first] if first not in (*ends, *known) else []), *ends]
    ends += [one for one in tokenizer.also_ends if one not in (first, *known)]
    ids = {"bos_token_id": begin, "pad_token_id": pad, **said, "eos_token_id": ends if ends[1:] else ends[0]}
    return {key: value for key, value in ids.items() if value is not None}


def _listed(ids: Any) -> list[int]:
    return ids if isinstance(ids, list) else [] if ids is None else [ids]
