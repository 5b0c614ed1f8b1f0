"""lm-eval's tasks: equal scores to its own `hf` model on the export; and its names, its JSON, its mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_model import small_model
from small_tasks import TASKS, write_tasks

from slm.errors import UserError
from slm.evaluation.benchmark_config import benchmark_config
from slm.evaluation.harness.harness import figures_of
from slm.tokenizers.bpe import BpeTokenizer

TEXT = "the cat sat on a mat and saw that one dog run from its old house. Question: it's naïve\nAnswer: 日本語 🙂.\n"
LLAMA = {"norm": "rms_norm", "bias": False, "qkv_bias": False, "mlp": "glu", "activation": "silu", "n_kv_heads": 1}
pytest.importorskip("lm_eval", reason="pip install 'slm[eval]'")
pytestmark = pytest.mark.filterwarnings("default")  # datasets, evaluate and sacrebleu have theirs


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(autouse=True)
def datasets_here(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path_factory.getbasetemp() / "hf_home"))


@pytest.mark.nightly  # to import lm-eval takes as long as a hundred other tests
def test_a_task_of_ones_own(run_cli: Any, tiny_run: Path, tasks: Path, tmp_path: Path) -> None:
    """By the command: our JSON on stdout, lm-eval's in the folder, a line for each sample."""
    asked = ["tasks=[slm_choose,induction]", f"include_path={tasks}", "induction.length=6", "limit=4", "out=out"]
    outcome = run_cli("evaluate", f"run={tiny_run}", *asked)
    assert outcome.status == 0, outcome.err
    found = json.loads(outcome.out)
    assert set(found["tasks"]) == {"slm_choose", "induction"}
    theirs = json.loads((tmp_path / "out" / "lm_eval.json").read_text())
    assert theirs["results"]["slm_choose"]["acc,none"] == found["tasks"]["slm_choose"]["acc"]
    assert theirs["n-samples"]["slm_choose"] == {"original": 8, "effective": 4}
    assert len((tmp_path / "out" / "samples_slm_choose.jsonl").read_text().splitlines()) == 4
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == found


@pytest.mark.nightly
def test_a_task_that_there_is_not(run_cli: Any, tiny_run: Path) -> None:
    outcome = run_cli("evaluate", f"run={tiny_run}", "tasks=[arc_eazy]")
    assert outcome.status == 2
    assert "there is no 'arc_eazy'; did you mean 'arc_easy'?" in outcome.err


def test_names_of_figures() -> None:
    results = {
        "gsm8k": {"alias": "gsm8k", "exact_match,strict-match": 0.5, "exact_match_stderr,strict-match": "N/A"},
        "arc": {"acc,none": 0.25, "acc_stderr,none": 0.1, " ": " "},
    }
    assert figures_of({"results": results}) == {
        "gsm8k": {"exact_match/strict-match": 0.5},
        "arc": {"acc": 0.25, "acc_stderr": 0.1},
    }


@pytest.mark.nightly
@pytest.mark.parametrize("begins", [False, True])
def test_scores_are_those_of_its_own_hf_model(tasks: Path, tmp_path: Path, begins: bool) -> None:
    """On the export, of all kinds of requests, to 1e-4; texts longer than the model's 48 positions among them, and a
    vocabulary that puts a token ahead of every text."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from slm.chat.template import with_template
    from slm.evaluation.harness.harness import harness
    from slm.evaluation.reader import Reader
    from slm.generation.language_model import LanguageModel
    from slm.weights.hugging_face import write_hugging_face

    made = BpeTokenizer.create([TEXT] * 9, vocab_size=300, min_frequency=1, split="qwen2")
    tokenizer = with_template(made, "alpaca")
    model = small_model("rotary", tokenizer.vocab_size, 48, 64, **LLAMA)
    folder = tmp_path / "hf"
    write_hugging_face(folder, model.config, model.state_dict(), tokenizer, {})
    if begins:
        _put_ahead(folder)
        from slm.generation.language_model import load

        ours = load(folder, device="cpu", dtype=torch.float32)
    else:
        ours = LanguageModel(model, tokenizer, facts={})
    theirs = HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=4)
    for names in ([f"slm_{name}" for name in TASKS if name != "chat"], ["slm_chat"]):
        chat = names == ["slm_chat"]
        config = benchmark_config({"tasks": names, "include_path": str(tasks), "apply_chat_template": chat})
        found = harness(config).run(Reader(ours, 4))
        manager = TaskManager(include_path=str(tasks))
        wanted = lm_eval.simple_evaluate(model=theirs, tasks=names, task_manager=manager, apply_chat_template=chat)
        for name in names:
            for one, other in zip(found["samples"][name], wanted["samples"][name], strict=True):
                _same(one["resps"], other["resps"])
            for key, value in wanted["results"][name].items():
                if isinstance(value, float):
                    assert found["results"][name][key] == pytest.approx(value, rel=1e-4, abs=1e-4), key


def _same(one: Any, other: Any) -> None:
    if isinstance(one, list | tuple):
        assert len(one) == len(other)
        for inner, outer in zip(one, other, strict=True):
            _same(inner, outer)
    elif isinstance(one, float):
        assert one == pytest.approx(other, abs=1e-4, rel=1e-4)
    else:
        assert one == other


def _put_ahead(folder: Path) -> None:
    """The end of text, ahead of every text, as Llama's vocabularies do with their begin."""
    file = folder / "tokenizer.json"
    state = json.loads(file.read_text())
    token = next(one for one in state["added_tokens"] if one["special"])
    special = {"id": token["content"], "ids": [token["id"]], "tokens": [token["content"]]}
    ahead = [{"SpecialToken": {"id": token["content"], "type_id": 0}}]
    state["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [*ahead, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [*ahead, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {token["content"]: special},
    }
    file.write_text(json.dumps(state))
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "bos_token": token["content"]}))


def test_lm_eval_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from slm.evaluation.suite import suite

    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(UserError, match=r"needs the package 'lm_eval': pip install 'slm\[eval\]'"):
        suite(benchmark_config({"tasks": ["arc_easy"]}))
