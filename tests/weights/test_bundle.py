"""The model bundle: what is written comes back, and nothing else does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from slm.errors import UserError
from slm.models.config import ModelConfig
from slm.models.contract import build_model
from slm.models.modules.embeddings import PositionEmbedding
from slm.registry import POSITION_EMBEDDINGS
from slm.tokenizers.byte import ByteTokenizer
from slm.tokenizers.pieces import SimpleTokenizer
from slm.weights.bundle import CONFIG_FILE, WEIGHTS_FILE, open_bundle, write_bundle

IDS = torch.arange(8)[None]


def make_model(position: str = "learned", tie: bool = True, dim: int = 8) -> nn.Module:
    return build_model(
        ModelConfig.from_dict(
            {
                "name": "gpt",
                "params": {"max_seq_len": 8, "vocab_size": 258},
                "modules": {
                    "position_embedding": {"kind": position},
                    "transformer": {"dim": dim, "n_layers": 2, "n_heads": 2, "freeze": True},
                    "output_projection": {"tie_weights": tie},
                },
            }
        )
    ).eval()


def write(folder: Path, model: nn.Module, facts: dict[str, Any] | None = None) -> None:
    write_bundle(folder, model.config, model.state_dict(), ByteTokenizer(), facts or {"step": 7})


def assert_same(found: nn.Module, model: nn.Module) -> None:
    state = found.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(found(IDS), model(IDS))


@pytest.mark.parametrize("position", ["learned", "sinusoidal", "none"])
@pytest.mark.parametrize("tie", [True, False])
def test_a_model_comes_back_to_the_last_bit(tmp_path: Path, position: str, tie: bool) -> None:
    """Also what is not stored: a table of sines, the tie, what is frozen, eval mode; and no random number is drawn."""
    model = make_model(position, tie)
    write(tmp_path / "model", model, {"step": 7, "loss": 1.5})
    state = torch.random.get_rng_state()
    bundle = open_bundle(tmp_path / "model")
    found = bundle.model()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert_same(found, model)
    assert not found.training
    assert bundle.config == model.config
    assert bundle.facts == {"step": 7, "loss": 1.5}
    assert bundle.tokenizer.fingerprint == ByteTokenizer().fingerprint
    trained = [name for name, p in found.named_parameters() if p.requires_grad]
    assert trained == [name for name, p in model.named_parameters() if p.requires_grad]


class Both(PositionEmbedding):
    """A position embedding with a weight that is saved and a buffer that is not."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.scale = nn.Parameter(torch.empty(config.modules.transformer.dim))
        for name in ("first", "second"):
            self.register_buffer(name, torch.empty(config.params.max_seq_len, 1), persistent=False)

    def init_weights(self) -> None:
        nn.init.normal_(self.scale)
        self.first.copy_(torch.arange(len(self.first))[:, None])
        self.second.fill_(1.0)

    def forward(self, x: Tensor, positions: slice | Tensor) -> Tensor:
        return x + self.scale * (self.first + self.second)[positions]


def test_filling_buffers_leaves_weights_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Buffers were computed after the weights had come, by a method that draws the weights of its module anew."""
    monkeypatch.setitem(POSITION_EMBEDDINGS._entries, "both", Both)
    model = make_model("both")
    write(tmp_path / "model", model)
    assert_same(open_bundle(tmp_path / "model").model(), model)


def change_weights(folder: Path, **changes: Tensor | None) -> None:
    weights = load_file(folder / WEIGHTS_FILE)
    for name, tensor in changes.items():
        if tensor is None:
            del weights[name]
        else:
            weights[name] = tensor
    save_file(weights, folder / WEIGHTS_FILE)


def test_weights_that_do_not_fit_are_named_all_at_once(tmp_path: Path) -> None:
    """Nothing is silently skipped, cut or left at its initial value."""
    folder = tmp_path / "model"
    write(folder, make_model())
    change_weights(
        folder,
        **{
            "token_embedding.weight": None,
            "stranger": torch.zeros(3),
            "position_embedding.weight": torch.zeros(4, 8),
        },
    )
    with pytest.raises(UserError) as caught:
        open_bundle(folder).model()
    said = str(caught.value)
    assert str(folder / WEIGHTS_FILE) in said
    assert "'token_embedding.weight' is missing" in said
    assert "'stranger' is not the model's" in said
    assert "'position_embedding.weight' has shape (4, 8), expected (8, 8)" in said


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        (WEIGHTS_FILE, "truncated", "damaged"),
        (WEIGHTS_FILE, None, "model.safetensors is missing"),
        (CONFIG_FILE, None, "config.json is missing"),
        (CONFIG_FILE, "{", "damaged"),
        (CONFIG_FILE, '{"model_type": "gpt2"}', "not a bundle's"),
        (CONFIG_FILE, '{"format": 99, "model": {}, "facts": {}}', "format 99, expected 1"),
        (CONFIG_FILE, '{"format": 1, "model": {"name": "gtp"}, "facts": {}}', "did you mean 'gpt'"),
        ("slm_tokenizer.json", None, "slm_tokenizer.json is missing"),
    ],
)
def test_a_damaged_bundle_says_what_is_wrong(tmp_path: Path, file: str, content: str | None, said: str) -> None:
    folder = tmp_path / "model"
    write(folder, make_model())
    target = folder / file
    if content is None:
        target.unlink()
    elif content == "truncated":
        target.write_bytes(target.read_bytes()[:-100])
    else:
        target.write_text(content)
    with pytest.raises(UserError, match=said) as caught:
        open_bundle(folder).model()
    assert str(folder) in str(caught.value)


def test_a_bundle_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    """No file of the old one stays beside the new, nothing half-made stays behind, and a failure loses nothing."""
    folder = tmp_path / "model"
    old, new = make_model(tie=False), make_model(dim=16)
    write(folder, old)
    (folder / "of_the_old_one.json").touch()
    with pytest.raises(TypeError):
        write(folder, new, {"not plain": object()})
    assert_same(open_bundle(folder).model(), old)

    write_bundle(folder, new.config, new.state_dict(), SimpleTokenizer(["a"]), {})
    bundle = open_bundle(folder)
    assert_same(bundle.model(), new)
    assert bundle.tokenizer.kind == "simple"
    assert sorted(file.name for file in folder.iterdir()) == [CONFIG_FILE, WEIGHTS_FILE, "slm_tokenizer.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_weights_are_plain_fp32_tensors_and_the_config_plain_json(tmp_path: Path) -> None:
    """Others read both without slm; nothing is pickled."""
    folder = tmp_path / "model"
    write(folder, make_model())
    assert {tensor.dtype for tensor in load_file(folder / WEIGHTS_FILE).values()} == {torch.float32}
    assert json.loads((folder / CONFIG_FILE).read_text())["model"]["modules"]["transformer"]["dim"] == 8
    assert all(file.stat().st_mode & 0o444 for file in folder.iterdir())
