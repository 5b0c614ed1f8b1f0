"""How its makers sample from a model: `generation_config.json` in our words, kept among a bundle's facts, and back."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Gt, Le
from pydantic import Strict

from slm.errors import UserError
from slm.files.reading import read_json_object
from slm.notices import notice
from slm.schema import Flag, Fraction, NonNegativeInt, PositiveFloat, checked
from slm.tokenizers.hf_files import GENERATION_FILE

SAMPLING = "sampling"  # its place among the facts of a model
_THEIR_NAMES = {"no_repeat_ngram": "no_repeat_ngram_size"}
_THEIR_DEFAULTS = {"temperature": 1.0, "top_k": 50, "top_p": 1.0}  # transformers', with do_sample


@dataclass(frozen=True)
class OwnSampling:
    """Settings of `GenerationConfig`; None for what the makers leave open."""

    greedy: Flag | None = None
    temperature: PositiveFloat | None = None
    top_k: NonNegativeInt | None = None
    top_p: Annotated[float, Strict(), Gt(0), Le(1)] | None = None
    min_p: Fraction | None = None
    repetition_penalty: PositiveFloat | None = None
    no_repeat_ngram: NonNegativeInt | None = None


def sampling_in(folder: Path) -> dict[str, Any]:
    """What a Hugging Face folder says of sampling: a fact for `own_sampling`, or none. With ``do_sample`` what is left
    open is transformers' default, for so its makers run it."""
    file = folder / GENERATION_FILE
    values = read_json_object(file) if file.is_file() else {}
    theirs = {name: values.get(_THEIR_NAMES.get(name, name)) for name in OwnSampling.__dataclass_fields__}
    said = {name: value for name, value in theirs.items() if value is not None and name != "greedy"}
    if values.get("do_sample") is False or said.get("temperature") == 0:
        drawing = (*_THEIR_DEFAULTS, "min_p")
        said = {"greedy": True, **{name: value for name, value in said.items() if name not in drawing}}
    elif values.get("do_sample"):
        said = {"greedy": False, **_THEIR_DEFAULTS, **said}
    return {SAMPLING: said} if own_sampling({SAMPLING: said}, str(file)) else {}


def own_sampling(facts: Mapping[str, Any], where: str = "the model") -> dict[str, Any]:
    """Settings of `GenerationConfig` that the makers chose; what is no such setting is told and left aside."""
    try:
        own = checked(OwnSampling, facts.get(SAMPLING) or {})
    except UserError as error:
        notice(f"{where}: what it says of sampling is left aside: {'; '.join(str(error).splitlines())}")
        return {}
    return {name: value for name, value in asdict(own).items() if value is not None}


def their_sampling(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of ``generation_config.json``."""
    own = own_sampling(facts)
    greedy = own.pop("greedy", None)
    said = {} if greedy is None else {"do_sample": not greedy}
    return {**said, **{_THEIR_NAMES.get(name, name): value for name, value in own.items()}}
