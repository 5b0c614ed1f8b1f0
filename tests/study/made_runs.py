"""Run folders as `slm-train` leaves them, written in a millisecond each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

SETTINGS = {
    "seed": 1,
    "optimizer": {"lr": 0.001, "kind": "adamw"},
    "model": {"dim": 64, "tied": True},
    "trainer": {"max_steps": 100},
}
TOKENS_A_STEP, STEP_MS = 512, 20.0


def make_run(
    folder: Path,
    typed: Sequence[str] = (),
    losses: Mapping[int, float] | None = None,
    end: str | None = "done",
    **session: Any,
) -> Path:
    """A run of the settings above with those that are `typed`; `losses` are its validations, step -> loss."""
    losses = {50: 2.5, 100: 2.0} if losses is None else losses
    settings: dict[str, Any] = json.loads(json.dumps(SETTINGS))
    for override in typed:
        key, _, value = override.partition("=")
        *groups, name = key.split(".")
        node = settings
        for group in groups:
            node = node.setdefault(group, {})
        node[name] = yaml.safe_load(value)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"run_dir": str(folder), **settings}, sort_keys=False))
    noted = {
        "command": ["slm-train", *typed],
        "started": "2026-01-31T12:00:00+0000",
        "git_commit": "0123456789abcdef",
        **session,
    }
    if end:
        noted |= {"end": end, "ended": "2026-01-31T12:10:00+0000"}
    record = {"overrides": list(typed), "parameters": 1000, "flops_per_token": 6e6, "sessions": [noted]}
    (folder / "run.json").write_text(json.dumps(record))
    rows = [f"{s},{3 - s / 100},{s * TOKENS_A_STEP},{STEP_MS},25600.0,{losses[s]!r}" for s in sorted(losses)]
    header = "step,train/loss,train/tokens,speed/step_ms,speed/tokens_per_s,val/loss"
    (folder / "metrics.csv").write_text("\n".join([header, *rows, ""]))
    if end == "done" and losses:
        best = min(losses.values())
        summary = {"step": max(losses), "best_val_loss": best, "val_loss": losses[max(losses)], "tokens_per_s": 25600.0}
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder
