"""``+sweep=ladder``: runs of several sizes, each with the width, batch and steps of its depth."""

from collections.abc import Sequence

from slm.study.ladder.rules import RULES

_DIAL = "model.modules.transformer.n_layers"
_RUNGS = f"{_DIAL}=2,3,4,5,6"
_SWEEP, _SIZE = "sweep=ladder", "size=ladder"


def with_rungs(arguments: Sequence[str]) -> list[str]:
    """A command line with ``sweep=ladder`` written out: the choice `size`, and depths unless some are typed."""
    words = [argument.lstrip("+") for argument in arguments]
    if _SWEEP not in words:
        return list(arguments)
    rest = [argument for argument, word in zip(arguments, words, strict=True) if word != _SWEEP]
    depths = [] if any(argument.startswith(f"{_DIAL}=") for argument in rest) else [_RUNGS]
    return [*rest, _SIZE, *depths]


def register_rules() -> None:
    """Let YAML ask for a rule: ``${ladder:width,4}``."""
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("ladder", _rule, replace=True)


def _rule(name: str, *numbers: int) -> int:
    return RULES[name](*numbers)
