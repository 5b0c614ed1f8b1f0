"""Every valid token counts once: over micro-batches, over batches, over a whole split."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, default_collate

from slm.data.batches.datamodule import InstructionDataModule
from slm.data.batches.samples import SampleSet
from slm.models.config import ModelConfig
from slm.models.contract import build_model
from slm.training.figures import text_metrics
from slm.training.lit_module import LanguageModelModule

T, VOCAB = 12, 30


def tiny_model(**loss: Any) -> Any:
    torch.manual_seed(0)
    shape = {
        "name": "gpt",
        "params": {"max_seq_len": T, "vocab_size": VOCAB},
        "modules": {"transformer": {"dim": 16, "n_layers": 1, "n_heads": 2}, "loss": loss},
    }
    model = build_model(ModelConfig.from_dict(shape))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5)  # so that losses differ from token to token
    return model


class Windows(pl.LightningDataModule):
    """Given windows in their order; what the module asks of a datamodule beside loaders."""

    def __init__(self, windows: list[dict[str, torch.Tensor]], batch_size: int) -> None:
        super().__init__()
        self.windows, self.batch_size, self.seq_len, self.waited_s, self.position = windows, batch_size, T, 0.0, 0

    def train_batch_taken(self) -> None: ...

    def train_dataloader(self) -> Any:
        return DataLoader(self.windows, batch_size=self.batch_size)  # type: ignore[arg-type]

    val_dataloader = train_dataloader


@pytest.fixture(scope="module")
def windows() -> list[dict[str, torch.Tensor]]:
    """Eight, with 12, 1, 7, … labels that count: the mean of their means is far from the mean of all."""
    draw = torch.Generator().manual_seed(1)
    made = []
    for valid in (12, 1, 7, 2, 12, 0, 3, 5):
        ids = torch.randint(VOCAB, (2, T), generator=draw)
        ids[1, valid:] = -100
        made.append({"input_ids": ids[0], "labels": ids[1]})
    return made


def plain_loss(model: Any, windows: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    ids = torch.stack([window["input_ids"] for window in windows])
    labels = torch.stack([window["labels"] for window in windows])
    return cross_entropy(model(ids).flatten(0, 1), labels.flatten(), ignore_index=-100)


def trainer(**settings: Any) -> pl.Trainer:
    off = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return pl.Trainer(accelerator="cpu", devices=1, **{**off, **settings})  # type: ignore[arg-type]


@pytest.mark.parametrize("batch_size", [8, 4, 1])
@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_gradients_do_not_depend_on_the_micro_batch(windows: Any, batch_size: int, clip: float) -> None:
    """1 x 8, 2 x 4 and 8 x 1 windows give the gradient of plain PyTorch's mean over all 42 valid tokens.

    With plain SGD of rate 1 the step taken is the gradient. Clipping must see the corrected one. In double precision,
    as the rounding of these gradients in fp32 is larger than the bound.
    """
    model = tiny_model().double()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    reference = tiny_model().double()
    plain_loss(reference, windows).backward()
    norm = torch.nn.utils.clip_grad_norm_(reference.parameters(), clip or 1e9)
    assert norm > 0.05
    module = LanguageModelModule(
        model, make_optimizer=partial(torch.optim.SGD, lr=1.0), lr_factor=lambda step: 1.0, grad_clip=clip
    )
    fit = trainer(max_steps=1, accumulate_grad_batches=8 // batch_size, limit_val_batches=0)
    fit.fit(module, datamodule=Windows(windows, batch_size))
    module.settle_steps(wait=True)
    assert module.tokens_trained == 42
    assert module.take_train_metrics()["train/loss"] == pytest.approx(plain_loss(reference, windows).item(), abs=1e-6)
    for name, parameter in reference.named_parameters():
        step = before[name] - dict(model.named_parameters())[name].detach()
        assert torch.allclose(step, parameter.grad, atol=1e-6, rtol=0), name


LENGTHS = {True: [13, 12, 3, 11, 2, 10, 4, 9, 5, 8, 6, 7, 7, 7, 4], False: [13, 3, 2, 9, 4, 2, 12, 3]}  # in tokens


@pytest.fixture(params=[True, False], ids=["packed", "padded"])
def samples(request: pytest.FixtureRequest) -> SampleSet:
    """Of unequal length, an uneven share of each learnt: 8 windows of 1 to 3, or 8 rows of width 8 and 12."""
    draw = np.random.default_rng(2)
    lengths = LENGTHS[request.param]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    learnt = draw.random(offsets[-1]) < 0.4
    learnt[offsets[1:] - 1] = True
    ids = draw.integers(VOCAB, size=offsets[-1]).astype(np.int32)
    return SampleSet(ids, learnt, np.ones(len(ids), dtype=np.int32), offsets)


def loss_of_each_alone(model: Any, samples: SampleSet) -> tuple[torch.Tensor, int]:
    """The mean over all learnt tokens and their number; no sample shares a row with another or with padding."""
    nll, tokens = torch.zeros(()), 0
    for start, end in zip(samples.offsets[:-1], samples.offsets[1:], strict=True):
        ids = torch.from_numpy(samples.ids[start:end]).long()
        labels = ids[1:].masked_fill(~torch.from_numpy(samples.learnt[start + 1 : end]), -100)
        nll = nll + cross_entropy(model(ids[None, :-1])[0], labels, ignore_index=-100, reduction="sum")
        tokens += int((labels != -100).sum())
    return nll / tokens, tokens


@pytest.mark.parametrize("batch_size", [8, 4, 1])
def test_conversations_weigh_alike_in_any_micro_batch(samples: SampleSet, batch_size: int) -> None:
    """1 x 8, 2 x 4 and 8 x 1 rows of task=sft give the loss and the gradient of its samples one by one.

    The widths of padded micro-batches differ (8 and 12), and so do the samples in packed ones.
    """
    model, reference = tiny_model().double(), tiny_model().double()  # fp32 rounds gradients of 2 by more than 1e-6
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    expected, tokens = loss_of_each_alone(reference, samples)
    expected.backward()
    packed = len(samples) != 8
    data = InstructionDataModule({"train": samples, "val": samples}, "", packed, T, batch_size, seed=3)
    assert len(data.datasets["train"]) == 8
    if not packed and batch_size == 1:
        assert {data.datasets["train"][i]["labels"].numel() for i in range(8)} == {8, 12}
    module = LanguageModelModule(model, make_optimizer=partial(torch.optim.SGD, lr=1.0), lr_factor=lambda step: 1.0)
    trainer(max_steps=1, accumulate_grad_batches=8 // batch_size, limit_val_batches=0).fit(module, datamodule=data)
    module.settle_steps(wait=True)
    assert module.tokens_trained == tokens
    assert module.take_train_metrics()["train/loss"] == pytest.approx(expected.item(), abs=1e-6)
    for name, parameter in reference.named_parameters():
        step = before[name] - dict(model.named_parameters())[name].detach()
        assert torch.allclose(step, parameter.grad, atol=1e-6, rtol=0), name


@pytest.mark.parametrize("batch_size", [8, 3])
def test_validation_is_the_mean_over_all_tokens(windows: Any, batch_size: int) -> None:
    """Not the mean of batches' means: the last batch is smaller, windows are of unequal weight."""
    module = LanguageModelModule(tiny_model())
    data = Windows(windows, batch_size)
    told = lambda rows: {**(batch := default_collate(rows)), "text_bytes": 2.0 * int((batch["labels"] >= 0).sum())}  # noqa: E731
    data.val_dataloader = lambda: DataLoader(windows, batch_size, collate_fn=told)  # type: ignore[arg-type, method-assign]
    trainer().validate(module, datamodule=data, verbose=False)
    expected = plain_loss(tiny_model(), windows).item()
    assert module.val_metrics["loss"] == pytest.approx(expected, abs=1e-6)
    assert module.val_metrics["bits_per_byte"] == pytest.approx(expected / 0.6931471805599453 / 2, rel=1e-6)


def test_an_ignored_label_counts_in_neither_sum(windows: Any) -> None:
    """With another ``ignore_index`` the places marked -100 are still no tokens; they were once counted as some."""
    module = LanguageModelModule(tiny_model(ignore_index=3))
    trainer().validate(module, datamodule=Windows(windows, 8), verbose=False)
    relabelled = [{**window, "labels": window["labels"].masked_fill(window["labels"] == 3, -100)} for window in windows]
    assert any((window["labels"] == 3).any() for window in windows)
    assert module.val_metrics["loss"] == pytest.approx(plain_loss(tiny_model(), relabelled).item(), abs=1e-6)


def test_bits_per_byte() -> None:
    """ln 2 nats a token at one token a byte is one bit a byte; a ruined model has a finite perplexity."""
    assert text_metrics(0.6931471805599453, 1.0) == pytest.approx(
        {"loss": 0.693147, "perplexity": 2, "bits_per_byte": 1}
    )
    assert text_metrics(1e6, 1.0)["perplexity"] > 1e300
    assert str(text_metrics(1.0, 0.0)["bits_per_byte"]) == "nan"
