"""slm-generate: continue a prompt, a file of prompts, or talk."""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from slm.cli.app import entry_point
from slm.cli.command import Command
from slm.cli.given_model import model_source, reject_unknown
from slm.cli.result import Result
from slm.errors import UserError, refuse
from slm.notices import as_typed, notice

if TYPE_CHECKING:
    from slm.generation.completion import Completion
    from slm.generation.config import GenerationConfig, Prompt
    from slm.generation.language_model import LanguageModel
    from slm.generation.probability_colours import ProbabilityColours
    from slm.tokenizers.base import Tokenizer

PROBABILITIES = "probabilities"
_ALTERNATIVES = 5  # told beside each token in JSON, unless generation.alternatives says how many
_Show = Literal["probabilities"] | None
_Device, _Dtype = Literal["auto", "cpu", "cuda"], Literal["auto", "float32", "bfloat16", "float16"]


def generate(values: dict[str, Any], settings: GenerationConfig) -> Result | None:
    """The command's task. What a person reads is written as it comes; a program gets it whole."""
    if lost := [text for text in settings.stop if re.fullmatch(r"(\\[ntr])+", text)]:
        shown = f"""generation.stop='["{lost[0]}"]'"""
        notice(f"generation.stop: '{lost[0]}' is a backslash and a letter; where the shell took the quotes: {shown}")
    if values["json"] and values["prompt"] is None and values["prompts"] is None:
        raise UserError("json=true has no interactive prompt; give prompt=TEXT or prompts=FILE")
    source = model_source(values)
    prompts = None if values["prompts"] is None else _unanswered(values)
    if prompts == []:
        return _result_of_file(values, 0, "")
    import torch

    from slm.generation.language_model import load

    if values["device"] == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: there is no GPU that torch can use here; device=cpu")
    device = None if values["device"] == "auto" else values["device"]
    dtype = None if values["dtype"] == "auto" else getattr(torch, values["dtype"])
    language_model = load(source, device, dtype, settings.quantize)
    settings = _as_its_makers_do(language_model, values["generation"] | {"system": settings.system})
    shows = values["show"] == PROBABILITIES
    if shows:
        settings = replace(settings, logprobs=True)
    if prompts is not None:
        from slm.generation.prompt_file import open_answers
        from slm.training.lean_lightning import import_lightning

        import_lightning()
        from slm.training.predict import answer_prompts

        out, held = values["out"], io.StringIO()
        to_stdout = contextlib.nullcontext(held if values["json"] else sys.stdout)
        with open_answers(Path(out).expanduser()) if out is not None else to_stdout as lines:
            answer_prompts(language_model, prompts, settings, lines)
        return _result_of_file(values, len(prompts), held.getvalue())
    if values["prompt"] is not None and values["json"]:
        return _result_of_prompt(language_model, str(values["prompt"]), settings, shows)
    if values["prompt"] is not None:
        _continue(language_model, str(values["prompt"]), settings, shows)
        return None
    from slm.generation.repl.loop import InteractivePrompt

    InteractivePrompt(language_model, settings, shows).run()
    return None


def _result_of_prompt(language_model: LanguageModel, prompt: str, settings: GenerationConfig, shows: bool) -> Result:
    from slm.generation.prompt_file import fields_of

    if shows and not settings.alternatives:
        settings = replace(settings, alternatives=_ALTERNATIVES)
    completions = language_model.complete([prompt], settings)[0]
    told = [
        {**fields_of(one), **({"tokens": _tokens(language_model.tokenizer, one)} if shows else {})}
        for one in completions
    ]
    return Result({"prompt": prompt, "completions": told})


def _tokens(tokenizer: Tokenizer, completion: Completion) -> list[dict[str, Any]]:
    """Each token of the text with its probability, and the likeliest ones in its place."""

    def named(token_id: int, logprob: float) -> dict[str, Any]:
        text = tokenizer.decode([token_id])
        return {"id": token_id, "text": text, "logprob": logprob, "probability": math.exp(logprob)}

    logprobs, alternatives = completion.logprobs or [], completion.alternatives or []
    return [
        {**named(token_id, logprob), "alternatives": [named(*other) for other in others]}
        for token_id, logprob, others in zip(completion.ids, logprobs, alternatives, strict=True)
    ]


