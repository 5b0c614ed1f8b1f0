"""A Hugging Face ``config.json``, read with care: what our model cannot do is refused, not skipped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from slm.errors import UserError

_ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "relu2": "relu2",
}


class ForeignConfig:
    """Values of a ``config.json`` with the defaults of its family.

    Args:
        values: the parsed file.
        where: the file, for messages.

    Attributes:
        problems: settings that our model cannot follow, a phrase each.
    """

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values = values
        self.where = where
        self.problems: list[str] = []

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or `default` where it is missing or null."""
        value = self.values.get(key)
        return default if value is None else value

    def number(self, key: str, default: Any = None) -> Any:
        """A number that the family may have a default for; noted as missing if there is none."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.problems.append(f"{key} is missing" if value is None else f"{key}={value!r} is no number")
            return 1
        return value

    def only(self, key: str, allowed: Any, default: Any = None) -> None:
        """Note a problem unless the value is the one that our model can follow."""
        value = self.get(key, default if default is not None else allowed)
        if value != allowed:
            self.problems.append(f"{key}={value!r} (only {allowed!r} can be followed)")

    def activation(self, key: str, default: str) -> str:
        """Our name of the activation."""
        name = self.get(key, default)
        if name not in _ACTIVATIONS:
            self.problems.append(f"{key}={name!r} (known: {', '.join(_ACTIVATIONS)})")
            return "gelu"
        return _ACTIVATIONS[name]

    def rotary(self, base_key: str, fraction_key: str, fraction: float) -> dict[str, Any]:
        """Our `rotary` settings, from the forms that version 4 and version 5 of transformers write."""
        new = self.get("rope_parameters", {})
        scaling = new or self.get("rope_scaling", {})
        return {
            "base": float(new.get("rope_theta") or self.get(base_key, 10000.0)),
            "fraction": float(new.get("partial_rotary_factor") or self.get(fraction_key, fraction)),
            "scaling": self._scaling(scaling),
        }

    def _scaling(self, values: Mapping[str, Any]) -> dict[str, Any] | None:
        kind = values.get("rope_type", values.get("type", "default"))
        if kind == "default":
            return None
        if kind not in ("linear", "llama3", "yarn"):
            self.problems.append(f"rope_type={kind!r} (known: default, linear, llama3, yarn)")
            return None
        ours = {"kind": kind, "factor": float(values.get("factor") or 1.0)}
        if kind != "linear":
            original = values.get("original_max_position_embeddings")
            ours["original_max_seq_len"] = original or self.number("max_position_embeddings")
        names = {"llama3": ("low_freq_factor", "high_freq_factor"), "yarn": ("beta_fast", "beta_slow")}.get(kind, ())
        ours.update({name: float(values[name]) for name in names if values.get(name)})
        if kind == "yarn":
            if values.get("truncate") is False:
                self.problems.append("truncate=False of yarn")
            ours["attention_factor"] = _attention_factor(values)
        return ours

    def stop_if_any(self) -> None:
        """Raise `UserError` with all problems noted."""
        if self.problems:
            raise UserError(f"{self.where}: slm has no model for {'; '.join(self.problems)}")


def foreign_activation(name: str, gelu_tanh: str) -> str:
    """Their name of our activation; the tanh approximation has two."""
    return gelu_tanh if name == "gelu_tanh" else name


def foreign_scaling(scaling: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Our `rotary.scaling` as ``rope_scaling``, which both version 4 and version 5 of transformers read."""
    if scaling is None:
        return None
    theirs = {"rope_type": scaling["kind"], "factor": scaling["factor"]}
    if scaling["original_max_seq_len"] is not None:
        theirs["original_max_position_embeddings"] = scaling["original_max_seq_len"]
    names = {"llama3": ("low_freq_factor", "high_freq_factor"), "yarn": ("beta_fast", "beta_slow", "attention_factor")}
    theirs.update({name: scaling[name] for name in names.get(scaling["kind"], ()) if scaling[name] is not None})
    return theirs


def _attention_factor(values: Mapping[str, Any]) -> float | None:
    """yarn's factor of cosines and sines, given directly or by DeepSeek's two mscales; None for the paper's."""
    if values.get("attention_factor") is not None:
        return float(values["attention_factor"])
    above, below = values.get("mscale"), values.get("mscale_all_dim")
    if not (above and below):
        return None
    log = 0.1 * math.log(max(float(values.get("factor") or 1.0), 1.0))
    return (log * above + 1.0) / (log * below + 1.0)
