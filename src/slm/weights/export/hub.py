"""Folders onto a hub of models, by `huggingface_hub`: a branch a revision; its errors in our words."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm.errors import UserError
from slm.notices import notice
from slm.weights.export.revisions import CACHE, MAIN

_OF_THE_NET = ("httpx", "httpcore", "hf_xet")  # modules whose errors say that nobody answers
_LOG_IN = "log in (hf auth login) or set HF_TOKEN to a token that may write"


@dataclass(frozen=True)
class Repository:
    """One that is there, on the hub that ``HF_ENDPOINT`` names."""

    api: Any  # `huggingface_hub.HfApi`
    name: str  # with its owner's
    url: str

    def upload(self, folder: Path, revision: str, message: str) -> str:
        """All files of `folder` as what the branch `revision` is, begun where there is none; gives the commit."""
        with in_our_words(self.name):
            if revision != MAIN:
                self.api.create_branch(self.name, branch=revision, exist_ok=True)
            info = self.api.upload_folder(
                repo_id=self.name, folder_path=folder, revision=revision, commit_message=message
            )
        return str(info.oid)


def open_repository(name: str, private: bool) -> Repository:
    """That of this `name` ("owner/name", or one's own), made where there is none: `private`, or for all to see.
    `UserError` where it cannot be: no token, one that may not, no connection."""
    import huggingface_hub

    if huggingface_hub.get_token() is None:
        raise UserError(f"repo: there is no token for {_endpoint()}; {_LOG_IN}")
    api = huggingface_hub.HfApi(endpoint=_endpoint())
    with in_our_words(name):
        there = api.repo_exists(name) if "/" in name else False
        found = api.create_repo(name, private=private, exist_ok=True)
    if there:
        notice(f"'{found.repo_id}' is there already: who may see it stays as it is")
    return Repository(api, found.repo_id, str(found.url))


def revisions_in(folder: Path) -> dict[str, Path]:
    """Of a folder that `to=revisions` made, each branch's files, main's last; else {}."""
    found = {}
    references = folder.glob(f"{CACHE}/models--*/refs/*")
    for reference in sorted(references, key=lambda file: (file.name == MAIN, file.stat().st_mtime_ns, file.name)):
        snapshot = reference.parent.parent / "snapshots" / reference.read_text(encoding="utf-8")
        found[reference.name] = snapshot
    return found


def _endpoint() -> str:
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


@contextmanager
def in_our_words(name: str) -> Iterator[None]:
    """Raise `UserError` for what a hub refuses, or where none answers."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        yield
    except HFValidationError as error:
        raise UserError(f"repo: '{name}' is no name of a model ({_line(error)}); give owner/name") from None
    except OfflineModeIsEnabled:
        raise UserError("repo: HF_HUB_OFFLINE is set, and a push needs the hub; unset it") from None
    except Exception as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error  # of a large file
        if isinstance(cause, HfHubHTTPError):
            raise UserError(_refusal(name, cause)) from None
        is_of_net = type(cause).__module__.startswith(_OF_THE_NET) or isinstance(cause, ConnectionError)
        if not is_of_net:
            raise
        said = f"{_endpoint()} cannot be reached ({_line(cause)})"
        raise UserError(f"repo: {said}; what is there already is kept, the same again goes on") from None


def _refusal(name: str, error: Any) -> str:
    status = int(getattr(error.response, "status_code", 0))
    meant = {
        401: f"the hub does not know the token; {_LOG_IN}",
        403: f"the token may not write there; {_LOG_IN}, or name a repository of your own",
        404: "there is no such owner or repository, or the token may not see it; check the name",
        409: "it is being changed by another; try again",
        429: "too many requests; try again later",
    }
    told = meant.get(status, f"the hub answers {status} ({_line(error)}); try again later")
    return f"repo: '{name}' is not written: {told}"


def _line(error: BaseException) -> str:
    """What it says, but for our token, which a server may say again."""
    from huggingface_hub import get_token

    said = str(error).replace(get_token() or "\0", "***")
    return " ".join(said.split())[:200] or type(error).__name__
