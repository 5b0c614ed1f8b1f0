"""No secret in a run folder: by the name of its setting or by its look; what only sounds like one stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slm.masking import MASK, masked, masked_argument

HUB = "hf_" + "a1B2" * 8
WANDB = "0123456789abcdef" * 2 + "01234567"


def test_what_is_masked_and_what_is_not() -> None:
    """Settings of ours that end in token or tokens are no secrets; a commit of forty digits is none either."""
    plain = {
        "tokenizer": {"eos_token": "</s>", "kind": "byte"},
        "generation": {"max_new_tokens": 5},
        "data": {"revision": WANDB, "path": "https://example.com/a?b=c", "val_path": None},
    }
    assert masked(plain) == plain
    secret = {"wandb": {"api_key": WANDB, "settings": {"password": 12345}, "hub_token": "x"}, "note": f"see {HUB}."}
    assert masked(secret) == {
        "wandb": {"api_key": MASK, "settings": {"password": MASK}, "hub_token": MASK},
        "note": f"see {MASK}.",
    }
    assert masked(["https://me:pass@host/a"]) == [f"https://me:{MASK}@host/a"]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (f"+logger.wandb.api_key={WANDB}", f"+logger.wandb.api_key={MASK}"),
        (f"+logger.x.settings={{api_key:{WANDB},a:b}}", f"+logger.x.settings={{api_key:{MASK},a:b}}"),
        (f"data.path=https://u:{WANDB}@host/x", f"data.path=https://u:{MASK}@host/x"),
        ("tokenizer.eos_token=</s>", "tokenizer.eos_token=</s>"),
        ("data.path=words.txt", "data.path=words.txt"),
        ("logger.wandb.api_key=null", "logger.wandb.api_key=null"),
    ],
)  # fmt: skip
def test_of_a_command_line(typed: str, expected: str) -> None:
    """Also inside a mapping, as Hydra reads them."""
    assert masked_argument(typed) == expected


def test_a_whole_run_folder_holds_none(
    train_tiny: Any, run_cli: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Planted in a setting, in an address, in the environment; W&B's own files among those that are searched. To resume
    it, what was masked is typed again."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_API_KEY", WANDB)
    password, key = "Tr0ub4dor-3", "0000planted0000planted0000planted0000key7"
    run = train_tiny(
        "run",
        "logger=wandb",
        "stop_after=2",
        f"+logger.wandb.notes='https://me:{password}@host/ {HUB} {WANDB}'",
        f"+logger.wandb.config={{api_key:{key}}}",
    )
    planted = [secret.encode() for secret in (HUB, WANDB, password, key)]
    files = [file for file in run.rglob("*") if file.is_file()]
    assert any("wandb" in file.relative_to(run).parts for file in files)
    assert [(file, secret) for file in files for secret in planted if secret in file.read_bytes()] == []
    refused = run_cli("train", "resume=run")
    assert refused.status == 2
    assert "is a secret that 'run' does not keep; type it again" in refused.err
