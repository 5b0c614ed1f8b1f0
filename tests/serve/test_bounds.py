"""What strangers send: no request ends the server, hangs, or takes memory without bound."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import re
import socket
import threading
import time
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import pytest

from slm.serve import app, heads, request_body
from slm.serve.lane import Lane

JSON = {"Content-Type": "application/json"}
HEAD = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def ask(url: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Any:
    """(status, body, headers) of one request."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=20)
    try:
        connection.request("GET" if body is None else "POST", path, body, JSON if headers is None else headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())
    finally:
        connection.close()


def completion(url: str, **asked: Any) -> Any:
    status, body, _ = ask(url, "/v1/completions", json.dumps({"prompt": "a", "max_tokens": 2, **asked}).encode())
    return status, json.loads(body)


VALUES = [None, True, -1, 0, 1e400, 10**30, "", "x" * 50, "\ud800", [], [[]], [None], {}, {"a": {}}, [1.5], -0.5]
NAMES = [
    *("prompt", "max_tokens", "n", "temperature", "top_p", "stop", "logprobs", "logit_bias", "seed", "stream", "echo"),
    *("model", "messages", "tools", "stream_options", "best_of", "suffix", "unheard_of", ""),
]


def malformed(draw: random.Random) -> bytes:
    """A body that was right until something happened to it."""
    value = draw.choice(VALUES)
    body: Any = {"prompt": "a", "max_tokens": 1}
    for _ in range(draw.randrange(1, 4)):
        body[draw.choice(NAMES)] = value
    text = json.dumps(draw.choice([body, body, body, [body], value]))
    raw = bytearray(text.encode())
    kind = draw.randrange(6)
    if kind == 0 and raw:
        raw[draw.randrange(len(raw))] = draw.randrange(256)
    elif kind == 1:
        raw = raw[: draw.randrange(len(raw) + 1)]
    elif kind == 2:
        raw = bytearray(b"[" * draw.randrange(1, 5000))
    return bytes(raw)


def test_malformed_bodies_are_refused_each_in_its_words(url: str) -> None:
    """Five hundred of them: never a fault of the server's, and it goes on."""
    draw, statuses = random.Random(0), []
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=20)
    for number in range(500):
        connection.request("POST", ("/v1/completions", "/v1/chat/completions")[number % 2], malformed(draw), JSON)
        answer = connection.getresponse()
        told = answer.read()
        statuses.append(answer.status)
        assert answer.status < 500, told
        if answer.status >= 400:
            error = json.loads(told)["error"]
            assert {*error} == {"message", "type", "param", "code"}
            assert error["message"]
    connection.close()
    assert statuses.count(400) > 300
    assert completion(url)[0] == 200


def test_bodies_are_bounded(url: str) -> None:
    """A gigabyte that is announced is not read, one that is not announced no further than the bound."""
    status, told, headers = ask(url, "/v1/completions", json.dumps({"prompt": "a" * 300_000}).encode())
    assert (status, headers["connection"]) == (413, "close")
    assert b"0.25 MiB" in told
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port), timeout=20) as stream:
        stream.sendall(f"{HEAD}Content-Length: 1000000000\r\n\r\n".encode())
        assert stream.recv(100).startswith(b"HTTP/1.1 413 ")
    with socket.create_connection((place.hostname, place.port), timeout=20) as stream:
        stream.sendall(f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode())
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 1 << 26:
                stream.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
                sent += 65536
        assert sent < 1 << 25, "it hung up"


@pytest.mark.parametrize("asked", [f"{HEAD}Content-Length: 9\r\n\r\n{{".encode(), HEAD.encode()[:40], b""])
def test_slow_clients_are_hung_up_on(url: str, asked: bytes) -> None:
    place = urlsplit(url)
    with (
        mock.patch.object(request_body, "SECONDS", 0.3),
        mock.patch.object(heads, "HEAD_SECONDS", 0.3),
        socket.create_connection((place.hostname, place.port), timeout=10) as stream,
    ):
        stream.sendall(asked)
        told = b""
        while part := stream.recv(1000):
            told += part
    assert told.startswith(b"HTTP/1.1 408 ") if b"{" in asked else told == b""


def test_a_queue_that_is_full_says_when_to_come_again(start: Any) -> None:
    with start(generation={"batch_size": 1}, max_waiting=2) as (url, api):
        endless = {"max_tokens": 200, "ignore_eos": True}
        threads = [threading.Thread(target=completion, args=(url,), kwargs=endless) for _ in range(3)]
        with mock.patch.object(Lane, "step", autospec=True, side_effect=slowly(0.02)):
            for thread in threads:
                thread.start()
            waited = time.monotonic() + 5
            while api.worker.n_open < 3 and time.monotonic() < waited:
                time.sleep(0.01)
            status, told, headers = ask(url, "/v1/completions", b'{"prompt": "a"}')
        assert (status, headers["retry-after"]) == (429, "1")
        assert json.loads(told)["error"]["code"] == "queue_full"
        for thread in threads:
            thread.join()
        assert completion(url)[0] == 200


STEP = Lane.step


