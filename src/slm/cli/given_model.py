"""What the commands' settings have in common: that each is known, and which model is meant."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm.errors import UserError, refuse

if TYPE_CHECKING:
    from slm.weights.open_model import Source

BEST = "best"


def reject_unknown(values: Mapping[str, Any], allowed: Collection[str]) -> None:
    """Raise `UserError` for keys of a composed config that its command does not read."""
    from slm.schema import unknown_key

    refuse(sorted(unknown_key(key, allowed) for key in values.keys() - allowed))


def model_source(values: Mapping[str, Any]) -> Source:
    """What ``run`` (with ``checkpoint``) or ``model_dir`` means, one of which must be given; imports ``plugins``."""
    from slm.training.run.folder import recorded_plugins
    from slm.training.run.recorded_code import refuse_unknown_plugins
    from slm.training.run_config import checked_plugins, import_plugins
    from slm.weights.open_model import find_source

    given = [key for key in ("run", "model_dir") if values[key] is not None]
    if len(given) != 1:
        raise UserError(
            ("run and model_dir were both given" if given else "no model was named")
            + "; give run=PATH (a run folder) or model_dir=PATH|NAME (a bundle, a Hugging Face folder or name, a GGUF "
            "file, …)"
        )
    path = str(values[given[0]])
    plugins = checked_plugins(values.get("plugins"))
    run = Path(path).expanduser()
    refuse_unknown_plugins(run, plugins)
    import_plugins([*plugins, *recorded_plugins(run)])  # a model of the user's own is known only behind that
    if given == ["model_dir"] and values["checkpoint"] != BEST:
        raise UserError("checkpoint is one of a run's; give run=PATH, or leave it out")
    if given == ["run"]:
        if values["base"] is not None:
            raise UserError("base is that of a PEFT adapter; give model_dir=ADAPTER, or leave it out")
        return run_source(path, values["checkpoint"], plugins)
    return find_source(path, base=None if values["base"] is None else str(values["base"]))


def run_source(run: str, checkpoint: str, plugins: Sequence[str] = ()) -> Source:
    """The model of the run in folder `run`: its best one, or that of another checkpoint; `plugins` may run code."""
    from slm.weights.open_model import Source, find_bundle

    if checkpoint == BEST:
        return Source("slm", find_bundle(run))
    from slm.training.run_again import checkpoint_source

    return checkpoint_source(Path(run).expanduser(), str(checkpoint), plugins)
