"""The routes, and what stands around them."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from slm.errors import UserError
from slm.notices import notice
from slm.serve.answering import answer
from slm.serve.answers import Health, Models
from slm.serve.bodies import ChatAsked, CompletionAsked
from slm.serve.chat_shape import ChatShape
from slm.serve.completion_shape import CompletionShape
from slm.serve.config import ServeConfig
from slm.serve.description import described
from slm.serve.guard import Guard
from slm.serve.metrics import Metrics
from slm.serve.request_body import read_body
from slm.serve.request_error import RequestError, error_body
from slm.serve.served import Served, named
from slm.serve.shape import Shape
from slm.serve.tokenizing import Tokenizing
from slm.serve.worker import Worker

PAGE = Path(__file__).with_name("page")


class Api:
    """Some models over HTTP, as an ASGI application."""

    def __init__(self, models: Sequence[Served], config: ServeConfig) -> None:
        self.models = models
        self.config = config
        rows = sum(model.settings.batch_size for model in models)
        self.worker = Worker({model.name: model.lane for model in models}, config.max_waiting, rows)
        routes = self._routes()
        self.metrics = Metrics(models, [route.path for route in routes if isinstance(route, Route)])
        self.app = Starlette(
            routes=routes,
            middleware=[Middleware(Guard, config=config, counted=self.metrics.answered)],
            exception_handlers={UserError: _refused, HTTPException: _refused, Exception: _failed},
            lifespan=self._alive,
        )

    def _routes(self) -> list[Route | Mount]:
        tokenizing = Tokenizing(self.models, self.config.max_body)
        return [
            Route("/", self._page),
            Route("/favicon.ico", self._icon),
            Mount("/page", StaticFiles(directory=PAGE)),
            Route("/v1/models", self._list),
            Route("/v1/models/{name:path}", self._model),
            Route("/v1/completions", self._complete, methods=["POST"]),
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Route("/tokenize", tokenizing.tokenize, methods=["POST"]),
            Route("/detokenize", tokenizing.detokenize, methods=["POST"]),
            Route("/tokenizer_info", tokenizing.info),
            Route("/health", self._health),
            Route("/metrics", self._metrics),
            Route("/openapi.json", self._description),
        ]

    @contextlib.asynccontextmanager
    async def _alive(self, app: Starlette) -> AsyncIterator[None]:
        self.worker.start()
        try:
            yield
        finally:
            await asyncio.to_thread(self.worker.close)

    async def _page(self, request: Request) -> Response:
        return FileResponse(PAGE / "index.html")

    async def _icon(self, request: Request) -> Response:
        return FileResponse(PAGE / "icon.svg")

    async def _list(self, request: Request) -> Response:
        listed: Models = {"object": "list", "data": [model.described() for model in self.models]}
        return JSONResponse(listed)

    async def _model(self, request: Request) -> Response:
        return JSONResponse(named(self.models, request.path_params["name"]).described())

    async def _complete(self, request: Request) -> Response:
        asked = await read_body(request, CompletionAsked, self.config.max_body)
        served = named(self.models, asked.model)
        return await self._answered(request, await asyncio.to_thread(_locked, CompletionShape, asked, served))

    async def _chat(self, request: Request) -> Response:
        asked = await read_body(request, ChatAsked, self.config.max_body)
        served = named(self.models, asked.model)
        return await self._answered(request, await asyncio.to_thread(_locked, ChatShape, asked, served))

    async def _answered(self, request: Request, shape: Shape) -> Response:
        shape.job.on_end = lambda: self.metrics.wrote(shape)
        return await answer(request, shape, self.worker, self.config.timeout)

    async def _health(self, request: Request) -> Response:
        lanes = [model.lane for model in self.models]
        counts = sum(lane.n_running for lane in lanes), sum(lane.n_waiting for lane in lanes)
        health: Health = {"status": "ok", "running": counts[0], "waiting": counts[1]}
        return JSONResponse(health)

    async def _metrics(self, request: Request) -> Response:
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4")

    async def _description(self, request: Request) -> Response:
        return JSONResponse(described(self.config.api_key is not None))


def _locked(shape: Any, asked: Any, served: Served) -> Shape:
    """In a thread of its own: a long prompt takes its time to be encoded."""
    with served.lock:
        return shape(asked, served)


async def _refused(request: Request, error: Exception) -> Response:
    if isinstance(error, RequestError):
        body = error_body(str(error), error.status, error.code, error.param)
        return JSONResponse(body, error.status, error.headers)
    if isinstance(error, HTTPException):
        return JSONResponse(error_body(error.detail, error.status_code), error.status_code, error.headers)
    return JSONResponse(error_body(str(error), 400), 400)


async def _failed(request: Request, error: Exception) -> Response:
    notice("".join(traceback.format_exception(error)))
    return JSONResponse(error_body(f"the server has a fault ({type(error).__name__})", 500), 500)