def slowly(seconds: float) -> Any:
    def step(lane: Lane) -> Any:
        time.sleep(seconds)
        return STEP(lane)

    return step


def test_a_text_ends_when_its_time_is_over(start: Any) -> None:
    with start(timeout=0.3) as (url, _), mock.patch.object(Lane, "step", autospec=True, side_effect=slowly(0.03)):
        status, told = completion(url, max_tokens=200, ignore_eos=True)
    assert (status, told["choices"][0]["finish_reason"]) == (200, "length")
    assert 1 < told["usage"]["completion_tokens"] < 100


def test_a_step_that_fails_is_one_requests_fault(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    with mock.patch("slm.generation.side_by_side.SideBySide.step", side_effect=MemoryError("no more")):
        status, told = completion(url)
    assert (status, told["error"]["type"]) == (500, "server_error")
    assert "MemoryError" in told["error"]["message"]
    assert "MemoryError: no more" in capfd.readouterr().err
    assert completion(url)[0] == 200


def test_who_is_let_in(start: Any) -> None:
    """By key alone, where there is one; the page itself and what it is made of tell nothing."""
    with start(api_key="s\u00e9cret") as (url, _):
        for path in ("/", "/page/main.js", "/health", "/openapi.json"):
            assert ask(url, path)[0] == 200, path
        for path in ("/v1/models", "/metrics", "/tokenizer_info"):
            assert ask(url, path)[0] == 401, path
            assert ask(url, path, headers={"Authorization": "Bearer wrong"})[0] == 401
            told = ask(url, path, headers={"Authorization": "Bearer s\u00e9cret".encode().decode("latin-1")})
            assert told[0] == 200, told


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example:80"}, 403),
        ({"Host": "["}, 403),
        ({"Host": "localhost:1234"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_other_pages_may_not_ask(url: str, headers: dict[str, str], status: int) -> None:
    """A name of a stranger's that leads to this machine (DNS rebinding), a form on a stranger's page."""
    assert ask(url, "/v1/models", headers=headers)[0] == status
    assert not {"access-control-allow-origin"} & {name.lower() for name in ask(url, "/v1/models", headers=headers)[2]}


def test_a_body_of_a_form_is_refused(url: str) -> None:
    """Which a page of another place can send without asking."""
    assert ask(url, "/v1/completions", b'{"prompt": "a"}', {"Content-Type": "text/plain"})[0] == 415


def test_the_page_is_self_contained(url: str) -> None:
    """Nothing of it comes from elsewhere, and nothing in it could: a policy stands on every answer."""
    for file in sorted(app.PAGE.iterdir()):
        status, content, headers = ask(url, f"/page/{file.name}")
        assert (status, content) == (200, file.read_bytes())
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
        text = content.decode()
        assert not re.findall(r"(?:https?:)?//(?!www\.w3\.org/2000/svg)[a-z]", text.replace("// ", "")), file.name
        assert "innerHTML" not in text, "what a model writes is text"
        assert not re.search(r"<script(?![^>]*src=)|\son[a-z]+=|style=", text) or file.suffix == ".js", file.name
    assert ask(url, "/")[1] == Path(app.PAGE, "index.html").read_bytes()
    assert ask(url, "/page/../app.py")[0] == 404


def test_what_is_counted(url: str) -> None:
    completion(url, max_tokens=3, model="small", ignore_eos=True)
    text = ask(url, "/metrics")[1].decode()
    assert re.search(r'^slm_new_tokens_total\{model="small"\} [1-9]', text, re.MULTILINE)
    assert 'slm_answers_total{path="/v1/completions",status="200"}' in text
    assert 'slm_waiting{model="small"} 0.0' in text
    assert ask(url, "/nowhere/at/all")[0] == 404
    assert 'path="other",status="404"' in ask(url, "/metrics")[1].decode()


def test_texts_are_encoded_and_decoded(url: str) -> None:
    told = json.loads(ask(url, "/tokenize", json.dumps({"prompt": "h\u00e9"}).encode())[1])
    assert (told["tokens"], told["max_model_len"]) == (list("h\u00e9".encode()), 256)
    assert (
        json.loads(ask(url, "/detokenize", json.dumps({"tokens": told["tokens"]}).encode())[1])["prompt"] == "h\u00e9"
    )
    info = json.loads(ask(url, "/tokenizer_info")[1])
    assert "<|im_start|>" in info["chat_template"]
    (end,) = json.loads(ask(url, "/tokenize", json.dumps({"prompt": info["eos_token"]}).encode())[1])["tokens"]
    assert end == 256
    assert ask(url, "/detokenize", b'{"tokens": [99999]}')[0] == 400


def test_the_server_ends_while_texts_are_written(start: Any) -> None:
    """Within its grace time; who waits is told so by a closed connection."""
    with start(grace=1.0) as (url, api):
        thread = threading.Thread(target=lambda: left(url))
        with mock.patch.object(Lane, "step", autospec=True, side_effect=slowly(0.05)):
            thread.start()
            while not api.worker.n_open:
                time.sleep(0.01)
    thread.join(10)
    assert not thread.is_alive()


def left(url: str) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
        completion(url, max_tokens=250, ignore_eos=True)
