"""A hub of models on this machine: as much of its HTTP API as huggingface_hub calls to make repositories, branches and
commits, large files among them."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "c" * 40
NO_REPOSITORY = {"error": "Repository not found"}


@dataclass
class Hub:
    """What it was asked, and what lies there."""

    tokens: dict[str, int] = field(default_factory=lambda: {"hf_writes": 200})  # the status that each is answered with
    repositories: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)  # name -> branch -> files
    private: dict[str, bool] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)  # large files by their digest
    asked: list[str] = field(default_factory=list)
    url: str = ""
    of_large: int = 200  # the status that a large file is answered with

    def answer(self, method: str, path: str, token: str, body: bytes) -> tuple[int, Any]:
        """Status and JSON."""
        self.asked.append(f"{method} {path}")
        if method == "PUT":  # of an address that was signed
            self.objects[path.rpartition("/")[2]] = body
            return self.of_large, {}
        if (status := self.tokens.get(token, 401)) != 200:
            return status, {"error": f"refused to {token}"}
        for pattern, method_of, do in self._routes():
            if method == method_of and (found := re.fullmatch(pattern, path)):
                return do(*found.groups(), body)
        return 404, {"error": "Not Found"}

    def _routes(self) -> list[tuple[str, str, Callable[..., tuple[int, Any]]]]:
        name = "([^/]+/[^/]+)"
        return [
            ("/api/repos/create", "POST", self._create),
            ("/api/validate-yaml", "POST", lambda _: (200, {"errors": [], "warnings": []})),
            ("/api/whoami-v2", "GET", lambda _: (200, {"name": "me", "type": "user", "orgs": []})),
            (f"/api/models/{name}", "GET", self._info),
            (f"/api/models/{name}/branch/([^/]+)", "POST", self._branch),
            (f"/api/models/{name}/preupload/([^/]+)", "POST", self._preupload),
            (f"/api/models/{name}/commit/([^/]+)", "POST", self._commit),
            (f"/{name}.git/info/lfs/objects/batch", "POST", self._large),
        ]

    def _create(self, body: bytes) -> tuple[int, Any]:
        asked = json.loads(body)
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if name in self.repositories:
            return 409, {"error": "You already created this model repo", "url": f"{self.url}/{name}"}
        self.repositories[name] = {"main": {}}
        self.private[name] = asked.get("private", asked.get("visibility") == "private")  # by the library's version
        return 200, {"url": f"{self.url}/{name}"}

    def _info(self, name: str, _: bytes) -> tuple[int, Any]:
        if name not in self.repositories:
            return 404, NO_REPOSITORY
        return 200, {"id": name, "siblings": [], "private": self.private[name], "tags": []}

    def _branch(self, name: str, branch: str, _: bytes) -> tuple[int, Any]:
        if branch in self.repositories[name]:
            return 409, {"error": "Reference already exists"}
        self.repositories[name][branch] = dict(self.repositories[name]["main"])
        return 200, {}

    def _preupload(self, name: str, branch: str, body: bytes) -> tuple[int, Any]:
        files = json.loads(body)["files"]
        modes = [(file["path"], "lfs" if file["path"].endswith(".safetensors") else "regular") for file in files]
        return 200, {"files": [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes]}

    def _large(self, name: str, body: bytes) -> tuple[int, Any]:
        asked = json.loads(body)["objects"]
        action = {one["oid"]: {"upload": {"href": f"{self.url}/signed/{one['oid']}"}} for one in asked}
        objects = [{"oid": one["oid"], "size": one["size"], "actions": action[one["oid"]]} for one in asked]
        return 200, {"transfer": "basic", "objects": objects}

    def _commit(self, name: str, branch: str, body: bytes) -> tuple[int, Any]:
        files = self.repositories[name][branch]
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
        return 200, {"commitUrl": f"{self.url}/{name}/commit/{COMMIT}", "commitOid": COMMIT, "hookOutput": ""}

    def serve(self) -> ThreadingHTTPServer:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def _any(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                chunked = self.headers.get("Transfer-Encoding") == "chunked"
                body = self._chunks() if chunked else self.rfile.read(length)
                token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
                status, content = hub.answer(self.command, self.path.partition("?")[0], token, body)
                answer = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                if content == NO_REPOSITORY:
                    self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def _chunks(self) -> bytes:
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            do_GET = do_POST = do_PUT = _any  # noqa: N815

            def log_message(self, *_: Any) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server
