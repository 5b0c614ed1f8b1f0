"""The whole configuration of a run, typed, and checked as one. Imports no torch; only `run_config` looks at disks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from slm.data.config import DataConfig
from slm.errors import UserError, refuse
from slm.generation.config import GenerationConfig, settled
from slm.models.config import ModelConfig
from slm.registry import load_plugins
from slm.schema import Count, Seed, Text, checked, together, unknown_key
from slm.tokenizers.build import tokenizer_problems
from slm.training.config import SchedulerConfig, TrainerConfig, scheduler_config, trainer_config
from slm.training.optim.config import optimizer_problems, problems_of, with_rates
from slm.training.run.folder import run_of_checkpoint, template_time
from slm.training.run.resume import checkpoint_to_begin_from, checkpoint_to_resume
from slm.training.tasks.task import Task, TaskInputs, task_of
from slm.weights.fine_tuning import ADAPTER_CONFIG, FINE_TUNING_KEYS, FineTuning, Lora, fine_tuned_config, shape_values

if TYPE_CHECKING:
    from slm.weights.pretrained import Pretrained

T = TypeVar("T")

FINE_TUNING_SEQ_LEN = 1024  # a published model may take 131,072 tokens; nobody wants windows of that by default
PRETRAINED = "pretrained"  # the tokenizer that comes with the weights
START_BUNDLE = "start"  # in the folder of a run from weights: all of them but their tensors, for when it is resumed
ANSWERS_FILE = "answers.jsonl"


@dataclass(frozen=True)
class RunConfig:
    """One training run; `conf/train.yaml` has a line on each setting at the top."""

    run_dir: Path
    seed: int
    resume: str | None
    from_step: str | None  # the checkpoint of another run that this one begins from; read where `resume` finds none
    stop_after: int | None
    model: ModelConfig
    fine_tuning: FineTuning | None  # how training starts from weights that exist; None from scratch
    adapter: Lora | None  # what is trained beside those weights in their place; None to train them
    start: Pretrained | None  # those, opened; of a resumed run what its folder keeps of them, which has no tensors
    template_time: datetime  # what a chat template that writes the time writes, fixed when the run begins
    tokenizer: dict[str, Any]  # ``kind`` and that kind's settings
    data: DataConfig
    task: Task
    optimizer: dict[str, Any]  # ``_target_`` and its arguments, `lr` and `weight_decay` among them
    scheduler: SchedulerConfig
    trainer: TrainerConfig
    callbacks: dict[str, dict[str, Any]]  # name -> ``_target_`` and arguments
    logger: dict[str, dict[str, Any]]
    generation: GenerationConfig

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], start: Pretrained | None = None, template_time: datetime | None = None
    ) -> RunConfig:
        """Check everything of the composed and resolved configuration, plain types, and build it; `UserError`: one line
        a problem, all of them at once.

        What belongs to it and lies on a disk is found by `run_config`; by default it is a new run from scratch.
        """
        problems = unknown_keys(values)

        def found(build: Callable[[], T]) -> T | None:
            try:
                return build()
            except UserError as error:
                problems.append(str(error))
                return None

        unknown = len(problems)
        fine_tuning = found(lambda: fine_tuning_of(values["model"]))
        if fine_tuning is not None and start is None:
            problems.append(
                f"model.weights ('{fine_tuning.weights}') are not opened; call run_config(), which opens them"
            )
        if len(problems) > unknown:
            refuse(problems)  # what is wrong with the weights would be said again of all that follows from them
        model = found(lambda: _model_config(values["model"], fine_tuning, start))
        adapter = found(lambda: _adapter(values["adapter"], model, fine_tuning))
        data = found(lambda: DataConfig.from_dict(_with_seq_len(values["data"], model, fine_tuning)))
        task = found(lambda: task_of(values["task"]))
        if task and data:
            found(lambda: task.check(data.corpus))
        scheduler = found(lambda: scheduler_config(values["scheduler"]))
        trainer = found(lambda: trainer_config(values["trainer"]))
        generation = found(lambda: settled(values["generation"], {}, "generation"))
        scalars = found(lambda: checked(_Scalars, {field.name: values[field.name] for field in fields(_Scalars)}))
        problems += _tokenizer_problems(values, fine_tuning)
        problems += optimizer_problems(values["optimizer"])
        for group in ("callbacks", "logger"):
            problems += _target_problems(values[group] or {}, group)
        problems += _window_problems(values)
        refuse(problems)
        assert model and data and task and scheduler  # noqa: PT018
        assert trainer and generation and scalars  # noqa: PT018
        rate = task.fine_tuning_lr if fine_tuning else None
        return cls(
            **{**vars(scalars), "run_dir": Path(scalars.run_dir)},
            model=model,
            fine_tuning=fine_tuning,
            adapter=adapter,
            start=start,
            template_time=template_time or datetime.now().replace(microsecond=0),
            tokenizer=dict(values["tokenizer"]),
            data=data,
            task=task,
            optimizer=with_rates(values["optimizer"], model.modules.transformer.dim, rate, adapter is not None),
            scheduler=scheduler,
            trainer=trainer,
            callbacks=dict(values["callbacks"] or {}),
            logger=dict(values["logger"] or {}),
            generation=generation,
        )

    @property
    def last_step(self) -> int:
        """Of this session."""
        return min(self.trainer.steps, self.stop_after or self.trainer.steps)

    def task_inputs(self, run: Path | None = None) -> TaskInputs:
        """What the task makes the training data of; `run` is the folder of the run that is gone on with."""
        return TaskInputs(
            data=self.data,
            model=self.model,
            batch_size=self.trainer.windows_at_once,
            known=None if self.start is None else self.start.tokenizer,
            new_tokenizer=None if self.tokenizer["kind"] == PRETRAINED else self.tokenizer,
            seed=self.seed,
            template_time=self.template_time,
            run=run,
            answers_file=self.run_dir / ANSWERS_FILE,
        )


def unknown_keys(values: Mapping[str, Any]) -> list[str]:
    """A line for each key at the top that nobody reads, a run or its command (``json``); raises `UserError` if one is
    missing."""
    allowed = {field.name for field in fields(RunConfig)} - {"fine_tuning", "start", "template_time"} | {"plugins"}
    refuse(f"'{key}' is missing" for key in allowed - values.keys())
    return [unknown_key(key, allowed) for key in sorted(values.keys() - allowed - {"json"})]


def import_plugins(modules: Any) -> None:
    """Import the modules of the setting `plugins`; raises `UserError` for one that cannot be."""
    load_plugins(checked_plugins(modules))


def checked_plugins(modules: Any) -> list[str]:
    """The setting `plugins` as a list; raises `UserError` if it is none."""
    if not isinstance(modules or [], list) or not all(isinstance(module, str) for module in modules or []):
        raise UserError(f"plugins must be a list of modules, e.g. plugins=[my_package.models]; got {modules!r}")
    return list(modules or [])


def run_config(values: Mapping[str, Any]) -> RunConfig:
    """The configuration of a run, of composed and resolved `values`, and of what it begins with that lies on disks:
    plugins are imported, the run that is gone on with looked for, weights found (downloaded, maybe) and opened.
    `UserError`: one line a problem, as many at once as can be told."""
    import_plugins(values.get("plugins"))
    unknown = unknown_keys(values)
    try:
        fine_tuning, run = together(lambda: fine_tuning_of(values["model"]), lambda: _resumed_run(values))
        weights = _opened(fine_tuning, run, values["tokenizer"]) if fine_tuning else None
        if run is None:
            _check_adapter(values["adapter"])
    except UserError as error:  # what is wrong here would be said again of all that follows from it
        raise UserError("\n".join([*unknown, str(error)])) from None
    return RunConfig.from_dict(values, weights, template_time(run) if run else None)


def _check_adapter(adapter: Any) -> None:
    """Raise `UserError` where ``adapter.weights`` of a new run is no folder of an adapter."""
    place = adapter.get("weights") if isinstance(adapter, Mapping) else None
    if isinstance(place, str) and not (Path(place).expanduser() / ADAPTER_CONFIG).is_file():
        raise UserError(f"adapter.weights: '{place}' holds no PEFT adapter ({ADAPTER_CONFIG}); give its folder")


def _resumed_run(values: Mapping[str, Any]) -> Path | None:
    """The folder of the run that is gone on with, or that this one begins from."""
    resume, from_step, run_dir = (values[key] for key in ("resume", "from_step", "run_dir"))
    if not all(value is None or isinstance(value, str) for value in (resume, from_step, run_dir)):
        return None  # another type is reported with the rest
    checkpoint = checkpoint_to_resume(resume, Path(run_dir))
    if checkpoint is None and from_step:
        checkpoint = checkpoint_to_begin_from(from_step)
    return run_of_checkpoint(checkpoint) if checkpoint else None


def _opened(fine_tuning: FineTuning, run: Path | None, tokenizer: Mapping[str, Any]) -> Pretrained:
    """Of a resumed run what its folder keeps of the weights; runs of before it was kept have none."""
    from slm.weights.open_model import Source, find_source, open_source  # torch, which nobody else here needs

    kept = run is not None and (run / START_BUNDLE).is_dir()
    if run and kept:
        source = Source("slm", run / START_BUNDLE)
    else:
        source = find_source(fine_tuning.weights, base=fine_tuning.base)
    opened = open_source(source)
    ends = tokenizer.get("eos_token") if tokenizer.get("kind") == PRETRAINED else None
    return opened if ends is None else replace(opened, tokenizer=opened.tokenizer.with_end_of_text(str(ends)))


@dataclass(frozen=True)
class _Scalars:
    run_dir: str
    seed: Seed
    resume: str | None
    from_step: Text | None
    stop_after: Count | None


def fine_tuning_of(model: Mapping[str, Any]) -> FineTuning | None:
    """How training starts from weights that exist, as the configuration's `model` says; None from scratch."""
    if not {"weights", "name"} & model.keys():  # model=pretrained: all else is the weights'
        raise UserError("model.weights is missing; set it")
    given = {key: model[key] for key in FINE_TUNING_KEYS if model.get(key) is not None}
    if given and "weights" not in given:
        raise UserError(f"model.{min(given)} is read only with model.weights; set that, or leave it out")
    return checked(FineTuning, {**given, "weights": str(given["weights"])}, "model") if given else None


