"""Logits to next tokens: pure functions, each for logits (B, V)."""

from collections.abc import Hashable, Mapping, Sequence

import torch
from torch import Tensor

from slm.generation.config import GenerationConfig
from slm.models.kernels.products import largest_places

_LARGEST, _SMALLEST = torch.finfo(torch.float32).max, torch.finfo(torch.float32).tiny
_NUCLEUS_TRIED = 1024  # a full sort of 50,000 logits takes milliseconds; a nucleus is rarely wider than this


def next_tokens(logits: Tensor, settings: GenerationConfig, uniforms: Tensor | None) -> Tensor:
    """(B, V) logits, after `adjusted`, to (B,) token ids; the order is temperature, top-k, top-p, min-p. `uniforms`
    (B,), in [0, 1), decide each row's draw; None if greedy. So is a temperature below the smallest normal fp32 number,
    about 1e-38."""
    if settings.greedy or uniforms is None or settings.temperature < _SMALLEST:
        return largest_places(logits)
    logits, where = logits.float(), None
    if 0 < settings.top_k < logits.shape[-1]:
        logits, where = logits.topk(settings.top_k, dim=-1)  # the rest works on these few alone
    logits = with_temperature(logits, settings.temperature)
    if settings.top_p < 1:
        logits = keep_top_p(logits, settings.top_p)
    if settings.min_p > 0:
        logits = keep_min_p(logits, settings.min_p)
    drawn = sample(logits, uniforms)
    return drawn if where is None else where.gather(-1, drawn[:, None])[:, 0]


def has_rules(settings: GenerationConfig) -> bool:
    """Whether `adjusted` changes anything."""
    off_by_0 = (settings.presence_penalty, settings.frequency_penalty, settings.no_repeat_ngram)
    return bool(settings.logit_bias) or settings.repetition_penalty != 1 or any(off_by_0)


def drawing_key(settings: GenerationConfig) -> Hashable:
    """Equal for settings by which `adjusted` and `next_tokens` do the same: rows of equal keys are drawn together."""
    rules = (
        settings.repetition_penalty,
        settings.presence_penalty,
        settings.frequency_penalty,
        settings.no_repeat_ngram,
        tuple(sorted(settings.logit_bias.items())),
    )
    draw = (settings.temperature, settings.top_k, settings.top_p, settings.min_p)
    return (None if settings.greedy else draw, rules)


def adjusted(
    logits: Tensor, settings: GenerationConfig, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]]
) -> Tensor:
    """Logits with biases, penalties and forbidden n-grams, for rows with these prompts and texts so far. In fp32 where
    numbers are added or scaled. A row in which all of that leaves no token stays as it is."""
    if not has_rules(settings):
        return logits
    plain, counts = logits, settings.presence_penalty or settings.frequency_penalty
    if settings.logit_bias or settings.repetition_penalty != 1 or counts:
        logits = logits.float().clamp(max=_LARGEST)  # bf16 has steps of 0.06 at 10; fp16 weights may give inf
    seen: list[list[int]] = []
    if settings.repetition_penalty != 1 or settings.no_repeat_ngram:
        seen = [[*prompt, *text] for prompt, text in zip(prompts, texts, strict=True)]
    if settings.logit_bias:
        logits = with_bias(logits, settings.logit_bias)
    if settings.repetition_penalty != 1:
        logits = penalize_repetition(logits, seen, settings.repetition_penalty)
    if counts:
        logits = penalize_counts(logits, texts, settings.presence_penalty, settings.frequency_penalty)
    if settings.no_repeat_ngram:
        logits = forbid_ngrams(logits, seen, settings.no_repeat_ngram)
    return torch.where(logits.isneginf().all(dim=-1, keepdim=True), plain, logits)


def with_temperature(logits: Tensor, temperature: float) -> Tensor:
    """fp32 logits, the largest of each row taken off, so that none overflows, divided by `temperature`."""
    logits = logits.clamp(max=_LARGEST)
    return (logits - logits.amax(dim=-1, keepdim=True)) / min(temperature, _LARGEST)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """All but the nucleus set to -inf: the fewest likeliest tokens, at least one, whose probabilities sum to `p`
    (Holtzman et al. 2020, eq. 2)."""
    # elsewhere than on a CPU a sort costs little, and asking whether it is needed would wait for the device
    tried = min(_NUCLEUS_TRIED, logits.shape[-1]) if logits.device.type == "cpu" else logits.shape[-1]
    norm = logits.logsumexp(dim=-1, keepdim=True)
    ordered, where = logits.topk(tried, dim=-1)
    probabilities = (ordered - norm).exp()
    if tried < logits.shape[-1] and bool((probabilities.sum(dim=-1) < p).any()):
        ordered, where = logits.sort(dim=-1, descending=True, stable=True)
        probabilities = (ordered - norm).exp()
    outside = probabilities.cumsum(dim=-1) - probabilities >= p
    outside[..., 0] = False  # in fp32 a tiny `p` is 0
    return torch.full_like(logits, float("-inf")).scatter(-1, where, ordered.masked_fill(outside, float("-inf")))


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """All tokens less than `p` times as likely as the likeliest set to -inf (Nguyen et al. 2024, eq. 1)."""
    threshold = logits.amax(dim=-1, keepdim=True) + torch.tensor(p).log().item()
    return logits.masked_fill(logits < threshold, float("-inf"))


