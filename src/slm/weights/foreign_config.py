"""A Hugging Face ``config.json``, read with care: what our model cannot do is refused, not skipped."""

from __future__ import annotations

import math
import reprlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from slm.errors import UserError

_ACTIVATIONS = {
    **{"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"},
    **{"silu": "silu", "swish": "silu", "relu": "relu", "relu2": "relu2"},
}


@dataclass
class ForeignConfig:
    """Values of a ``config.json``, or of an object in it. A wrong one is noted as it is read, and some right one
    returned, so that all problems are found in one pass."""

    values: Mapping[str, Any]
    where: str  # for messages
    problems: list[str] = field(default_factory=list)  # settings that our model cannot follow, a phrase each
    _prefix: str = ""

    def get(self, key: str, default: Any = None) -> Any:
        """`default` stands for null too."""
        value = self.values.get(key)
        return default if value is None else value

    def count(self, key: str, default: int | None = None) -> int:
        """A whole number above zero; missing, if the family has no default, is a problem too."""
        return self._above_zero(int, key, default, "a whole number above 0") or 1

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number above zero; missing, if there is no default, is a problem too."""
        return float(self._above_zero(int | float, key, default, "a number above 0") or 1.0)

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key, default)
        if not isinstance(value, bool):
            self._note(key, "(allowed are true and false)")
        return bool(value)

    def only(self, key: str, allowed: Any) -> None:
        """Note a problem unless the value is the one that our model can follow."""
        if self.get(key, allowed) != allowed:
            self._note(key, f"(only {allowed!r} can be followed)")

    def activation(self, key: str, default: str) -> str:
        name = self.get(key, default)
        if not isinstance(name, str) or name not in _ACTIVATIONS:
            self._note(key, f"(known: {', '.join(_ACTIVATIONS)})")
            return "gelu"
        return _ACTIVATIONS[name]

    def rotary(self, base_key: str, fraction_key: str | None = None, fraction: float = 1.0) -> dict[str, Any]:
        """Our `rotary` settings, from the forms that version 4 and version 5 of transformers write.

        What both say is taken from where version 5 does: ``rope_scaling``, ``rope_parameters``, then the keys of
        version 4, of the base and of the share of a head that turns (None for a family whose heads turn whole).
        """
        rope = self._object("rope_scaling") or self._object("rope_parameters") or replace(self, values={})
        if fraction_key is None:
            for config in (self, rope):
                config.only("partial_rotary_factor", 1.0)
        else:
            fraction = rope.number("partial_rotary_factor", self.number(fraction_key, fraction))
        return {
            "base": rope.number("rope_theta", self.number(base_key, 10000.0)),
            "fraction": fraction,
            "scaling": self._scaling(rope),
        }

    def stop_if_any(self) -> None:
        """Raise `UserError` with all problems noted."""
        if self.problems:
            raise UserError(f"{self.where}: slm has no model for {'; '.join(dict.fromkeys(self.problems))}")

    def _scaling(self, rope: ForeignConfig) -> dict[str, Any] | None:
        key = "rope_type" if rope.get("rope_type") is not None else "type"
        kind = rope.get(key, "default")
        if kind == "default":
            return None
        if kind not in ("linear", "llama3", "yarn"):
            rope._note(key, "(known: default, linear, llama3, yarn)")
            return None
        if kind == "linear":
            return {"kind": kind, "factor": rope.number("factor")}
        longest = self.count("max_position_embeddings")
        inside = rope.count("original_max_position_embeddings", longest)
        original = self.count("original_max_position_embeddings", inside)  # as Phi-3 has it, which comes first
        ours: dict[str, Any] = {"kind": kind, "original_max_seq_len": original}
        if kind == "llama3":
            names = ("factor", "low_freq_factor", "high_freq_factor")
            return {**ours, **{name: rope.number(name) for name in names}}
        rope.only("truncate", True)
        ours["factor"] = rope.number("factor", longest / original)
        ours.update({name: rope.number(name) for name in ("beta_fast", "beta_slow") if rope.get(name)})
        return {**ours, "attention_factor": _attention_factor(rope, ours["factor"])}

    def _object(self, key: str) -> ForeignConfig | None:
        """The object called `key`, which notes into the same problems; None if there is none, or it is empty."""
        values = self.get(key, {})
        if not isinstance(values, Mapping):
            self._note(key, "(an object is expected)")
            return None
        return replace(self, values=values, _prefix=f"{key}.") if values else None

    def _above_zero(self, kind: Any, key: str, default: Any, expected: str) -> Any:
        """The value, or None, noted, if it is not `expected`."""
        value = self.get(key, default)
        if isinstance(value, kind) and not isinstance(value, bool) and 0 < value <= sys.float_info.max:
            return value
        if value is None:
            self.problems.append(f"{self._prefix}{key} (missing)")
        else:
            self._note(key, f"({expected} is expected)")
        return None

    def _note(self, key: str, why: str) -> None:
        self.problems.append(f"{self._prefix}{key}={reprlib.repr(self.get(key))} {why}")


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


def _attention_factor(rope: ForeignConfig, factor: float) -> float | None:
    """yarn's factor of cosines and sines, given directly or by DeepSeek's two mscales; None for the paper's."""
    if rope.get("attention_factor") is not None:
        return rope.number("attention_factor")
    if not (rope.get("mscale") and rope.get("mscale_all_dim")):
        return None
    log = 0.1 * math.log(max(factor, 1.0))
    return (log * rope.number("mscale") + 1.0) / (log * rope.number("mscale_all_dim") + 1.0)
