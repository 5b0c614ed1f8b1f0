"""to=revisions: each state of a run by its own branch, for git and for Hugging Face's libraries."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from slm.errors import UserError
from slm.training.run.save_point_names import revisions_of
from slm.weights.export.revisions import CACHE, check_name, write_revisions


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True, text=True).stdout


def test_branches_and_the_cache_hold_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal files give equal commits, whatever git is set to; a file that stays the same is kept once."""
    (tmp_path / "hooks").mkdir()
    (tmp_path / "config").write_text(f"[core]\nhooksPath = {tmp_path / 'hooks'}\n[commit]\ngpgsign = true\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)

    def writes(text: str) -> Any:
        def write(folder: Path) -> None:
            folder.mkdir()
            (folder / "a").write_text(text)
            (folder / "same").write_text("same")
            (folder / f"only_{text}").write_text("")

        return write

    made = {name: writes(name) for name in ("chck_1M", "chck_2M", "main")}
    commits = write_revisions(Path("models/one"), made)
    assert write_revisions(Path("other/one"), made) == commits
    folder = tmp_path / "models/one"
    assert {file.name for file in folder.iterdir()} == {".git", ".cache", "a", "same", "only_main"}
    assert git(folder, "status", "--porcelain") == ""
    git(folder, "fsck", "--strict")
    cache = folder / CACHE / "models--one"
    assert len(list((cache / "blobs").iterdir())) == 3 + 1 + 1  # the three texts, "same", and nothing
    for name, commit in commits.items():
        assert git(folder, "rev-parse", name).strip() == commit == (cache / "refs" / name).read_text()
        files = git(folder, "ls-tree", "--name-only", name).split()
        assert files == ["a", f"only_{name}", "same"]
        for file in files:
            assert (cache / "snapshots" / commit / file).read_text() == git(folder, "show", f"{name}:{file}")


def test_transformers_reads_each_state_with_its_own_weights(run_cli: Any, tiny: Any, tmp_path: Path) -> None:
    """By the name, out of the cache; of a path it would silently give main's."""
    transformers = pytest.importorskip("transformers")
    outcome = run_cli(
        "train", *tiny, "run_dir=run", "trainer.save_at={words: [30]}", "trainer.max_steps=8",
        "model.modules.transformer.activation=gelu_tanh",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    made = run_cli("convert", "source=run", "to=revisions", "checkpoint=last", "out=models/baby")
    assert made.status == 0, made.err
    folder, seen = tmp_path / "models/baby", []
    for revision, checkpoint in (("chck_30", "words_30"), ("main", "last")):
        model = transformers.AutoModelForCausalLM.from_pretrained(
            "baby", revision=revision, cache_dir=folder / CACHE, local_files_only=True
        )
        state = torch.load(tmp_path / f"run/checkpoints/{checkpoint}.ckpt", weights_only=True)["state_dict"]
        embedding = model.get_input_embeddings().weight
        torch.testing.assert_close(embedding, state["model.token_embedding.weight"][: len(embedding)], rtol=0, atol=0)
        seen.append(float(embedding.detach().sum()))
    assert seen[0] != seen[1]
    assert torch.equal(load_file(folder / "model.safetensors")["transformer.wte.weight"], embedding)  # main's


def test_what_has_no_states_or_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match=r"kept states at save points; train one with trainer\.save_at=words"):
        revisions_of(tmp_path)
    for name in ("words_10M", "words_2M", "at_00000004", "words_x", "last"):
        (tmp_path / f"checkpoints/{name}.ckpt").touch()
    expected = {"step4": "at_00000004", "chck_2M": "words_2M", "chck_10M": "words_10M"}
    assert list(revisions_of(tmp_path).items()) == list(expected.items())
    with pytest.raises(UserError, match="is no name of a model on a hub"):
        check_name("my model")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="there is no git here"):
        check_name("mine")
