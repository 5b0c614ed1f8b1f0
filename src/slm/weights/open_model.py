"""Where a model can come from: a run, a bundle, a Hugging Face folder, GPT-2's released files, or a name."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from slm.errors import UserError, did_you_mean
from slm.extras import check_installed
from slm.files.reading import read_json_object
from slm.tokenizers.base import Tokenizer
from slm.tokenizers.load import is_missing, missing_tokenizer
from slm.weights.bundle import CONFIG_FILE as BUNDLE_CONFIG
from slm.weights.bundle import open_bundle
from slm.weights.hugging_face import read_hugging_face
from slm.weights.openai_release import HPARAMS_FILE, RELEASES, fetch_release, gpt2_tf_table, read_hparams
from slm.weights.own_sampling import sampling_in
from slm.weights.pretrained import Pretrained
from slm.weights.tf_checkpoint import TensorFlowCheckpoint
from slm.weights.tf_reader import CHECKPOINT_FILE

Format = Literal["slm", "hf", "gpt2_tf"]
RUN_BUNDLE = "model"

_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_VOCABULARIES = ("tokenizer.json", "*.model", "vocab*", "merges.txt", "encoder.json", "*.tiktoken")
_HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "merges.txt", "vocab*"]


@dataclass(frozen=True)
class Source:
    """A folder that holds a model.

    Attributes:
        format: in which format.
        folder: where it is.
        name: what it is called by, where that is not its place: a name on the hub, or a release's.
        opened: opens it, where it is more than what lies in the folder: a checkpoint of a run.
    """

    format: Format
    folder: Path
    name: str | None = None
    opened: Callable[[], Pretrained] | None = None


def find_source(name: str | Path, format: Format | None = None, mirror: str | None = None) -> Source:
    """The model that `name` means.

    Args:
        name: a run folder (its best model), a bundle, a Hugging Face folder, a folder with GPT-2's released files;
            else one of OpenAI's releases (``gpt2-124m`` …), which is downloaded; else a name on the Hugging Face hub.
        format: what it must be; None for whatever it is.
        mirror: base URL to download OpenAI's files from, in place of theirs.

    Raises:
        UserError: there is no such thing, it is of another format, or it cannot be read or downloaded.
    """
    source = _found(str(name), mirror)
    if format not in (None, source.format):
        raise UserError(f"'{name}' is of the format {source.format}, not {format}; leave format out")
    return source


def _found(name: str, mirror: str | None) -> Source:
    folder = Path(name).expanduser()
    try:
        if folder.is_dir():
            return _source_in(folder, name)
        if folder.exists():
            raise UserError(f"'{name}' is a file; give the folder that holds the model")
    except OSError as error:
        raise UserError(f"'{name}' cannot be read ({error.strerror})") from error
    if name in RELEASES:
        check_installed("tensorflow", "tf", f"'{name}', a TensorFlow checkpoint,")  # before hours of download
        return Source("gpt2_tf", fetch_release(name, mirror=mirror), name)
    if not _HUB_NAME.fullmatch(name) or (folder.parent != Path() and folder.parent.is_dir()):
        raise UserError(f"there is no folder '{name}'; give a run folder, a model bundle or a Hugging Face folder")
    return Source("hf", _from_hub(name), name)


def find_bundle(path: str | Path) -> Path:
    """The bundle folder that `path` means: itself, or the one inside a run folder.

    Raises:
        UserError: there is none.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(f"there is no folder '{path}'; give a run folder (run=outputs/…) or a model bundle")
    if (folder / RUN_BUNDLE / BUNDLE_CONFIG).is_file():
        return folder / RUN_BUNDLE
    if (folder / BUNDLE_CONFIG).is_file():
        return folder
    if (folder / "checkpoints").is_dir():
        raise UserError(f"the run '{path}' holds no {RUN_BUNDLE}/; the next save writes it: slm-train resume={path}")
    raise UserError(f"'{path}' is neither a run folder nor a model bundle: it holds no {BUNDLE_CONFIG}")


def open_source(source: Source) -> Pretrained:
    """Read all of a model but its weights.

    Raises:
        UserError: a file is missing or damaged, or our model cannot be what it says.
    """
    if source.opened is not None:
        return source.opened()
    if source.format == "slm":
        return open_bundle(source.folder)
    tokenizer = _given_tokenizer(source.folder)
    facts: dict[str, Any] = {"source": source.name or str(source.folder), "format": source.format}
    if source.format == "gpt2_tf":
        config = read_hparams(source.folder)
        opened = Pretrained(config, gpt2_tf_table(config), TensorFlowCheckpoint(source.folder), tokenizer, facts)
    else:
        theirs = read_hugging_face(source.folder)
        facts = {**facts, **sampling_in(source.folder)}
        opened = Pretrained(theirs.config, theirs.table, theirs.tensors(), tokenizer, facts)
    if not is_missing(tokenizer) and tokenizer.vocab_size > opened.config.vocab_size:
        raise UserError(
            f"{source.folder}: the tokenizer has {tokenizer.vocab_size} tokens, the model only "
            f"{opened.config.vocab_size}; one of the two is not this model's"
        )
    return opened


def _source_in(folder: Path, name: str) -> Source:
    if (folder / CHECKPOINT_FILE).is_file():
        return Source("gpt2_tf", folder)
    if (folder / BUNDLE_CONFIG).is_file() and "model_type" in read_json_object(folder / BUNDLE_CONFIG):
        return Source("hf", folder)
    if (folder / HPARAMS_FILE).is_file() or any(folder.glob("params.p*")):
        TensorFlowCheckpoint(folder)  # says what is missing, or why a pickle is not read
    return Source("slm", find_bundle(name))


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=_HUB_FILES, ignore_patterns=["*/*"]))
    except (OSError, ValueError) as error:  # no network, no such repository, not a repository's name
        raise UserError(
            f"'{name}' is no folder here, and cannot be had from the Hugging Face hub ({type(error).__name__}): "
            f"correct it, go online once, or give a folder{did_you_mean(name, RELEASES)}"
        ) from error


def _given_tokenizer(folder: Path) -> Tokenizer:
    from slm.tokenizers.hf_gpt2 import HfGpt2Tokenizer

    if not any(file for pattern in _VOCABULARIES for file in folder.glob(pattern)):
        return missing_tokenizer(str(folder))
    return HfGpt2Tokenizer.create((), name=str(folder))
