"""A model as it was at several points of its training: a git repository with a branch each, and the same as the cache
that Hugging Face's libraries look a name up in."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from slm.errors import UserError
from slm.files.reading import digest_of
from slm.files.writing import new_folder

MAIN = "main"
CACHE = Path(".cache/huggingface/hub")
"""In the repository's folder: ``HF_HUB_CACHE``, by which ``from_pretrained(NAME, revision=…)`` finds the branches.
Uploads leave ``.cache`` out."""

_AUTHOR = {"NAME": "slm", "EMAIL": "slm@localhost", "DATE": "2000-01-01T00:00:00Z"}  # equal files, equal commits


def check_name(name: str) -> None:
    """Raise `UserError` for one that a hub would not take, or where there is no git."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UserError(f"out: '{name}' is no name of a model on a hub ({error}); name another folder") from None
    if shutil.which("git") is None:
        raise UserError("to=revisions makes a git repository, and there is no git here; install it")


def write_revisions(folder: Path, revisions: Mapping[str, Callable[[Path], None]]) -> dict[str, str]:
    """Make `folder` a repository of what each of `revisions`, in their order, writes into a new folder; one of them is
    `MAIN`, whose files lie in it. Gives each branch's commit; raises `UserError` as `check_name`."""
    check_name(folder.name)
    with new_folder(folder) as partial, tempfile.TemporaryDirectory(dir=partial.parent, prefix=".slm.") as place:
        repository = _Repository(partial)
        cache = partial / CACHE / f"models--{folder.name}"
        for revision, write in revisions.items():
            written = Path(place).resolve() / folder.name
            write(written)
            commit = repository.commit(revision, written)
            if revision == MAIN:
                shutil.copytree(written, partial, dirs_exist_ok=True)
            _put_into_cache(cache, revision, commit, written)
            shutil.rmtree(written)
        repository.finish()
        return repository.commits


class _Repository:
    """Git's own commands on one, whatever the user's settings are (hooks, signatures, filters)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.commits: dict[str, str] = {}
        self._last: str | None = None
        self._git("init", "--quiet", f"--initial-branch={MAIN}")
        (folder / ".git/info").mkdir(exist_ok=True)
        (folder / ".git/info/exclude").write_text(".cache/\n", encoding="utf-8")

    def commit(self, branch: str, files: Path) -> str:
        """All that lies in `files`, after the commit before, as what `branch` is."""
        self._git("--work-tree", str(files), "add", "--all", "--force", ".", cwd=files)
        tree = self._git("write-tree")
        after = ["-p", self._last] if self._last else []
        self._last = self._git("commit-tree", tree, *after, "-m", branch)
        self._git("update-ref", f"refs/heads/{branch}", self._last)
        self.commits[branch] = self._last
        return self._last

    def finish(self) -> None:
        """The files that lie in the folder are those of `MAIN`."""
        self._git("read-tree", MAIN)

    def _git(self, *words: str, cwd: Path | None = None) -> str:
        quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_DIR": str(self.folder / ".git")}
        who = {f"GIT_{role}_{name}": value for role in ("AUTHOR", "COMMITTER") for name, value in _AUTHOR.items()}
        command = ["git", "-c", "core.compression=1", "-c", "core.autocrlf=false", *words]
        ended = subprocess.run(
            command, cwd=cwd or self.folder, env={**os.environ, **quiet, **who}, capture_output=True, text=True
        )
        if ended.returncode:
            raise OSError(f"git {words[0]}: {ended.stderr.strip()[:300]}")
        return ended.stdout.strip()


def _put_into_cache(cache: Path, revision: str, commit: str, files: Path) -> None:
    """Lay `files` out as a download of the branch would be: content by its digest, and names that point to it."""
    snapshot, blobs = cache / "snapshots" / commit, cache / "blobs"
    for place in (snapshot, blobs, cache / "refs"):
        place.mkdir(parents=True, exist_ok=True)
    for file in sorted(files.iterdir()):
        blob = blobs / digest_of(file)
        if not blob.exists():
            shutil.copyfile(file, blob)
        _point(snapshot / file.name, blob)
    (cache / "refs" / revision).write_text(commit, encoding="utf-8")


def _point(name: Path, blob: Path) -> None:
    try:
        name.symlink_to(os.path.relpath(blob, name.parent))
    except OSError:  # Windows, without the right to
        shutil.copyfile(blob, name)
