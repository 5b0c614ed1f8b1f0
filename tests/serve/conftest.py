"""A server in this process, on a thread, with a small model whose texts are noise."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from slm.chat.template import with_template
from slm.generation.language_model import LanguageModel
from slm.models.config import ModelConfig
from slm.models.contract import build_model
from slm.tokenizers.byte import ByteTokenizer

if any(find_spec(package) is None for package in ("starlette", "uvicorn", "prometheus_client")):
    collect_ignore_glob = ["test_*.py"]  # the extra serve is not installed
else:
    from slm.serve.app import Api
    from slm.serve.config import ServeConfig
    from slm.serve.served import Served
    from slm.serve.server import listening, server_of, url_of

MAX_SEQ_LEN = 256
GENERATION = {"max_new_tokens": 24, "batch_size": 4}


def made(chats: bool = True, seed: int = 3) -> LanguageModel:
    transformer = {"dim": 16, "n_layers": 2, "n_heads": 2}
    modules = {"position_embedding": {"kind": "rotary"}, "transformer": transformer}
    tokenizer = with_template(ByteTokenizer(), "chatml") if chats else ByteTokenizer()
    params = {"max_seq_len": MAX_SEQ_LEN, "vocab_size": tokenizer.vocab_size}
    model = build_model(ModelConfig.from_dict({"name": "gpt", "params": params, "modules": modules}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return LanguageModel(model.eval(), tokenizer, facts={})  # type: ignore[arg-type]


def config(**changes: Any) -> ServeConfig:
    usual = {"host": "127.0.0.1", "port": 0, "api_key": None, "max_len": 8192, "max_waiting": 64}
    return ServeConfig(
        **{**usual, "max_body_mib": 0.25, "prefixes_mib": 64.0, "timeout": 60.0, "grace": 1.0, **changes}
    )


@contextlib.contextmanager
def running(models: dict[str, LanguageModel], generation: dict[str, Any], **changes: Any) -> Iterator[Any]:
    """``(url, api)`` of a server of these models."""
    asked = config(**changes)
    listener = listening(asked)
    of_all = ({**GENERATION, **generation}, asked.max_len, asked.prefix_bytes)
    served = [Served(name, model, *of_all) for name, model in models.items()]
    api = Api(served, asked)
    server = server_of(api.app, asked)
    thread = threading.Thread(target=lambda: server.run(sockets=[listener]))
    thread.start()
    try:
        yield url_of(listener), api
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
        assert not thread.is_alive(), "it ends"


Start = Callable[..., contextlib.AbstractContextManager[Any]]


@pytest.fixture(scope="session")
def lm() -> LanguageModel:
    return made()


@pytest.fixture(scope="session")
def start(lm: LanguageModel) -> Start:
    """``with start(api_key="k") as (url, api)``: a server of its own; settings of texts as ``generation={…}``."""
    return lambda generation=None, models=None, **changes: running(models or {"small": lm}, generation or {}, **changes)


@pytest.fixture(scope="session")
def served(start: Start) -> Iterator[Any]:
    """``(url, api)`` of one server for all tests that leave it as it is, with two models."""
    with start(models={"small": made(), "plain": made(chats=False, seed=5)}) as found:
        yield found


@pytest.fixture
def url(served: Any) -> str:
    return served[0]
