"""Where a model can come from: a run, a bundle, a Hugging Face folder, GPT-2's released files, or a name."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from slm.errors import UserError, did_you_mean
from slm.extras import check_installed
from slm.files.reading import read_json_object
from slm.tokenizers.build import build_tokenizer
from slm.tokenizers.hf_files import from_hub
from slm.tokenizers.load import is_missing, missing_tokenizer
from slm.weights.bundle import CONFIG_FILE as BUNDLE_CONFIG
from slm.weights.bundle import open_bundle
from slm.weights.hugging_face import read_hugging_face
from slm.weights.openai_release import HPARAMS_FILE, RELEASES, fetch_release, read_release, tensorflow_checkpoint
from slm.weights.own_sampling import sampling_in
from slm.weights.pretrained import Pretrained
from slm.weights.tf_reader import CHECKPOINT_FILE

Format = Literal["slm", "hf", "gpt2_tf"]
RUN_BUNDLE = "model"

_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_VOCABULARIES = ("tokenizer.json", "*.model", "vocab*", "merges.txt", "encoder.json", "*.tiktoken")
_HUB_FILES = ("*.json", "*.safetensors", "*.jinja", "*.model", "merges.txt", "vocab*")


@dataclass(frozen=True)
class Source:
    """A folder that holds a model."""

    format: Format
    folder: Path
    name: str | None = None  # where that is not its place: on the hub, or a release's
    opened: Callable[[], Pretrained] | None = None  # where it is more than lies in the folder: a checkpoint of a run


def find_source(name: str | Path, format: Format | None = None, mirror: str | None = None) -> Source:
    """The model of a run folder (its best), a bundle, a Hugging Face folder or one with GPT-2's released files; else
    one of OpenAI's releases (``gpt2-124m`` …), downloaded from its server or the base URL `mirror`; else of that name
    on the Hugging Face hub. `UserError` if there is none, or of another than the wanted `format`."""
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
    here = f"'{name}' is no folder here"
    return Source("hf", from_hub(name, here, did_you_mean(name, RELEASES), _HUB_FILES, ignored=["*/*"]), name)


def find_bundle(path: str | Path) -> Path:
    """The bundle folder that `path` means: itself, or the one inside a run folder; `UserError` if there is none."""
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
    """Read all of a model but its weights; `UserError` if a file is missing, damaged, or asks what our model cannot."""
    if source.opened is not None:
        return source.opened()
    if source.format == "slm":
        return open_bundle(source.folder)
    folder, tokenizer = source.folder, missing_tokenizer(str(source.folder))
    if any(file for pattern in _VOCABULARIES for file in folder.glob(pattern)):
        tokenizer = build_tokenizer({"kind": "hf_gpt2", "name": str(folder)}, ())
    read = read_release if source.format == "gpt2_tf" else read_hugging_face
    facts = {"source": source.name or str(folder), "format": source.format, **sampling_in(folder)}
    opened = Pretrained(*read(folder), tokenizer, facts)
    if not is_missing(tokenizer) and tokenizer.vocab_size > opened.config.vocab_size:
        raise UserError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, the model only "
            f"{opened.config.vocab_size}; one of the two is not this model's"
        )
    return opened


def _source_in(folder: Path, name: str) -> Source:
    if (folder / CHECKPOINT_FILE).is_file():
        return Source("gpt2_tf", folder)
    if (folder / BUNDLE_CONFIG).is_file() and "model_type" in read_json_object(folder / BUNDLE_CONFIG):
        return Source("hf", folder)
    if (folder / HPARAMS_FILE).is_file() or any(folder.glob("params.p*")):
        tensorflow_checkpoint(folder)  # says what is missing, or why a pickle is not read
    return Source("slm", find_bundle(name))
