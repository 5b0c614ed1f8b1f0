"""The end of a run in figures, and in a few lines for a person."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from slm.training.lit_module import LanguageModelModule
from slm.training.run.checkpoints import Checkpoints
from slm.training.run.metrics_table import STEP, read_metrics
from slm.training.run.words_reached import WORDS, words_now
from slm.training.watch.train_metrics import LOGGED, TrainMetrics


def summarize_run(
    trainer: pl.Trainer, module: LanguageModelModule, checkpoints: Checkpoints, seconds: float, table: Path
) -> dict[str, Any]:
    """Steps, tokens, losses and speed, plain types: what ``summary.json`` holds.

    ``best_val_loss`` and ``best_step`` are of the model in the run folder: of a part of a run that ended before its
    first validation, of its end. nan if there was no validation; ``tokens_per_s`` leaves out validation and saving.
    ``logged`` has the last value of each column of `table`, ``metrics.csv``, that the user's own callbacks and models
    wrote.
    """
    metrics = next(c for c in trainer.callbacks if isinstance(c, TrainMetrics))  # type: ignore[attr-defined]
    best_loss, best_step = checkpoints.best_loss, checkpoints.best_step
    if best_loss is None and "loss" in module.val_metrics:
        best_loss, best_step = module.val_metrics["loss"], trainer.global_step
    return {
        "step": trainer.global_step,
        "max_steps": trainer.max_steps,
        "tokens": module.tokens_trained,
        **({} if (words := words_now(trainer)) is None else {WORDS: words}),
        "bad_steps": module.bad_steps,
        "best_val_loss": best_loss if best_loss is not None else math.nan,
        "best_step": best_step,
        **{f"val_{name}": value for name, value in module.val_metrics.items()},
        "tokens_per_s": metrics.total_tokens / metrics.total_s if metrics.total_s else None,
        "seconds": seconds,
        **_logged_by_others(table, module.val_metrics),
    }


def _logged_by_others(table: Path, figures: Mapping[str, float]) -> dict[str, Any]:
    columns, rows = read_metrics(table) if table.is_file() else ([], [])
    own = {STEP, *(f"{part}/{name}" for part in ("train", "val") for name in figures), *LOGGED}
    others = [name for name in columns if name not in own and not name.startswith("speed/")]
    last = {name: float(row[name]) for name in others for row in rows if row[name]}
    return {"logged": last} if last else {}


def describe(summary: Mapping[str, Any], run: Path, max_steps: int) -> str:
    """The summary in words, with the next command to type."""
    lines = [f"done: step {summary['step']} of {max_steps} in {summary['seconds']:.1f} s"]
    best = f"(best loss {summary['best_val_loss']:.4f} at step {summary['best_step']})"
    if "val_accuracy" in summary:
        good, bad = ("chosen", "rejected") if "val_log_prob_chosen" in summary else ("desirable", "undesirable")
        lines.append(
            f"  validation   loss {summary['val_loss']:.4f}, accuracy {100 * summary['val_accuracy']:.1f} %, margin "
            f"{summary['val_margin']:.3f}, {good} {summary[f'val_log_prob_{good}']:.4f} and {bad} "
            f"{summary[f'val_log_prob_{bad}']:.4f} nats/token {best}"
        )
    elif "val_loss" in summary:
        lines.append(
            f"  validation   loss {summary['val_loss']:.4f} nats/token, perplexity {summary['val_perplexity']:.2f}, "
            f"{summary['val_bits_per_byte']:.4f} bits/byte {best}"
        )
    if "val_exact_match" in summary:
        lines.append(f"  answers      {100 * summary['val_exact_match']:.1f} % exact (answers.jsonl)")
    if summary["bad_steps"]:
        lines.append(f"  bad steps    {summary['bad_steps']}, their updates were left out (bad_steps.jsonl)")
    if summary["tokens_per_s"]:
        lines.append(f"  speed        {summary['tokens_per_s']:,.0f} tokens/s")
    lines += [f"  run folder   {run}", f"  next         slm-generate run={run}"]
    if summary["step"] < max_steps:
        lines.append(f"  go on        slm-train resume={run}")
    return "\n".join(lines)
