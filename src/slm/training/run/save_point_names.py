"""The states that a run kept at save points, by the names under which they are published. Imports no torch."""

from pathlib import Path

from slm.errors import UserError
from slm.training.run.checkpoint_files import CHECKPOINTS, save_point_files, word_point_files
from slm.training.save_points import in_short


def revisions_of(run: Path) -> dict[str, str]:
    """Revision -> name of the checkpoint of the run in folder `run`, ascending: ``chck_1M`` of a million words (the
    BabyLM challenge's names), ``step100`` of steps (Pythia's). `UserError` where there is none."""
    folder = run / CHECKPOINTS
    words = {f"chck_{in_short(words)}": file.stem for words, file in word_point_files(folder).items()}
    steps = {f"step{step}": file.stem for step, file in save_point_files(folder).items()}
    if not words and not steps:
        raise UserError(
            f"to=revisions: '{run}' is no run that kept states at save points; train one with trainer.save_at=words "
            "(or log2, or a list of steps), or take to=hf"
        )
    return {**steps, **words}