def _result_of_file(values: Mapping[str, Any], answered: int, lines: str) -> Result | None:
    """Of a file of prompts; the answers themselves where they go nowhere else."""
    if not values["json"]:
        return None
    answers = {"answers": [json.loads(line) for line in lines.splitlines()]} if values["out"] is None else {}
    return Result({"prompts": values["prompts"], "out": values["out"], "answered": answered, **answers})


def _unanswered(values: Mapping[str, Any]) -> list[Prompt]:
    """The prompts of the file that have no line in `out` yet."""
    from slm.generation.prompt_file import answered_before, open_answers, read_prompts

    prompts = read_prompts(Path(values["prompts"]).expanduser())
    if values["out"] is None:
        return prompts
    out = Path(values["out"]).expanduser()
    if done := answered_before(out, prompts):
        notice(f"{done} of {len(prompts)} prompts are answered in '{out}' already")
    if prompts[done:]:
        open_answers(out).close()  # to know it before the model is loaded
    return prompts[done:]


def _as_its_makers_do(language_model: LanguageModel, asked: Mapping[str, Any]) -> GenerationConfig:
    from slm.tokenizers.load import is_missing
    from slm.weights.own_sampling import own_sampling

    settings = language_model.settled(None, asked)
    own = own_sampling(language_model.facts).items()
    taken = [(name, value) for name, value in own if asked[name] is None and getattr(settings, name) == value]
    if taken:
        notice(f"sampling as the model's makers do: {as_typed(dict(taken))}")
    trained = {} if is_missing(language_model.tokenizer) else language_model.tokenizer.template_args
    kept = {name: value for name, value in trained.items() if name not in (settings.template_args or {})}
    if kept and settings.chat is not False:
        notice(f"the chat template is given {as_typed(kept)}, as in training; generation.template_args changes that")
    return settings


def _checked(values: dict[str, Any]) -> GenerationConfig:
    from slm.generation.config import settled
    from slm.schema import together, value_problems

    of_model = {"run", "checkpoint", "model_dir", "base", "device", "dtype", "plugins"}
    keys = {*of_model, "prompt", "system", "prompts", "out", "show", "generation"}
    return together(
        lambda: settled({**values["generation"], **_system(values)}, {}, "generation"),
        lambda: reject_unknown(values, keys),
        lambda: refuse(value_problems(_Device, values["device"], "device")),
        lambda: refuse(value_problems(_Dtype, values["dtype"], "dtype")),
        lambda: refuse(value_problems(_Show, values["show"], "show")),
        lambda: _check_files(values),
    )[0]


def _system(values: Mapping[str, Any]) -> dict[str, str]:
    """`system` is `generation.system` under a short name."""
    if values["system"] is None:
        return {}
    if values["generation"]["system"] is not None:
        raise UserError("system and generation.system were both given; they are one, give either")
    return {"system": str(values["system"])}


def _check_files(values: Mapping[str, Any]) -> None:
    if values["prompt"] is not None and values["prompts"] is not None:
        raise UserError("prompt and prompts were both given; give one of them")
    if values["show"] is not None and values["prompts"] is not None:
        raise UserError(
            "show is for prompt=TEXT and the interactive prompt; with prompts=FILE: generation.logprobs=true"
        )
    if values["out"] is not None and values["prompts"] is None:
        place = "out is where the answers to prompts=FILE go"
        raise UserError(f"{place}; give that, or send a prompt's answer on by > FILE")


def _continue(language_model: LanguageModel, prompt: str, settings: GenerationConfig, shows: bool) -> None:
    if settings.n > 1:
        for completion in language_model.complete([prompt], settings)[0]:
            print(json.dumps({"completion": completion.text}, ensure_ascii=False))
        return
    colours = _colours() if shows else None
    for piece in language_model.pieces(prompt, settings):
        print(piece.text if colours is None else colours.of(piece, piece.text), end="", flush=True)
    if sys.stdout.isatty():
        print()
    if colours is not None and colours.has_any and sys.stderr.isatty():
        print(colours.legend, file=sys.stderr)


def _colours() -> ProbabilityColours:
    from slm.generation.probability_colours import ProbabilityColours

    colours = ProbabilityColours(sys.stdout)
    if not colours.has_any:
        notice("show=probabilities: no colours here (no terminal, or NO_COLOR); json=true gives the numbers")
    return colours


_PATHS = ("run", "model_dir", "base", "prompts", "out")
_LITERAL = ("prompt", "system")
main = entry_point(Command("generate", generate, _checked, literal=_LITERAL, paths=_PATHS), __name__)
