"""Text in the colours of how likely the model finds it, where a terminal has colours."""

from __future__ import annotations

import math
from typing import IO

from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style

from slm.generation.completion import Piece

# From this probability on. Blue to red, which most who see few colours tell apart; the least likely is underlined, too.
_LEVELS = {0.0: "bold underline #d7005f", 0.01: "#d75f00", 0.1: "#af8700", 0.5: "#5f87af", 0.9: "#0087ff"}
_NAMES = {"standard": "STANDARD", "256": "EIGHT_BIT", "truecolor": "TRUECOLOR", "windows": "WINDOWS"}


class ProbabilityColours:
    """Colours for what is written to `out`; none where that is no terminal, or ``NO_COLOR`` is set."""

    def __init__(self, out: IO[str]) -> None:
        console = Console(file=out)
        name = None if console.no_color or not console.is_terminal else console.color_system
        self._system = None if name is None else ColorSystem[_NAMES[name]]
        self._styles = {least: Style.parse(style) for least, style in _LEVELS.items()}
        self._waiting: list[float] = []  # of tokens whose text has not come yet

    @property
    def has_any(self) -> bool:
        return self._system is not None

    @property
    def legend(self) -> str:
        """What each colour means."""
        bounds = [*_LEVELS][1:]
        names = [f"below {bounds[0]:g}", *(f"from {bound:g}" for bound in bounds)]
        return "probability " + " ".join(self.painted(name, p) for name, p in zip(names, _LEVELS, strict=True))

    def of(self, piece: Piece, text: str) -> str:
        """`text`, which is what of `piece` is to be shown; of a piece that took several tokens the least likely's."""
        if piece.token is not None and piece.token.logprob is not None:
            self._waiting.append(piece.token.logprob)
        if not piece.text:
            return text
        logprobs, self._waiting = self._waiting, []
        return self.painted(text, math.exp(min(logprobs))) if logprobs else text

    def painted(self, text: str, probability: float) -> str:
        """`text` in the colour of its `probability`, but for white space at its ends."""
        level = max(least for least in _LEVELS if least <= probability or least == 0)
        inside = text.strip()
        if self._system is None or not inside:
            return text
        begins = text.index(inside)
        painted = self._styles[level].render(inside, color_system=self._system)
        return text[:begins] + painted + text[begins + len(inside) :]
