"""`/tokenize`, `/detokenize`, `/tokenizer_info`, as vLLM's server has them: clients that count tokens need no files."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from slm.serve.answers import Detokenized, Tokenized, TokenizerInfo
from slm.serve.bodies import DetokenizeAsked, TokenizeAsked
from slm.serve.request_body import read_body
from slm.serve.request_error import RequestError
from slm.serve.served import Served, named


class Tokenizing:
    """Of some models, by bodies of at most `max_body` bytes."""

    def __init__(self, models: Sequence[Served], max_body: int) -> None:
        self._models = models
        self._max_body = max_body

    async def tokenize(self, request: Request) -> Response:
        """Ids of a text; of one that spells a special token, and nothing else, that token's."""
        asked = await read_body(request, TokenizeAsked, self._max_body)
        served = named(self._models, asked.model)
        ids = await asyncio.to_thread(_encoded, served, asked.prompt, asked.add_special_tokens is not False)
        told: Tokenized = {"tokens": ids, "count": len(ids), "max_model_len": served.longest}
        return JSONResponse(told)

    async def detokenize(self, request: Request) -> Response:
        """The text of ids."""
        asked = await read_body(request, DetokenizeAsked, self._max_body)
        served = named(self._models, asked.model)
        try:
            told: Detokenized = {"prompt": served.language_model.tokenizer.decode(asked.tokens)}
        except ValueError as error:
            raise RequestError(str(error), param="tokens") from None
        return JSONResponse(told)

    async def info(self, request: Request) -> Response:
        """Of the model that the query names, or the first."""
        served = named(self._models, request.query_params.get("model"))
        tokenizer, spelt = served.language_model.tokenizer, served.names.specials
        begin = tokenizer.begin_ids
        told: TokenizerInfo = {
            "tokenizer_class": tokenizer.kind,
            "vocab_size": tokenizer.vocab_size,
            "eos_token": spelt.get(tokenizer.eos_id),
            "bos_token": spelt.get(begin[0]) if begin else None,
            "pad_token": None if tokenizer.pad_id is None else spelt.get(tokenizer.pad_id),
            "chat_template": tokenizer.chat_template,
        }
        return JSONResponse(told)


def _encoded(served: Served, text: str, begins: bool) -> list[int]:
    tokenizer = served.language_model.tokenizer
    of_special = {spelling: token_id for token_id, spelling in served.names.specials.items()}
    if text in of_special:
        return [of_special[text]]
    with served.lock:
        return [*(tokenizer.begin_ids if begins else ()), *tokenizer.encode(text)]
