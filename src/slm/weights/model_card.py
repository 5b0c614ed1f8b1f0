"""The card of an exported model: what a hub reads of it (YAML), and what a person does."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_TEMPLATE = Path(__file__).with_suffix(".md")
_TASK = "text-generation"
_ENDS_A_CELL = "\n|`"  # what would end a cell of a table, or a block


@dataclass(frozen=True)
class Score:
    """A figure that was measured of a model."""

    data: str  # what it was measured on
    metric: str
    value: float
    split: str | None = None


@dataclass(frozen=True)
class Story:
    """How a model came to be, as far as that is known."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    command: str | None = None  # that makes it again
    scores: Sequence[Score] = ()
    license: str | None = None  # an identifier of a hub's, "apache-2.0"
    datasets: Sequence[str] = ()  # names on a hub
    base_model: str | None = None  # the same


def model_card(
    title: str, family: str, shape: Mapping[str, Any], parameters: int, needs_trust: bool, story: Story
) -> str:
    """``README.md`` of a model of so many `parameters`; scores stand in its YAML as the hub's ``model-index``."""
    from huggingface_hub import ModelCard, ModelCardData

    scores = [score for score in story.scores if math.isfinite(score.value)]
    data = ModelCardData(
        license=story.license,
        library_name="transformers",
        pipeline_tag=_TASK,
        tags=["slm"],
        datasets=list(story.datasets) or None,
        base_model=story.base_model,
        model_name=title,
        eval_results=list(map(_as_the_hub_has_it, scores)) or None,
    )
    return str(
        ModelCard.from_template(
            data,
            template_str=_TEMPLATE.read_text(encoding="utf-8"),
            title=title,
            family=family,
            shape=shape,
            parameters=parameters,
            trust=", trust_remote_code=True" if needs_trust else "",
            facts=_cells(story.facts) or {"source": "converted, not trained here"},
            scores=scores,
            command=story.command,
        )
    )


def _as_the_hub_has_it(score: Score) -> Any:
    from huggingface_hub import EvalResult

    return EvalResult(
        task_type=_TASK,
        dataset_type=score.data,
        dataset_name=score.data,
        dataset_split=score.split,
        metric_type=score.metric,
        metric_name=score.metric,
        metric_value=score.value,
    )


def _cells(facts: Mapping[str, Any]) -> dict[str, str]:
    told = {name: json.dumps(value) if isinstance(value, dict) else str(value) for name, value in facts.items()}
    return {name: "".join(" " if sign in _ENDS_A_CELL else sign for sign in text) for name, text in told.items()}