def _model_config(model: Mapping[str, Any], fine_tuning: FineTuning | None, start: Pretrained | None) -> ModelConfig:
    shape = shape_values(model)
    if fine_tuning is None:
        return ModelConfig.from_dict(shape)
    assert start is not None
    return fine_tuned_config(start.config, shape, fine_tuning.extend_positions)


def _adapter(values: Mapping[str, Any] | None, model: ModelConfig | None, tuning: FineTuning | None) -> Lora | None:
    if not values:
        return None
    adapter = checked(Lora, values, "adapter")
    if tuning is None:
        raise UserError("adapter=lora adapts weights that exist; name them (model.weights=…), or leave adapter out")
    if model is None:
        return None
    frozen = [key for key, value in model.flat().items() if key.endswith(".freeze") and value]
    if frozen:
        raise UserError(
            f"adapter=lora trains its own matrices and adapter.also_train alone; leave model.{frozen[0]} false"
        )
    rows = ["token_embedding", *(() if model.modules.output_projection.tie_weights else ("output_projection",))]
    if tuning.grow_vocab and not set(rows) <= set(adapter.also_train):
        raise UserError(
            "model.grow_vocab makes rows that adapter=lora would never train; set "
            f"adapter.also_train=[{','.join(dict.fromkeys([*adapter.also_train, *rows]))}]"
        )
    return adapter


