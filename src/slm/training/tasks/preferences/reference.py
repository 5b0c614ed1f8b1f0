"""What the reference thinks of the answers: computed once, ahead of training, so that memory is one model's."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

import slm
from slm.data.batches.datamodule import PairDataModule
from slm.data.batches.pairs import PairDataset
from slm.errors import UserError
from slm.files.writing import new_file
from slm.models.contract import CausalLM
from slm.models.modules.losses import has_plain_head, log_probs_through_head, token_log_probs
from slm.notices import notice
from slm.training.tasks.task import TaskInputs

REFERENCE_FILE = "reference.safetensors"  # in the run folder: a resumed run cannot ask weights that it no longer has
_CHECKSUM = "sha256"  # of the tensors, in the file's metadata

Found = Mapping[str, Tensor]  # split -> (n, 2) fp32: log-probabilities of the chosen and the rejected answers


def answer_log_probs(model: CausalLM, batch: Mapping[str, Tensor]) -> Tensor:
    """Log-probability of each row's answer, (2 B,) in nats and fp32: the sum over its tokens."""
    hidden = model(batch["input_ids"], return_hidden=True)
    if not has_plain_head(cast(nn.Module, model)):
        return log_probs_through_head(model, hidden, batch["labels"]).sum(dim=1)
    softcap = model.config.modules.output_projection.softcap
    found = token_log_probs(hidden, model.head_weight, batch["labels"], model.config.vocab_size, softcap)
    return found.sum(dim=1)


def find_reference(
    data: PairDataModule, inputs: TaskInputs, sizes: Mapping[str, int], model: nn.Module, device: str, precision: str
) -> None:
    """Give the datasets of `data` what the reference thinks of their pairs: as `inputs.run` keeps it, else asked of
    `inputs.reference`, else of `model`, as training begins, in training's `precision` (Lightning's name of it). There
    are as many pairs of "train" and of "val" as `sizes` says, whichever of them are in `data`."""
    if inputs.run is not None and inputs.reference is None:
        kept = _kept(inputs.run / REFERENCE_FILE, sizes)
        found: Found = {**kept, "all": torch.cat([kept["train"], kept["val"]])}
    else:
        asked = model if inputs.reference is None else inputs.reference
        cache = Path(inputs.data.corpus.cache_dir).expanduser() / "references"
        found = _reference_of(asked, data, cache, device, precision, inputs.part)
    for name, dataset in data.datasets.items():
        dataset.reference = found[name]
    if inputs.part is None and inputs.run is None:
        notice(f"before training, validation: {data.datasets['val'].reference_told()}")


def _reference_of(
    model: nn.Module, data: PairDataModule, cache: Path, device: str, precision: str, part: str | None
) -> Found:
    """From the folder `cache` where it has them; `part` is the only one that `data` has."""
    pairs = data.fingerprint if part is None else f"{data.fingerprint} {part}"
    inputs = f"{slm.__version__} {pairs} {device} {precision} {_checksum(model.state_dict())}"
    key = hashlib.sha256(inputs.encode()).hexdigest()[:16]
    file = cache / f"{key}.safetensors"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f".{key}.lock"):  # of several ranks one computes
        if file.is_file():
            try:
                return _read(file)
            except ValueError as error:
                notice(f"{file} is damaged ({error}): made again")
        found = {
            name: _log_probs(model, part, data.noun, device, precision, data.batch_size)
            for name, part in data.datasets.items()
        }
        _write(file, found)
    return found


def keep_reference(datasets: Mapping[str, PairDataset], run: Path) -> None:
    """Write what `datasets` have into the run's folder, once."""
    if not (run / REFERENCE_FILE).is_file():
        _write(run / REFERENCE_FILE, {n: d.reference for n, d in datasets.items() if d.reference is not None})


def _kept(file: Path, sizes: Mapping[str, int]) -> Found:
    """What `keep_reference` wrote; `UserError` if it is missing, damaged, or of other pairs."""
    if not file.is_file():
        raise UserError(f"{file} is missing: what the reference thought of the pairs; restore it, or start a new run")
    try:
        found = _read(file)
    except ValueError as error:
        raise UserError(f"{file} is damaged ({error}); restore it, or start a new run") from None
    if {name: tuple(tensor.shape) for name, tensor in found.items()} != {name: (n, 2) for name, n in sizes.items()}:
        raise UserError(f"{file} is of other pairs; restore the data, or start a new run")
    return found


def _write(file: Path, reference: Found) -> None:
    with new_file(file) as out:
        out.write(save(dict(reference), metadata={_CHECKSUM: _checksum(reference)}))


def _read(file: Path) -> Found:
    """Raises `ValueError` for a damaged file; one of before there were checksums is taken as it is."""
    try:
        with safe_open(file, "pt") as opened:
            expected = (opened.metadata() or {}).get(_CHECKSUM)
            found = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ValueError(error) from None
    if expected is not None and _checksum(found) != expected:
        raise ValueError("its checksum is another")
    return found


def _checksum(tensors: Found) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


@torch.no_grad()
def _log_probs(model: nn.Module, data: PairDataset, noun: str, device: str, precision: str, batch_size: int) -> Tensor:
    """(n, 2), pairs of like length side by side in a batch."""
    notice(f"reference log-probabilities of {len(data):,} {noun}")
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
