"""Code that a run's folder names, and whether it may be run: by whom the folder was made decides.

A run's folder tells later commands which modules to import (`plugins`), which classes to build (`_target_`) and where
further YAML lies. That of a run which this user started on this machine is taken at its word: its record carries a
seal, an HMAC (RFC 2104) under a key that lies in the user's cache folder. Nothing of it is run from any other folder,
unless the command line says it again.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from slm.errors import UserError
from slm.files.reading import read_yaml_object
from slm.training.run.folder import CONFIG_FILE, recorded_plugins

SEAL = "seal"
_KEY_FILE = "run_key"
_KNOWN = re.compile(
    r"(torch\.optim|pytorch_lightning\.callbacks)\.\w+"
    r"|slm\.training\.(loggers\.(tensorboard|wandb)|muon\.Muon|callbacks\.\w+\.[A-Z]\w+)"
)
"""Targets that build what they say and nothing else."""


def seal(run: Path, overrides: Sequence[str], command: Sequence[str]) -> str | None:
    """What a record carries to say that this user's run made it; None where no key can be kept.

    Args:
        run: its folder, which holds ``config.yaml`` already.
        overrides: the record's.
        command: of its last session.
    """
    key = _key(make=True)
    return None if key is None else _seal(key, run, overrides, command)


def is_own(run: Path, record: Mapping[str, Any]) -> bool:
    """Whether a record that was read from `run` carries this user's seal, and the ``config.yaml`` there is its own."""
    key, found = _key(make=False), record.get(SEAL)
    if key is None or not isinstance(found, str) or not record.get("sessions"):
        return False
    expected = _seal(key, run, record.get("overrides", []), record["sessions"][-1]["command"])
    return hmac.compare_digest(expected.encode(), found.encode())


def refuse_plugins_of_others(run: Path, record: Mapping[str, Any], typed: Sequence[str]) -> None:
    """Raise `UserError` if `run` is not this user's and names modules to import that were not `typed`."""
    plugins = recorded_plugins(run)
    if set(plugins) <= set(typed) or is_own(run, record):
        return
    raise UserError(
        f"'{run}' was not made by you on this machine and wants modules imported, which runs their code; "
        f"if you trust them, name them: plugins=[{','.join(plugins)}]"
    )


def refuse_config_of_others(run: Path, record: Mapping[str, Any]) -> None:
    """For what builds from ``config.yaml`` as it is: `UserError` if it names unknown code and `run` is another's."""
    if is_own(run, record):
        return
    refuse_plugins_of_others(run, record, ())
    unknown = [target for target in _targets(read_yaml_object(run / CONFIG_FILE)) if not _KNOWN.fullmatch(target)]
    if unknown:
        raise UserError(f"'{run}' was not made by you on this machine, and its {CONFIG_FILE} would run {unknown[0]}")


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        yield from (str(target) for key, target in node.items() if key == "_target_")
    for inner in node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ():
        yield from _targets(inner)


def refuse_code_of_others(run: Path, settings: Sequence[str]) -> None:
    """Raise `UserError` if one of a record's `settings`, which are about to be repeated, could run code of others."""
    found = [setting for setting in settings if _runs_code(setting)]
    if found:
        raise UserError(
            f"'{run}' was not made by you on this machine, and its setting {found[0]} could run code; if you trust it, "
            "type it again, else type another value"
        )


def _runs_code(setting: str) -> bool:
    """Whether a setting may name code: a class, a module, YAML of one's own, a logger's server, or what reads as one of
    these only when it is resolved."""
    key, _, value = setting.lstrip("+~").partition("=")
    first = re.split(r"[./@=]", key)[0]
    if setting.startswith("-") or first in ("plugins", "hydra") or "${" in setting:
        return True
    if "_target_" in setting:
        return not (re.fullmatch(r"[\w.]+\._target_", key) and _KNOWN.fullmatch(value))
    leaves_conf = ".." in value and "." not in key.partition("@")[0]
    return leaves_conf or key.startswith("logger.")


def _seal(key: bytes, run: Path, overrides: Sequence[str], command: Sequence[str]) -> str:
    file = run / CONFIG_FILE
    config = hashlib.sha256(file.read_bytes() if file.is_file() else b"").hexdigest()
    said = json.dumps([list(overrides), list(command), config])
    return hmac.new(key, said.encode(), hashlib.sha256).hexdigest()


def _key(make: bool) -> bytes | None:
    """32 random bytes that only this user can read; made on first use."""
    file = Path(os.environ.get("SLM_CACHE_DIR") or "~/.cache/slm").expanduser() / _KEY_FILE
    try:
        if make and not file.is_file():
            _write_key(file)
        return file.read_bytes() or None
    except OSError:  # a home that cannot be written: such runs are nobody's
        return None


def _write_key(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")  # its owner's alone
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(secrets.token_bytes(32))
        os.link(partial, file)  # unlike a rename, it leaves be what another process made meanwhile
    except FileExistsError:
        pass
    finally:
        os.unlink(partial)
