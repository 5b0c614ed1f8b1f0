"""What a run of an older version had by default, where defaults have come to say otherwise: a run that is gone on with
repeats what was typed, and with these stays what it was."""

import json
from collections.abc import Collection, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from slm.schema import dotted
from slm.training.run.folder import CONFIG_FILE, read_config

_NEWER = {  # settings of data by kind, and what runs of versions without them had
    **{kind: {"split_by_name": "false"} for kind in ("text", "jsonl", "parquet")},
    "datasets": {"val_split": "null", "test_split": "null"},
}
_FORMER = {"optimizer": ("_target_", "torch.optim.AdamW", "adamw"), "scheduler": ("name", "cosine", "cosine")}


def defaults_of_then(run: Path, typed: Collection[str], kept: Collection[str]) -> list[str]:
    """``key=value`` of the defaults that `run` had and a run of now would not, but for what is decided by the keys
    `typed` to go on with it or those `kept` of its own command line."""
    config = read_config(run) if (run / CONFIG_FILE).is_file() else {}
    data = [] if "data" in typed else _data_of_then(config.get("data"))
    tokenizer = [] if "tokenizer" in typed else _tokenizer_of_then(config.get("tokenizer"))
    return [*data, *tokenizer, *_parts_of_then(config, {*typed, *kept})]


def _data_of_then(data: Any) -> list[str]:
    parts = data.get("parts") if isinstance(data, dict) else None
    below = parts.items() if isinstance(parts, dict) else ()
    settings = []
    for place, node in [("data", data), *((f"++data.parts.{name}", node) for name, node in below)]:
        newer = _NEWER.get(str(node.get("kind")), {}) if isinstance(node, dict) else {}
        if newer and newer.keys().isdisjoint(node):
            then = {**newer, **({"patterns": json.dumps(node["patterns"])} if "patterns" in node else {})}
            settings += [f"{place}.{key}={value}" for key, value in then.items()]
    return settings


def _tokenizer_of_then(tokenizer: Any) -> list[str]:
    """Text was cut at the ends of lines before there was a choice."""
    before = isinstance(tokenizer, Mapping) and tokenizer.get("kind") == "bpe" and "split" not in tokenizer
    return ["tokenizer.split=lines"] if before else []


def _parts_of_then(config: Mapping[str, Any], typed: Collection[str]) -> list[str]:
    """The default model, optimizer and schedule."""
    if "recipe" in typed:
        return []
    settings = []
    for group, (key, value, choice) in _FORMER.items():
        node = config.get(group)
        if group not in typed and isinstance(node, Mapping) and node.get(key) == value:
            settings.append(f"{group}={choice}")
    model = config.get("model")
    if "model" in typed or not isinstance(model, Mapping):
        return settings
    now, then = dict(dotted(_content("model/base"))), dict(dotted(model))
    changed = [key for key, value in then.items() if key in now and _plain(value, now[key]) and value != now[key]]
    own = [f"model.{key}={json.dumps(then[key])}" for key in changed if not _is_typed(f"model.{key}", typed)]
    return settings + own


def _content(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(files("slm.conf").joinpath(f"{name}.yaml").read_text(encoding="utf-8"))
    return content


def _plain(*values: Any) -> bool:
    return not any(isinstance(value, Mapping) or "${" in str(value) for value in values)


def _is_typed(key: str, typed: Collection[str]) -> bool:
    return any(key == one or key.startswith(f"{one}.") for one in typed)
