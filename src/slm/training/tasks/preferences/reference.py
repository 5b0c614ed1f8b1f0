"""What the reference thinks of the answers: computed once, ahead of training, so that memory is one model's."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

import slm
from slm.data.batches.pairs import PairDataset
from slm.errors import UserError
from slm.files.writing import new_file
from slm.models.contract import CausalLM
from slm.models.modules.losses import token_log_probs
from slm.notices import notice
from slm.training.through_head import has_plain_head, log_probs_through_head

_CHECKSUM = "sha256"  # of the tensors, in the file's metadata

Batch = Mapping[str, Tensor]


def answer_log_probs(model: CausalLM, batch: Batch) -> Tensor:
    """Log-probability of each row's answer, (2 B,) in nats and fp32: the sum over its tokens."""
    hidden = model.hidden_states(batch["input_ids"])
    if not has_plain_head(cast(nn.Module, model)):
        return log_probs_through_head(model, hidden, batch["labels"]).sum(dim=1)
    softcap = model.config.modules.output_projection.softcap
    found = token_log_probs(hidden, model.head_weight, batch["labels"], model.config.vocab_size, softcap)
    return found.sum(dim=1)


def reference_of(
    model: nn.Module,
    datasets: Mapping[str, PairDataset],
    fingerprint: str,
    cache: Path,
    device: str,
    precision: str,
    batch_size: int,
) -> dict[str, Tensor]:
    """Log-probabilities of all answers by `model`, without dropout; from `cache` where it has them.

    Args:
        model: as training begins.
        datasets: by the split's name.
        fingerprint: of these data.
        cache: folder of what was computed before.
        device: to compute on, e.g. "cuda".
        precision: Lightning's name of the one that training computes in.
        batch_size: pairs at a time.

    Returns:
        By the split's name, (n, 2) fp32: chosen and rejected.
    """
    inputs = f"{slm.__version__} {fingerprint} {device} {precision} {_weights_fingerprint(model)}"
    key = hashlib.sha256(inputs.encode()).hexdigest()[:16]
    file = cache / f"{key}.safetensors"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f".{key}.lock"):  # of several ranks one computes
        if file.is_file():
            try:
                return _read(file)
            except _DamagedError as error:
                notice(f"{file} is damaged ({error}): made again")
        found = {name: _log_probs(model, data, device, precision, batch_size) for name, data in datasets.items()}
        write_reference(file, found)
    return found


def load_reference(file: Path, datasets: Mapping[str, PairDataset]) -> dict[str, Tensor]:
    """What `write_reference` wrote.

    Raises:
        UserError: it is missing, damaged, or of other pairs.
    """
    if not file.is_file():
        raise UserError(f"{file} is missing: what the reference thought of the pairs; restore it, or start a new run")
    try:
        found = _read(file)
    except _DamagedError as error:
        raise UserError(f"{file} is damaged ({error}); restore it, or start a new run") from None
    if {name: tuple(tensor.shape) for name, tensor in found.items()} != {n: (len(d), 2) for n, d in datasets.items()}:
        raise UserError(f"{file} is of other pairs; restore the data, or start a new run")
    return found


def write_reference(file: Path, reference: Mapping[str, Tensor]) -> None:
    """Beside its place and renamed into it, with a checksum."""
    with new_file(file) as out:
        out.write(save(dict(reference), metadata={_CHECKSUM: _checksum(reference)}))


class _DamagedError(ValueError):
    """What is wrong with a file."""


def _read(file: Path) -> dict[str, Tensor]:
    """Raises `_DamagedError`; a file of before there were checksums is taken as it is."""
    try:
        with safe_open(file, "pt") as opened:
            expected = (opened.metadata() or {}).get(_CHECKSUM)
            found = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise _DamagedError(str(error)) from None
    if expected is not None and _checksum(found) != expected:
        raise _DamagedError("its checksum is another")
    return found


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        _add(digest, name, tensors[name])
    return digest.hexdigest()


def describe_reference(reference: Tensor, dataset: PairDataset) -> str:
    """What a model thinks before training, in a line: how likely the chosen answers are, and how often likelier."""
    likelier = int((reference[:, 0] > reference[:, 1]).sum()) / len(reference)
    nats = math.fsum(reference[:, 0].tolist()) / dataset.chosen_tokens
    return f"chosen answers {nats:.4f} nats/token, likelier than the rejected in {100 * likelier:.1f} % of pairs"


@torch.no_grad()
def _log_probs(model: nn.Module, data: PairDataset, device: str, precision: str, batch_size: int) -> Tensor:
    """(n, 2), pairs of like length side by side in a batch."""
    notice(f"reference log-probabilities of {len(data):,} pairs")
    order = data.lengths.argsort(kind="stable").tolist()
    result = torch.empty(len(data), 2)
    was_training = model.training
    model.to(device).eval()
    half = {"bf16": torch.bfloat16, "16": torch.float16}.get(precision.partition("-")[0])
    with torch.autocast(device, dtype=half, enabled=half is not None):
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = {name: tensor.to(device) for name, tensor in data.__getitems__(chosen).items()}
            result[chosen] = answer_log_probs(cast(CausalLM, model), batch).view(2, -1).t().float().cpu()
    model.train(was_training)
    return result


def _weights_fingerprint(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        _add(digest, name, tensor)
    return digest.hexdigest()


def _add(digest: hashlib._Hash, name: str, tensor: Tensor) -> None:
    digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
    digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