def _with_seq_len(data: Mapping[str, Any], model: ModelConfig | None, tuned: FineTuning | None) -> Mapping[str, Any]:
    if tuned is None or data.get("seq_len") is not None:
        return data
    longest = FINE_TUNING_SEQ_LEN if model is None else model.params.max_seq_len
    return {**data, "seq_len": min(longest, FINE_TUNING_SEQ_LEN)}


def _tokenizer_problems(values: Mapping[str, Any], fine_tuning: FineTuning | None) -> list[str]:
    if values["tokenizer"].get("kind") != PRETRAINED:
        return tokenizer_problems(values["tokenizer"])
    said = "tokenizer=pretrained is the one of model.weights; set that, or name another tokenizer"
    return [said] if fine_tuning is None else []


def _window_problems(values: Mapping[str, Any]) -> list[str]:
    """Looks at the plain values, so that it is said even when something else is wrong with the model."""
    seq_len = values["data"].get("seq_len")
    longest = (values["model"].get("params") or {}).get("max_seq_len")
    if not (isinstance(seq_len, int) and isinstance(longest, int)) or seq_len <= longest:
        return []
    return [
        f"data.seq_len ({seq_len}) must be at most model.params.max_seq_len ({longest}); "
        "lower the first or raise the second"
    ]


def _target_problems(nodes: Mapping[str, Any], group: str) -> list[str]:
    problems = []
    for name, node in nodes.items():
        if not isinstance(node, Mapping) or not isinstance(node.get("_target_"), str):
            problems.append(
                f"{group}.{name}._target_ is missing; name the class to build, choose a {group}= that has "
                f"'{name}', or leave out what sets it (an experiment's: '~{group}.{name}')"
            )
        else:
            problems += problems_of(node, f"{group}.{name}")
    return problems
