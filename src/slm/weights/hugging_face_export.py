"""Our model as a folder that `transformers` loads with no code of ours."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import save_torch_state_dict
from torch import Tensor

from slm.files.writing import new_folder
from slm.models.config import ModelConfig
from slm.tokenizers.base import Tokenizer
from slm.tokenizers.export import save_huggingface
from slm.tokenizers.hf_names import GENERATION_FILE
from slm.weights.hugging_face import CONFIG_FILE, family_of
from slm.weights.own_sampling import their_sampling

_CARD = """\
---
library_name: transformers
pipeline_tag: text-generation
tags:
- slm
---

# {title}

A causal language model of the {family} family with {parameters:,} parameters, exported from slm.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{title}")
model = AutoModelForCausalLM.from_pretrained("{title}")
```

| shape | |
| --- | --- |
{shape}

| training | |
| --- | --- |
{facts}
"""


def write_hugging_face(
    folder: Path,
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    tokenizer: Tokenizer,
    facts: Mapping[str, Any],
) -> None:
    """Write config.json, generation_config.json, safetensors, the tokenizer and a model card that shows the `facts`.

    The folder is written beside its place and renamed; an older one is replaced whole. `UserError` if no family of
    `transformers` can say what the model or the tokenizer does.
    """
    family = family_of(config)
    tensors = family.write_tensors(config, weights)
    dtype = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    theirs = {**family.write_config(config), **_token_ids(tokenizer, CONFIG_FILE), "torch_dtype": dtype}
    generation = {**(their_sampling(facts) or {"_from_model_config": True}), **_token_ids(tokenizer, GENERATION_FILE)}
    with new_folder(folder) as partial:
        save_huggingface(tokenizer, partial, config.params.max_seq_len)
        for file, content in ((CONFIG_FILE, theirs), (GENERATION_FILE, generation)):
            (partial / file).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        save_torch_state_dict(tensors, str(partial), max_shard_size="5GB", metadata={"format": "pt"})
        for shard in partial.glob("*.safetensors"):
            shutil.copymode(partial / CONFIG_FILE, shard)  # safetensors makes it its owner's alone
        card = _model_card(folder.name, family.model_type, config, tensors, facts)
        (partial / "README.md").write_text(card, encoding="utf-8")


def _model_card(
    title: str, family: str, config: ModelConfig, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> str:
    shape = config.modules.transformer
    sizes = {
        "width": shape.dim,
        "layers": shape.n_layers,
        "heads": shape.n_heads,
        "key/value heads": shape.n_kv_heads,
        "context (tokens)": config.params.max_seq_len,
        "vocabulary": config.vocab_size,
    }
    return _CARD.format(
        title=title,
        family=family,
        parameters=sum(tensor.numel() for tensor in tensors.values()),
        shape=_rows(sizes),
        facts=_rows(facts) or "| source | converted, not trained here |",
    )


def _rows(values: Mapping[str, Any]) -> str:
    return "\n".join(
        f"| {key} | {json.dumps(value) if isinstance(value, dict) else value} |" for key, value in values.items()
    )


def _token_ids(tokenizer: Tokenizer, file: str) -> dict[str, Any]:
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
