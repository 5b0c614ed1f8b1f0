"""A process that reads a TensorFlow checkpoint for `slm.weights.openai_release` and ends with it. Answers are lines of
JSON: first ``{"variables": {name: [dtype, shape]}}``, then to each name asked for (a line of JSON, too)
``{"bytes": n}`` and the bytes themselves. ``{"error": …}`` is the last."""

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO

from slm.files.reading import bounded_text

CHECKPOINT_FILE = "checkpoint"
_LONGEST_STATE = 64 << 10  # bytes of ``checkpoint``; OpenAI's has 77


def main() -> None:
    """The program: its argument is the folder, answers go where stdout went."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what TensorFlow prints is no answer
    try:
        _serve(Path(sys.argv[1]), answers)
    except Exception as error:  # TensorFlow raises OpError, IndexError, ValueError, RuntimeError, …
        _say(answers, b"", error=" ".join(str(error).split()))


def _serve(folder: Path, answers: BinaryIO) -> None:
    import numpy as np

    tensorflow = importlib.import_module("tensorflow")
    prefix = _prefix(tensorflow, folder)
    files = [prefix.with_name(f"{prefix.name}.index"), *folder.glob(f"{prefix.name}.data-*-of-*")]
    for file in files:
        if not file.is_file():  # TensorFlow would wait for a pipe, and take a file of its first format for an index
            raise ValueError(f"{file.name} is missing")
    # of all ways to the same reader the one that takes a prefix and nothing else: a folder is no checkpoint here
    reader = tensorflow.compat.v1.train.NewCheckpointReader(str(prefix))
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    elements = {name: int(np.prod(shape, dtype=object)) for name, shape in shapes.items()}
    if sum(elements[name] * dtypes[name].size for name in shapes) > sum(file.stat().st_size for file in files[1:]):
        raise ValueError("its variables are larger than its data")  # ahead of taking memory for them
    _say(answers, b"", variables={name: [dtypes[name].name, shapes[name]] for name in sorted(shapes)})
    for name in map(json.loads, sys.stdin):
        array = np.ascontiguousarray(reader.get_tensor(name))
        _say(answers, array.reshape(-1).view(np.uint8).data, bytes=array.nbytes)


def _say(answers: BinaryIO, content: bytes | memoryview, **line: Any) -> None:
    answers.write(json.dumps(line).encode() + b"\n")
    answers.write(content)
    answers.flush()


def _prefix(tensorflow: Any, folder: Path) -> Path:
    """Where the newest checkpoint's files lie, less their endings: in `folder`, wherever they once were."""
    bounded_text(folder / CHECKPOINT_FILE, _LONGEST_STATE)
    state = tensorflow.train.get_checkpoint_state(str(folder))
    name = Path(state.model_checkpoint_path).name if state is not None else ""
    if not name:
        raise ValueError(f"{CHECKPOINT_FILE} names no files")
    return folder / name
