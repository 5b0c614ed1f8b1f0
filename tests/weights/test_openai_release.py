"""OpenAI's files, from a small mirror of our own."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from slm.errors import UserError
from slm.weights import openai_release
from slm.weights.openai_release import RELEASES, Release, fetch_release

HPARAMS = {"n_vocab": 5, "n_ctx": 8, "n_embd": 4, "n_layer": 1, "n_head": 2}
CONTENT = {
    "checkpoint": b'model_checkpoint_path: "model.ckpt"\n',
    "encoder.json": b"{}",
    "hparams.json": json.dumps(HPARAMS).encode(),
    "model.ckpt.data-00000-of-00001": bytes(100),
    "model.ckpt.index": b"index",
    "model.ckpt.meta": b"meta",
    "vocab.bpe": b"#version: 0.2\n",
}


class Mirror(ThreadingHTTPServer):
    """A folder with ``tiny/`` in it, and the paths it was asked for."""

    folder: Path
    asked: list[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"


class Handler(SimpleHTTPRequestHandler):
    server: Mirror

    def log_message(self, *_: object) -> None:
        if (path := self.path) not in self.server.asked:
            self.server.asked.append(path)


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(openai_release, "RELEASES", {"gpt2-tiny": Release("tiny", 100, HPARAMS)})
    pinned = {name: hashlib.sha256(CONTENT[name]).hexdigest() for name in ("encoder.json", "vocab.bpe")}
    monkeypatch.setattr(openai_release, "_SHA256", pinned)
    folder = tmp_path / "mirror" / "tiny"
    folder.mkdir(parents=True)
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)
    with Mirror(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "mirror"))) as server:
        server.folder, server.asked = folder, []
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


def test_all_files_come_once_and_only_the_missing_ones_again(mirror: Mirror, tmp_path: Path) -> None:
    folder = fetch_release("gpt2-tiny", tmp_path / "cache", mirror.url)
    assert folder == tmp_path / "cache" / "tiny"
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == CONTENT
    mirror.asked.clear()
    (folder / "vocab.bpe").write_bytes(b"damaged")
    (folder / "model.ckpt.index").unlink()
    fetch_release("gpt2-tiny", tmp_path / "cache", mirror.url)
    assert mirror.asked == ["/tiny/vocab.bpe", "/tiny/model.ckpt.index"]


def test_without_a_folder_it_is_the_cache(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLM_CACHE_DIR", str(tmp_path / "cache"))
    assert fetch_release("gpt2-tiny", mirror=mirror.url) == tmp_path / "cache" / "openai_gpt2" / "tiny"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.ckpt.data-00000-of-00001", bytes(99), "has 99 bytes, expected 100; name a mirror of these files, or"),
        ("encoder.json", b"[]", "has the checksum 4f53cda1"),
        (
            "hparams.json",
            json.dumps({**HPARAMS, "n_layer": 2}).encode(),
            r"of gpt2-tiny: n_layer 2 \(expected 1\); del",
        ),
        ("hparams.json", b"{", r"hparams.json is damaged \(.*\); delete it to have it fetched again"),
        ("checkpoint", None, r"tiny/checkpoint \(the server answers 404 Not Found\); name a mirror"),
    ],
    ids=["weights cut short", "vocabulary", "shape", "shape damaged", "missing"],
)
def test_another_model_s_files_are_refused(
    mirror: Mirror, tmp_path: Path, file: str, content: bytes | None, message: str
) -> None:
    (mirror.folder / file).unlink()
    if content is not None:
        (mirror.folder / file).write_bytes(content)
    with pytest.raises(UserError, match=message) as told:
        fetch_release("gpt2-tiny", tmp_path / "cache", mirror.url)
    assert "\n" not in str(told.value)


def test_a_wrong_shape_is_found_before_the_weights_travel(mirror: Mirror, tmp_path: Path) -> None:
    (mirror.folder / "hparams.json").write_text("{}")
    with pytest.raises(UserError, match="n_vocab None"):
        fetch_release("gpt2-tiny", tmp_path / "cache", mirror.url)
    assert mirror.asked == ["/tiny/hparams.json"]


def test_a_name_that_is_none_is_told_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no GPT-2 'gpt2-124'; did you mean 'gpt2-124m'\? \(known: .*gpt2-1558m"):
        fetch_release("gpt2-124", tmp_path)


def test_the_pinned_sizes_are_four_bytes_a_parameter() -> None:
    """From the shapes alone: embeddings, twelve tensors a block, the final norm."""
    for release in RELEASES.values():
        vocab, length, dim, layers, _ = release.hparams.values()
        block = (3 * dim * dim + 3 * dim) + (dim * dim + dim) + (4 * dim * dim + 4 * dim) + (4 * dim * dim + dim)
        parameters = (vocab + length) * dim + layers * (block + 4 * dim) + 2 * dim
        assert release.data_bytes == 4 * parameters
