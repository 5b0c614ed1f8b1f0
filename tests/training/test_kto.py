"""KTO: the loss against the paper's words, batches against a plain sum over tokens, and a whole run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from slm.chat.preference_forms import LabelledAnswer
from slm.chat.renderer import ChatRenderer
from slm.data.batches.samples import Tokens
from slm.data.batches.unpaired import AnswerTokens, UnpairedDataset, answer_tokens, fingerprint, mismatched
from slm.data.config import CorpusConfig
from slm.errors import UserError
from slm.models.config import ModelConfig
from slm.models.contract import build_model
from slm.tokenizers.byte import ByteTokenizer
from slm.tokenizers.extended import ExtendedTokenizer
from slm.training.tasks.preferences.kto import KTO, KTOModule
from slm.training.tasks.task import task_of


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_the_formula() -> None:
    """Equations 7 and 8, with each weight; the further from z0 on the right side, the smaller."""
    gains, labels, z0 = [2.5, -1.0, 0.3], [True, False, False], 0.7
    kto = KTO(beta=0.4, desirable_weight=1.3, undesirable_weight=0.8)
    found = kto(torch.tensor(gains), torch.tensor(labels), torch.tensor(z0))
    expected = [
        1.3 * (1 - sigmoid(0.4 * (2.5 - 0.7))),
        0.8 * (1 - sigmoid(0.4 * (0.7 + 1.0))),
        0.8 * (1 - sigmoid(0.4 * (0.7 - 0.3))),
    ]
    assert found.tolist() == pytest.approx(expected, rel=1e-6)
    far = kto(torch.tensor([500.0, 500.0]), torch.tensor([True, False]), torch.tensor(0.0))
    assert far.tolist() == pytest.approx([0.0, 0.8], abs=1e-6)


def random_answers(n: int) -> list[AnswerTokens]:
    draw = np.random.default_rng(0)

    def tokens(length: int, prompt: int) -> Tokens:
        learnt = np.arange(length) >= prompt
        return Tokens(draw.integers(32, size=length).astype(np.int32), learnt, np.ones(length, np.int32))

    return [AnswerTokens(tokens(9 + i, 4), tokens(12 - i, 4), i % 3 != 1) for i in range(n)]


def log_prob(model: Any, tokens: Tokens) -> Tensor:
    """Of a row's answer, from all of its logits."""
    ids = torch.from_numpy(tokens.ids.astype(np.int64))
    each = torch.log_softmax(model(ids[None, :-1])[0].float(), dim=-1).gather(1, ids[1:, None])[:, 0]
    return each[torch.from_numpy(tokens.learnt[1:])].sum()


@pytest.mark.parametrize("shift", [0.0, 30.0])
def test_a_batch_is_what_a_sum_over_tokens_says(shift: float) -> None:
    """Loss, figures and gradient beside an implementation of its own; z0 is at least 0 and takes no gradient."""
    shape = {"dim": 16, "n_layers": 1, "n_heads": 2}
    params = {"max_seq_len": 16, "vocab_size": 32, "vocab_multiple": 1}
    config = ModelConfig.from_dict({"name": "gpt", "params": params, "modules": {"transformer": shape}})
    torch.manual_seed(0)
    model = build_model(config)
    answers = random_answers(5)
    with torch.no_grad():
        started = torch.tensor([[log_prob(model, one.own), log_prob(model, one.other)] for one in answers])
    reference = started - torch.tensor([0.5, 1.0]) + torch.tensor([0.0, shift])  # with the shift z0 would be below 0
    module = KTOModule(model, KTO(0.2, 1.5, 0.5))
    module.trainer = SimpleNamespace(world_size=1)  # type: ignore[assignment]
    batch = UnpairedDataset(answers, 15, reference).__getitems__([3, 0, 4])
    found = module.batch_loss({**batch, "targets": 1})
    found.total.backward()
    gradient = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    model.zero_grad()
    z0 = max(0.0, 1.0 - shift)
    losses, rewards = [], []
    for i in (3, 0, 4):
        gain = log_prob(model, answers[i].own) - reference[i, 0]
        weight, sign = (1.5, 1.0) if answers[i].is_desirable else (0.5, -1.0)
        losses.append(weight * (1 - torch.sigmoid(0.2 * sign * (gain - z0))))
        rewards.append(0.2 * gain.item())
    torch.stack(losses).sum().backward()
    assert found.count == 3
    assert found.total.item() == pytest.approx(sum(loss.item() for loss in losses), rel=1e-5)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, gradient[name], rtol=1e-4, atol=1e-6)
    means = dict(zip(module.figure_names, found.figures.mean(dim=0).tolist(), strict=True))
    assert means["z0"] == pytest.approx(z0, abs=1e-4)
    assert means["desirable"] == pytest.approx(2 / 3)  # number 4 is not wanted
    assert means["reward_desirable"] == pytest.approx((rewards[0] + rewards[1]) / 3, abs=1e-5)
    assert means["reward_undesirable"] == pytest.approx(rewards[2] / 3, abs=1e-5)
    assert means["accuracy"] == pytest.approx(2 / 3)


