"""A job done, and answered: whole, or as server-sent events while it is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from slm.files.plain_json import without_nan
from slm.serve.jobs import Broken, Finished, Job, News
from slm.serve.leaving import unless_gone
from slm.serve.request_error import RequestError, error_body
from slm.serve.shape import Shape
from slm.serve.worker import Worker

_CLIENT_LEFT = 499  # as nginx has it; nobody reads it, but the counts do


async def answer(request: Request, shape: Shape, worker: Worker, seconds: float) -> Response:
    """The answer to a request; a text that is not done after `seconds` is cut."""
    if shape.job.streams:
        return EventStream(shape, worker, seconds)
    async with worker.begun(shape.job):
        done = await unless_gone(request.receive, _whole(shape, worker, seconds))
    return Response(status_code=_CLIENT_LEFT) if done is None else JSONResponse(without_nan(done))


async def _whole(shape: Shape, worker: Worker, seconds: float) -> Mapping[str, Any]:
    async for _ in news_of(shape.job, worker, seconds):
        pass
    return shape.whole()


async def news_of(job: Job, worker: Worker, seconds: float) -> AsyncIterator[News]:
    """All that is told of a job. `RequestError` where something breaks, or its time is over and nothing was written."""
    timer = asyncio.get_running_loop().call_later(seconds, worker.cut, job)
    ends = 0
    try:
        while ends < len(job.texts):
            news = await job.news.get()
            if isinstance(news, Broken):
                raise RequestError(f"the server has a fault ({news.reason})", 500)
            ends += isinstance(news, Finished)
            yield news
    finally:
        timer.cancel()
        job.on_end()
    if job.cut and not any(text.growing.ids for text in job.texts):
        message = f"no row became free within {seconds:.0f} s; try again in a while"
        raise RequestError(message, 503, "timeout", headers={"Retry-After": "10"})


class EventStream(Response):
    """``data: {…}`` for each token, and ``data: [DONE]``."""

    def __init__(self, shape: Shape, worker: Worker, seconds: float) -> None:
        super().__init__(media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        del self.headers["content-length"]
        self._shape, self._worker, self._seconds = shape, worker, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._worker.begun(self._shape.job):
            await unless_gone(receive, self._send(send))

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async for chunk in self._chunks():
                await _send_event(send, json.dumps(without_nan(chunk), ensure_ascii=False))
        except RequestError as refusal:  # the status is sent: it is told as an event
            told = error_body(str(refusal), refusal.status, refusal.code)
            await _send_event(send, json.dumps(told, ensure_ascii=False))
        await _send_event(send, "[DONE]")
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _chunks(self) -> AsyncIterator[Mapping[str, Any]]:
        shape, begun = self._shape, set[int]()
        async for news in news_of(shape.job, self._worker, self._seconds):
            assert not isinstance(news, Broken)
            text = news.text
            if text.index not in begun:
                begun.add(text.index)
                yield shape.chunk(shape.begun(text))
            if isinstance(news, Finished):
                yield shape.chunk(shape.ended(text, news.piece))
            elif (choice := shape.news(text, news.piece, news.token)) is not None:
                yield shape.chunk(choice)
        for chunk in shape.last_chunks():
            yield chunk


async def _send_event(send: Send, data: str) -> None:
    await send({"type": "http.response.body", "body": f"data: {data}\n\n".encode(), "more_body": True})
