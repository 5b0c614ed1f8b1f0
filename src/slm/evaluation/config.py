"""How a finished model is scored, as `slm-evaluate` is told. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import PlainValidator

from slm.data.config import CONVERSATIONS, PREFERENCES, UNPAIRED, CorpusConfig
from slm.errors import UserError
from slm.schema import Count, Text


def _how_many(value: object) -> int | Literal["all"]:
    if value == "all" or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise ValueError(f"should be a number, or all; got {value!r}")


@dataclass(frozen=True)
class EvaluationConfig:
    """The settings that `conf/evaluate.yaml` tells of."""

    split: Literal["train", "val", "test", "all"]
    answers: Annotated[int | Literal["all"], PlainValidator(_how_many)]
    out: Text | None
    reference: Text | None
    eos_token: Text | None
    batch_size: Count
    precision: str | int
    quantize: Literal["int8", "int4"] | None

    @property
    def answers_file(self) -> Path | None:
        """`out`; raises `UserError` if it cannot be written anew."""
        if self.out is None:
            return None
        file = Path(self.out).expanduser()
        if self.answers == 0:
            raise UserError("out is where answers to questions go; say how many: answers=all, or a number")
        if file.suffix not in (".json", ".jsonl"):
            raise UserError(f"out: '{file}' should end in .jsonl or .json")
        if file.exists():
            raise UserError(f"out: '{file}' is there already and is left as it is; give another name")
        if not file.parent.is_dir():
            raise UserError(f"out: there is no folder '{file.parent}'; make it, or name a file elsewhere")
        return file

    def check(self, corpus: CorpusConfig) -> None:
        """Raise `UserError` for a setting that nothing would read on such data."""
        kind = corpus.kind
        if self.answers != 0 and kind != CONVERSATIONS:
            raise UserError(f"answers: only conversations (data=instructions) hold questions; data.kind is {kind}")
        if self.split == "test" and kind in (CONVERSATIONS, PREFERENCES, UNPAIRED):
            raise UserError(f"split=test: of data={kind} give the file itself: data.path=… split=all")
        if self.eos_token is not None and kind in (CONVERSATIONS, PREFERENCES, UNPAIRED):
            raise UserError(f"eos_token: it ends running text alone; data.kind is {kind}: leave it out")
        if self.reference is not None and kind not in (PREFERENCES, UNPAIRED):
            raise UserError(
                f"reference: only pairs and answers with labels (data=pairs, unpaired) have one; data.kind is {kind}"
            )
