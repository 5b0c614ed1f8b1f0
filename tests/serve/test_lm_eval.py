"""The field's harness over HTTP: its `local-completions` model gets the log-likelihoods of a plain loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from slm.generation.language_model import LanguageModel

pytestmark = pytest.mark.nightly  # lm-eval takes seconds to import


def likelihood(lm: LanguageModel, context: str, continuation: str) -> tuple[float, bool]:
    before, after = lm.tokenizer.encode(context) or [lm.tokenizer.eos_id], lm.tokenizer.encode(continuation)
    whole = torch.tensor([[*before, *after]])
    with torch.inference_mode():
        of_model = lm.model(whole).log_softmax(-1)[0, len(before) - 1 : -1]
    chosen = of_model[range(len(after)), after]
    return float(chosen.sum()), bool((of_model.argmax(-1) == torch.tensor(after)).all())


def test_log_likelihoods(served: Any, lm: LanguageModel) -> None:
    """With the server's own tokenizer; whatever comes first after the end."""
    pytest.importorskip("lm_eval", reason="the extra eval is not installed")
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    pairs = [("The cat", " sat"), ("", "abc"), ("a" * 100, "b" * 20), ("x", "y")]
    greedy = lm.generate("The cat", greedy=True, max_new_tokens=1, chat=False, stop_at_eos=False)
    pairs.append(("The cat", greedy))
    model = LocalCompletionsAPI(
        base_url=f"{served[0]}/v1/completions", tokenizer_backend="remote", model="small", batch_size=3
    )
    asked = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    got = model.loglikelihood(asked, disable_tqdm=True)
    for (logprob, is_greedy), pair in zip(got, pairs, strict=True):
        expected, best = likelihood(lm, *pair)
        assert logprob == pytest.approx(expected, abs=1e-4)
        assert is_greedy is best
    assert got[-1][1] is True
    until = [Instance("generate_until", {}, ("The cat", {"until": ["\n"], "max_gen_toks": 8}), 0)]
    text = lm.generate("The cat", greedy=True, max_new_tokens=8, chat=False, stop=["\n"])
    assert model.generate_until(until, disable_tqdm=True) == [text]
