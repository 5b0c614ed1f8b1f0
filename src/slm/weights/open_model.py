"""Where a model can come from: a run, a bundle, a folder or file of another tool, a name. What it is, is looked at."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from slm.errors import UserError, did_you_mean, first_few
from slm.extras import check_installed
from slm.files.reading import read_json_object
from slm.models.config import ModelConfig
from slm.notices import notice
from slm.tokenizers.build import build_tokenizer
from slm.tokenizers.hf_files import from_hub
from slm.tokenizers.load import is_missing, missing_tokenizer
from slm.weights import litgpt, nanogpt, peft
from slm.weights.bundle import CONFIG_FILE as BUNDLE_CONFIG
from slm.weights.bundle import open_bundle
from slm.weights.fine_tuning import ADAPTER_CONFIG
from slm.weights.gguf.parts import first_parts
from slm.weights.gguf.read import is_gguf, open_gguf
from slm.weights.hugging_face import has_weights, read_hugging_face
from slm.weights.name_table import Table
from slm.weights.openai_release import HPARAMS_FILE, RELEASES, fetch_release, read_release, tensorflow_checkpoint
from slm.weights.other_tools import refuse_other_tools
from slm.weights.own_sampling import sampling_in
from slm.weights.pretrained import Pretrained
from slm.weights.tensor_source import TensorSource
from slm.weights.tf_reader import CHECKPOINT_FILE
from slm.weights.torch_files import read_torch_file

Format = Literal["slm", "hf", "gguf", "peft", "nanogpt", "litgpt", "gpt2_tf"]
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


def find_source(
    name: str | Path, format: Format | None = None, mirror: str | None = None, base: str | Path | None = None
) -> Source:
    """The model of a run folder (its best), a bundle, a folder or file of another tool (Hugging Face, GGUF, litgpt,
    nanoGPT, GPT-2's released files); else one of OpenAI's releases (``gpt2-124m`` …), downloaded from its server or the
    base URL `mirror`; else of that name on the Hugging Face hub. A PEFT adapter is merged into its `base`, any such
    source. `UserError` if there is none, or of another than the wanted `format`."""
    source = _found(str(name), format, mirror, base)
    if format not in (None, source.format):
        raise UserError(f"'{name}' is of the format {source.format}, not {format}; leave format out")
    if base is not None and source.format != "peft":
        raise UserError(f"base is that of a PEFT adapter, and '{name}' is none (it is {source.format}); leave it out")
    return source


def _found(name: str, format: Format | None, mirror: str | None, base: str | Path | None) -> Source:
    place = Path(name).expanduser()
    try:
        if place.is_dir():
            return _source_in(place, name, format, base)
        if place.exists():
            return _source_of_file(place)
    except OSError as error:
        raise UserError(f"'{name}' cannot be read ({error.strerror})") from error
    if name in RELEASES:
        check_installed("tensorflow", "tf", f"'{name}', a TensorFlow checkpoint,")  # before hours of download
        return Source("gpt2_tf", fetch_release(name, mirror=mirror), name)
    if not _HUB_NAME.fullmatch(name) or (place.parent != Path() and place.parent.is_dir()):
        raise UserError(f"there is no folder '{name}'; give a run folder, a model bundle or a Hugging Face folder")
    here = f"'{name}' is no folder here"
    fetch = partial(from_hub, name, here, did_you_mean(name, RELEASES), ignored=["*/*"])
    folder = fetch(_HUB_FILES)
    found = _forms_in(folder, base)
    if not found or (found[0].format == "hf" and not has_weights(folder)):
        folder = fetch((*_HUB_FILES, "pytorch_model*.bin"))
        found = _forms_in(folder, base)
    return replace(found[0], name=name) if found else Source("hf", folder, name)


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
    read = {"gpt2_tf": read_release, "litgpt": litgpt.read_litgpt}.get(source.format, read_hugging_face)
    return _opened(source, read(source.folder))


def _opened(source: Source, read: tuple[ModelConfig, Table, TensorSource]) -> Pretrained:
    """With what lies beside the weights: a tokenizer, and how the model's makers sample from it."""
    facts = {"source": source.name or str(source.folder), "format": source.format, **sampling_in(source.folder)}
    return _fitting(Pretrained(*read, _tokenizer_in(source.folder), facts), str(source.folder))


def _fitting(opened: Pretrained, where: str) -> Pretrained:
    if not is_missing(opened.tokenizer) and opened.tokenizer.vocab_size > opened.config.vocab_size:
        raise UserError(
            f"{where}: the tokenizer has {opened.tokenizer.vocab_size} tokens, the model only "
            f"{opened.config.vocab_size}; one of the two is not this model's"
        )
    return opened


def _tokenizer_in(folder: Path) -> Any:
    if any(file for pattern in _VOCABULARIES for file in folder.glob(pattern)):
        return build_tokenizer({"kind": "hf_gpt2", "name": str(folder)}, ())
    return missing_tokenizer(str(folder))


def _source_in(folder: Path, name: str, format: Format | None, base: str | Path | None) -> Source:
    found = _forms_in(folder, base)
    if not found:
        if (folder / HPARAMS_FILE).is_file() or any(folder.glob("params.p*")):
            tensorflow_checkpoint(folder)  # says what is missing, or why a pickle is not read
        if not any((folder / one).exists() for one in (BUNDLE_CONFIG, f"{RUN_BUNDLE}/{BUNDLE_CONFIG}", "checkpoints")):
            refuse_other_tools(folder)
        return Source("slm", find_bundle(name))
    wanted = [source for source in found if source.format == format] or found
    if len(found) > 1 and format is None:
        forms = ", ".join(source.format for source in found)
        notice(f"'{name}' holds a model in several forms ({forms}); {wanted[0].format} is taken")
    return wanted[0]


def _forms_in(folder: Path, base: str | Path | None) -> list[Source]:
    """Models of other tools that lie in `folder`, the likeliest first."""
    found = []
    if (folder / CHECKPOINT_FILE).is_file():
        found.append(Source("gpt2_tf", folder))
    if (folder / ADAPTER_CONFIG).is_file():
        found.append(Source("peft", folder, opened=partial(_open_adapter, folder, base)))
    if (folder / litgpt.WEIGHTS).is_file():
        found.append(Source("litgpt", folder))
    if (folder / nanogpt.CHECKPOINT).is_file():
        found.append(_source_of_file(folder / nanogpt.CHECKPOINT))
    if files := first_parts(sorted(file for file in folder.glob("*.gguf") if file.is_file())):
        if len(files) > 1 and not found and not has_weights(folder):
            names = first_few([file.name for file in files])
            raise UserError(f"'{folder}' holds {len(files)} GGUF files ({names}); give one of them")
        found.append(_source_of_file(files[0]))
    if (folder / BUNDLE_CONFIG).is_file() and "model_type" in read_json_object(folder / BUNDLE_CONFIG):
        if has_weights(folder):
            found.insert(0, Source("hf", folder))
        elif not found:
            found.append(Source("hf", folder))  # which says what is missing
    return found


def _source_of_file(file: Path) -> Source:
    if not file.is_file():  # a pipe would wait for ever
        raise UserError(f"'{file}' is no file; give one that holds a model, or its folder")
    if is_gguf(file):
        return Source("gguf", file, opened=partial(_open_gguf, file))
    if file.name == litgpt.WEIGHTS:
        return Source("litgpt", file.parent)
    if file.suffix in (".pt", ".pth", ".bin", ".ckpt"):
        return Source("nanogpt", file.parent, opened=partial(_open_nanogpt, file))
    raise UserError(f"'{file}' is a file; give the folder that holds the model")


def _open_gguf(file: Path) -> Pretrained:
    return _fitting(open_gguf(file), str(file))


def _open_nanogpt(file: Path) -> Pretrained:
    content = read_torch_file(file)
    if not nanogpt.is_nanogpt(content):
        raise UserError(
            f"'{file}' is a file of torch that does not say its model's shape, as nanoGPT's does; give the folder that "
            "holds the model, or of a run of slm run=FOLDER checkpoint=NAME"
        )
    opened = _opened(Source("nanogpt", file.parent), nanogpt.read_nanogpt(content, file))
    if not is_missing(opened.tokenizer):
        return opened
    if opened.config.vocab_size not in (50257, 50304):  # GPT-2's, as it is and as nanoGPT pads it
        notice(f"{file}: its vocabulary of {opened.config.vocab_size} is not beside it; the model takes ids alone")
        return opened
    notice(f"{file}: its vocabulary is taken to be GPT-2's, by its size; a tokenizer.json beside it would come first")
    return replace(opened, tokenizer=build_tokenizer({"kind": "tiktoken", "encoding": "gpt2"}, ()))


def _open_adapter(folder: Path, given: str | Path | None) -> Pretrained:
    named = peft.base_of(folder)
    places = [Path(named).expanduser(), folder / named, folder.parent / named] if named else []
    here = [place for place in places if place.exists() and not place.samefile(folder)]
    if given is None and not here:
        raise UserError(
            f"'{folder}' is a PEFT adapter of {named or 'a model that it does not name'}, which is not here; give the "
            "model that it was trained beside: base=PATH|NAME (slm-train: model.base=…)"
        )
    place = given if given is not None else here[0]
    if given is None:
        notice(f"'{folder}' is a PEFT adapter; its base is '{place}'")
    base = find_source(place)
    if base.format == "peft":
        raise UserError(f"'{place}' is an adapter, too, and cannot be the base of '{folder}'; give a whole model")
    opened = peft.merged(open_source(base), peft.read_adapter(folder))
    own = _tokenizer_in(folder)
    facts = {**opened.facts, "source": str(folder), "format": "peft", "base": str(place)}
    return _fitting(replace(opened, tokenizer=opened.tokenizer if is_missing(own) else own, facts=facts), str(folder))