def with_bias(logits: Tensor, bias: Mapping[int, float]) -> Tensor:
    """`bias` added to the logits of its token ids; those that the model has not are passed over."""
    known = {token: value for token, value in bias.items() if 0 <= token < logits.shape[-1]}
    ids = torch.tensor(list(known), dtype=torch.int64, device=logits.device)
    values = torch.tensor([min(value, _LARGEST) for value in known.values()], device=logits.device)
    return logits.index_add(-1, ids, values.expand(logits.shape[0], -1)).clamp(max=_LARGEST)


def penalize_repetition(logits: Tensor, seen: Sequence[Sequence[int]], penalty: float) -> Tensor:
    """Positive logits of seen tokens divided by `penalty`, others multiplied by it (Keskar et al. 2019, eq. 2)."""
    penalty = min(max(penalty, _SMALLEST), _LARGEST)  # 0 times inf is no number
    logits = logits.clone()
    for row, ids in enumerate(seen):
        tokens = torch.tensor(sorted(set(ids)), dtype=torch.int64, device=logits.device)
        values = logits[row, tokens]
        logits[row, tokens] = torch.where(values > 0, values / penalty, values * penalty)
    return logits.clamp(max=_LARGEST)


def penalize_counts(logits: Tensor, texts: Sequence[Sequence[int]], presence: float, frequency: float) -> Tensor:
    """``presence + frequency * count`` taken off the logits of tokens that each text has ``count`` times (OpenAI's
    API reference, presence_penalty and frequency_penalty)."""
    logits = logits.clone()
    for row, ids in enumerate(texts):
        if ids:
            tokens, counts = torch.tensor(ids, device=logits.device).unique(return_counts=True)
            logits[row, tokens] -= presence + frequency * counts.to(logits.dtype)
    return logits


def forbid_ngrams(logits: Tensor, seen: Sequence[Sequence[int]], n: int) -> Tensor:
    """-inf for every token that would complete a run of `n` tokens a second time (Paulus et al. 2017, section 2.5)."""
    logits = logits.clone()
    for row, ids in enumerate(seen):
        begin = tuple(ids[len(ids) - n + 1 :]) if n > 1 else ()
        if len(begin) == n - 1:
            again = [ids[i + n - 1] for i in range(len(ids) - n + 1) if tuple(ids[i : i + n - 1]) == begin]
            logits[row, again] = float("-inf")
    return logits


def sample(logits: Tensor, uniforms: Tensor) -> Tensor:
    """One draw a row from softmax(logits), where its cumulative sum passes the row's number in [0, 1)."""
    cumulative = logits.softmax(dim=-1, dtype=torch.float32).cumsum(dim=-1)
    wanted = uniforms[:, None] * cumulative[:, -1:]
    # the first place above; not past the last token that has any probability
    return torch.searchsorted(cumulative, wanted, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)


def log_probabilities(logits: Tensor, tokens: Tensor) -> Tensor:
    """(B,) log-probabilities, in nats, that softmax(logits) gives to `tokens` (B,)."""
    return _log_softmax(logits).gather(-1, tokens[:, None])[:, 0]


def likeliest(
    logits: Tensor, tokens: Tensor, n: int, vocab_size: int | None = None
) -> tuple[list[float], list[tuple[tuple[int, float], ...]]]:
    """Beside the same, as numbers, of each row of logits (B, V) the `n` likeliest ids below `vocab_size`, with
    theirs."""
    logprobs = _log_softmax(logits)
    of_tokens = logprobs.gather(-1, tokens[:, None])[:, 0].tolist()
    best, ids = logprobs[:, :vocab_size].topk(min(n, logprobs[:, :vocab_size].shape[-1]), dim=-1)
    return of_tokens, [tuple(zip(*row, strict=True)) for row in zip(ids.tolist(), best.tolist(), strict=True)]


def _log_softmax(logits: Tensor) -> Tensor:
    return logits.float().clamp(max=_LARGEST).log_softmax(dim=-1)
