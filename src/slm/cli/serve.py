"""slm-serve: models over HTTP, and a page."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from slm.cli.app import entry_point
from slm.cli.command import Command
from slm.cli.given_model import model_source, reject_unknown
from slm.cli.result import Result
from slm.errors import UserError, refuse
from slm.extras import check_installed

if TYPE_CHECKING:
    from slm.serve.config import ServeConfig

KEY_VARIABLE = "SLM_API_KEY"
_Device, _Dtype = Literal["auto", "cpu", "cuda"], Literal["auto", "float32", "bfloat16", "float16"]
_PACKAGES = ("starlette", "uvicorn", "prometheus_client")


def serve(values: dict[str, Any], config: ServeConfig) -> Result:
    """The command's task: a result once it listens, and then it serves."""
    for package in _PACKAGES:
        check_installed(package, "serve", "slm-serve")
    named = _names(_paths(values["run"], "run") + _paths(values["model_dir"], "model_dir"))
    sources = {name: model_source(values | {"run": None, "model_dir": None, key: path}) for name, key, path in named}
    import torch

    from slm.generation.language_model import load
    from slm.models.kernels.waiting import apart
    from slm.serve.server import listening, url_of
    from slm.serve.server import serve as run

    if values["device"] == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: there is no GPU that torch can use here; device=cpu")
    listener = listening(config)  # a port in use is told before a model is loaded
    try:
        from slm.serve.app import Api
        from slm.serve.served import Served

        device = None if values["device"] == "auto" else values["device"]
        dtype = None if values["dtype"] == "auto" else getattr(torch, values["dtype"])
        generation = values["generation"]
        loaded = apart(lambda: [load(source, device, dtype, generation["quantize"]) for source in sources.values()])
        models = [
            Served(name, one, generation, config.max_len, config.prefix_bytes)
            for name, one in zip(sources, loaded, strict=True)
        ]
        api = Api(models, config)
    except BaseException:
        listener.close()
        raise
    url = url_of(listener)
    words = f"serving {', '.join(sources)} at {url} · Ctrl-C ends"
    return Result({"url": url, "models": [*sources]}, words, then=partial(run, api.app, config, listener))


def _paths(given: Any, key: str) -> list[tuple[str, str]]:
    paths = [] if given is None else given if isinstance(given, list) else [given]
    return [(key, str(path)) for path in paths]


def _names(given: Sequence[tuple[str, str]]) -> list[tuple[str, str, str]]:
    """(name, key, path): the last part of each path, or all of it where others end so too."""
    if not given:
        raise UserError(
            "no model was named; give run=PATH (a run folder) or model_dir=PATH|NAME (a bundle, a Hugging Face folder "
            "or name, a GGUF file, …), or several: run=[a,b]"
        )
    last = [Path(path).expanduser().resolve().name.removesuffix(".gguf") for _, path in given]
    how_often, paths = Counter(last), Counter(path for _, path in given)
    refuse(f"'{path}' is named twice; leave one of them out" for path, n in paths.items() if n > 1)
    return [(name if how_often[name] == 1 else path, key, path) for name, (key, path) in zip(last, given, strict=True)]


def _checked(values: dict[str, Any]) -> ServeConfig:
    from slm.generation.config import settled
    from slm.schema import checked, together, value_problems
    from slm.serve.config import ServeConfig

    of_model = {"run", "checkpoint", "model_dir", "base", "device", "dtype", "plugins"}
    names = [field.name for field in fields(ServeConfig)]
    return together(
        lambda: checked(ServeConfig, {**{name: values[name] for name in names}, "api_key": _key(values)}),
        lambda: settled(values["generation"], {}, "generation"),
        lambda: reject_unknown(values, {*of_model, "generation", *names}),
        lambda: refuse(value_problems(_Device, values["device"], "device")),
        lambda: refuse(value_problems(_Dtype, values["dtype"], "dtype")),
    )[0]


def _key(values: Mapping[str, Any]) -> Any:
    typed = values["api_key"]
    if typed is not None:
        return str(typed)
    return os.environ.get(KEY_VARIABLE) or None


_PATH_KEYS = ("run", "model_dir", "base")
main = entry_point(Command("serve", serve, _checked, literal=("api_key", "host"), paths=_PATH_KEYS), __name__)
