"""A run's own configuration and data, from its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slm.errors import UserError
from slm.tokenizers.base import Tokenizer
from slm.training.run.checkpoint_files import newest_whole
from slm.training.run.folder import CONFIG_FILE, RECORD_FILE, read_config, read_record, template_time
from slm.training.run_config import START_BUNDLE, RunConfig
from slm.training.start import run_config
from slm.training.tasks.task import TaskData


def composed_of(run: Path, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The composed configuration of the run in folder `run`, of plain types, as of a run that is not resumed.

    Args:
        run: a run folder.
        changes: dotted key -> value in place of the run's.

    Raises:
        UserError: it is no run folder, or its ``config.yaml`` is damaged.
    """
    file = run / CONFIG_FILE
    if not file.is_file():
        raise UserError(f"run: '{run}' is no run folder ({CONFIG_FILE} is missing)")
    composed: Any = read_config(run)
    try:
        for key, value in {"resume": None, "stop_after": None, **changes}.items():
            *groups, name = key.split(".")
            node = composed
            for group in groups:
                node = node[group]
            node[name] = value
    except (TypeError, KeyError) as error:
        raise UserError(f"{file} is damaged ({' '.join(str(error).split())[:200]}); restore it from a copy") from None
    if composed.get("adapter") and (run / START_BUNDLE).is_dir():  # the weights; where they came from may be gone
        composed["model"]["weights"] = str(run / START_BUNDLE)
    return composed


@dataclass(frozen=True)
class RunData:
    """The training data of a run.

    Attributes:
        data: as the run had it, in its order.
    """

    data: TaskData

    @classmethod
    def of(cls, run: Path) -> RunData:
        """Open what the run in folder `run` was trained on.

        Raises:
            UserError: it is no run folder, or the data is not there any more, or has changed.
        """
        # of a run from weights that may be gone, their tokenizer is all that is needed
        resumable = (run / START_BUNDLE).is_dir() and newest_whole(run) is not None
        changes = {"run_dir": str(run), **({"resume": str(run)} if resumable else {})}
        return cls(unchanged_data(run, config_again(run, composed_of(run, changes))))

    def text(self, window: int) -> list[str]:
        """What a training window holds, as text: one, or of a pair of answers both, the chosen one first.

        Args:
            window: as ``samples`` in ``bad_steps.jsonl`` has them.

        Raises:
            UserError: there is no such window.
        """
        _, batch = self.data.datamodule.sample(window)
        return [
            _text(self.data.tokenizer, ids.tolist(), labels.tolist())
            for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True)
        ]


def config_again(run: Path, composed: Mapping[str, Any]) -> RunConfig:
    """A configuration that `composed_of` gave, typed, with the time that the run's chat template wrote."""
    config = run_config(composed)
    return replace(config, template_time=template_time(run) or config.template_time)


def unchanged_data(run: Path, config: RunConfig) -> TaskData:
    """What `config` trains on; raises `UserError` unless it is what the run in folder `run` was trained on."""
    recorded = read_record(run).get("data_fingerprint")
    if recorded is None:
        raise UserError(f"run: '{run}' does not say what data it had ({RECORD_FILE} is missing)")
    data = config.task.data(config.task_inputs())
    if data.datamodule.fingerprint != recorded:
        corpus = config.data.corpus
        place = f" data.path={corpus.settings['path']}" if "path" in corpus.settings else ""
        raise UserError(
            f"data: data.kind={corpus.kind}{place} with this tokenizer is not what the run was trained on (fingerprint "
            f"{recorded[:12]} then, {data.datamodule.fingerprint[:12]} now); restore the files as they were"
        )
    return data


def _text(tokenizer: Tokenizer, ids: list[int], labels: list[int]) -> str:
    """All that is read, and the last label, which is read by nobody; what stands behind it is padding."""
    end = max((place + 1 for place, label in enumerate(labels) if label >= 0), default=0)
    return tokenizer.decode([*ids[:end], labels[end - 1]] if end else ids)