def test_an_answer_stands_beside_one_to_another_prompt() -> None:
    """Each once, whatever the order, and never the other answer of its own pair."""
    prompts = [b"a", b"a", b"b", b"c", b"c", b"d", b"a", b"e"]
    for order in (range(8), reversed(range(8))):
        keys = [prompts[i] for i in order]
        others = mismatched(keys)
        assert sorted(others) == list(range(8))
        assert all(keys[i] != keys[other] for i, other in enumerate(others))
    with pytest.raises(UserError, match="to one prompt"):
        mismatched([b"a", b"a"])


def test_what_is_too_long() -> None:
    """An answer is never cut; the other prompt's loses its end, for the answer is kept for itself."""
    renderer = ChatRenderer(
        ExtendedTokenizer(ByteTokenizer(), [], "{% for m in messages %}{{ m.content }}:{% endfor %}")
    )
    given = LabelledAnswer(({"role": "user", "content": "question"},), "good", True)
    whole = answer_tokens(given, "x" * 30, renderer, 15, "drop")
    assert whole is not None
    assert [len(tokens.ids) for tokens in (whole.own, whole.other)] == [15, 15]  # each with a colon and an end
    assert whole.other.ids.tolist() == list(b"question:xxxxxx")
    assert answer_tokens(given, "x", renderer, 14, "drop") is None
    cut = answer_tokens(given, "x", renderer, 11, "cut_prompt")
    assert cut is not None
    assert (cut.is_cut, cut.own.ids.tolist()[:5]) == (True, list(b"tion:"))
    assert cut.other.ids.tolist()[:6] == list(b"tion:x")
    assert answer_tokens(given, "x", renderer, 6, "cut_prompt") is None
    same = [whole, whole._replace(is_desirable=False)]
    assert fingerprint(same) != fingerprint(same[::-1])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: tuple[str, ...], tiny_run: Path) -> list[str]:
    """Settings of a run from the tiny one's weights: answers with a cat are wanted, answers with a dog are not."""
    folder = tmp_path_factory.mktemp("kto")
    answers = (("the cat", True), ("dogs", False))
    records = [
        {"prompt": f"p{i}", "completion": text + "s" * (i % 4), "label": label}
        for i in range(12)
        for text, label in answers
    ]
    (folder / "answers.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    (folder / "chat.jinja").write_text("{% for m in messages %}{{ m['content'] }}:{% endfor %}")
    of_the_run = [s for s in tiny if not s.startswith(("model.", "data", "tokenizer", "callbacks"))]
    return [
        *of_the_run, "task=kto", f"data.path={folder / 'answers.jsonl'}", f"model.weights={tiny_run}",
        f"task.template_file={folder / 'chat.jinja'}", "task.beta=0.5", "data.val_fraction=0.25",
    ]  # fmt: skip


def test_a_run_in_parts_is_the_run(invoke: Any, run: list[str], tmp_path: Path, metrics_of: Any) -> None:
    """It learns which answers are wanted; a resumed one repeats it to the bit; it is scored beside what it kept."""
    outcome = invoke(tmp_path, "train", *run, "run_dir=whole")
    assert outcome.status == 0, outcome.err
    assert "24 records: 24 as prompt/completion/label" in outcome.err
    assert "18 training answers (9 desirable) and 6 for validation" in outcome.err
    assert "before training, validation: desirable answers" in outcome.err
    assert invoke(tmp_path, "train", *run, "run_dir=parts", "stop_after=3").status == 0
    assert invoke(tmp_path, "train", "resume=parts").status == 0
    rows = metrics_of(tmp_path / "whole")
    assert metrics_of(tmp_path / "parts") == rows
    assert float(rows[0]["train/loss"]) == pytest.approx(0.5, abs=0.01), "the model is its own reference"
    last = rows[-1]
    assert float(last["val/margin"]) > 0
    margin = float(last["val/reward_desirable"]) - float(last["val/reward_undesirable"])
    assert float(last["val/margin"]) == pytest.approx(margin, abs=1e-6)
    figures = json.loads(invoke(tmp_path, "evaluate", "run=whole", "batch_size=4").out)
    assert (figures["reference"], figures["answers"]) == ("kept by the run", 6)
    for name in ("loss", "margin", "accuracy", "log_prob_desirable"):
        assert figures[name] == pytest.approx(float(last[f"val/{name}"]), abs=1e-5), name
    other = ("data=unpaired", f"data.path={run[-5].removeprefix('data.path=')}", "split=all", "data.val_fraction=0.25")
    outcome = invoke(tmp_path, "evaluate", "model_dir=whole/model", *other)
    assert (outcome.status, "reference=…" in outcome.err) == (2, True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beta": 0.0}, "task.beta should be greater than 0"),
        ({"desirable_weight": -1.0}, "task.desirable_weight should be greater than or equal to 0"),
        ({"loss": "dpo"}, "unknown key 'task.loss'"),
        ({}, "task=kto needs answers with labels (data=unpaired data.path=…); data.kind is pairs"),
    ],
)
def test_settings_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refused:
        task_of({"kind": "kto", **changes}).check(CorpusConfig("pairs", "unused"))
    assert message in str(refused.value)
