"""A TensorFlow checkpoint: its tensors come as they are, and what is damaged is said in a line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from slm.errors import UserError
from slm.weights.openai_release import tensorflow_checkpoint

pytestmark = pytest.mark.nightly

DATA, INDEX = "model.ckpt.data-00000-of-00001", "model.ckpt.index"
Save = Callable[[Path, Mapping[str, Any]], None]


@pytest.fixture
def copy(gpt2_tf_folder: tuple[Path, Any], tmp_path: Path) -> Path:
    """The folder, to be damaged."""
    return Path(shutil.copytree(gpt2_tf_folder[0], tmp_path / "124M"))


@pytest.mark.filterwarnings("error")
def test_every_variable_comes_as_it_was_saved(gpt2_tf_folder: tuple[Path, dict[str, np.ndarray[Any, Any]]]) -> None:
    folder, variables = gpt2_tf_folder
    source = tensorflow_checkpoint(folder)
    assert source.shapes == {name: values.shape for name, values in variables.items()}
    assert source.dtypes == dict.fromkeys(variables, torch.float32)
    for name, values in variables.items():
        assert torch.equal(source.read(name), torch.from_numpy(values))
    source.read("model/wte").zero_()
    assert source.read("model/wte").all(), "the memory is the caller's"


@pytest.mark.filterwarnings("error")
def test_other_types_come_as_they_are(save_tf_checkpoint: Save, tmp_path: Path) -> None:
    """An optimizer's variables too: it is for the table of names to say that they are not the model's."""
    values = torch.tensor([1.5, -3.0, 1e30])
    bfloat16 = pytest.importorskip("ml_dtypes", reason="comes with TensorFlow").bfloat16
    half = values.numpy().astype(bfloat16)
    save_tf_checkpoint(tmp_path, {"model/wte": half, "global_step": np.int64(7), "double": np.array([0.1])})
    source = tensorflow_checkpoint(tmp_path)
    assert source.shapes == {"double": (1,), "global_step": (), "model/wte": (3,)}
    assert torch.equal(source.read("model/wte"), values.bfloat16())
    assert source.read("global_step") == torch.tensor(7)
    assert source.read("double").dtype == source.dtypes["double"] == torch.float64


def test_variables_that_are_no_numbers_are_refused(save_tf_checkpoint: Save, tmp_path: Path) -> None:
    save_tf_checkpoint(tmp_path, {"words": np.array([b"the"], dtype=object)})
    with pytest.raises(UserError, match="'words' is string, read are float16"):
        tensorflow_checkpoint(tmp_path)


def cut(file: Path, to: int) -> None:
    file.write_bytes(file.read_bytes()[:to])


def flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 0xFF
    file.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "data cut short": lambda folder: cut(folder / DATA, (folder / DATA).stat().st_size - 4),
    "data empty": lambda folder: cut(folder / DATA, 0),
    "data missing": lambda folder: (folder / DATA).unlink(),
    "a bit of the data": lambda folder: flip(folder / DATA, 1000),
    "index cut short": lambda folder: cut(folder / INDEX, 100),
    "index empty": lambda folder: cut(folder / INDEX, 0),
    "index missing": lambda folder: (folder / INDEX).unlink(),
    "a bit of the index": lambda folder: flip(folder / INDEX, 40),
    "checkpoint empty": lambda folder: cut(folder / "checkpoint", 0),
    "checkpoint of no form": lambda folder: (folder / "checkpoint").write_text("model.ckpt"),
    "checkpoint no text": lambda folder: (folder / "checkpoint").write_bytes(b"\xff\xfe\x00"),
    "checkpoint of another": lambda folder: (folder / "checkpoint").write_text('model_checkpoint_path: "x"'),
    "checkpoint without end": lambda folder: (folder / "checkpoint").write_text("#" * (1 << 17)),
    "noise for an index": lambda folder: (folder / INDEX).write_bytes(np.random.default_rng(0).bytes(1000)),
    "an index of the first format": lambda folder: (folder / INDEX).rename(folder / "model.ckpt"),
}
"""Of the last TensorFlow takes ``model.ckpt`` for a file of 2015, unchecked."""


def test_a_moved_folder_is_read_where_it_is(copy: Path, gpt2_tf_folder: tuple[Path, Any]) -> None:
    """TensorFlow's Saver writes the absolute path, which after a copy means the first folder's weights, or nothing."""
    first = gpt2_tf_folder[0] / "model.ckpt"
    for place in (first, "/nowhere/model.ckpt"):
        (copy / "checkpoint").write_text(f'model_checkpoint_path: "{place}"')
        _read_all(tensorflow_checkpoint(copy))
    (copy / "checkpoint").write_text(f'model_checkpoint_path: "{first}"')
    (copy / DATA).unlink()
    with pytest.raises(UserError, match="124M' is damaged"):
        _read_all(tensorflow_checkpoint(copy))


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_said_in_a_line(copy: Path, damage: Callable[[Path], object]) -> None:
    """TensorFlow raises OpError, IndexError, ValueError or UnicodeDecodeError, at opening or not before the read."""
    damage(copy)
    _refused(copy)


def _refused(folder: Path, words: str = ".+") -> None:
    with pytest.raises(UserError, match=rf"124M' is damaged or not whole \({words}\); fetch it again") as told:
        _read_all(tensorflow_checkpoint(folder))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", [INDEX, DATA])
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes of a name here")
def test_a_pipe_is_not_waited_for(copy: Path, name: str) -> None:
    (copy / name).unlink()
    os.mkfifo(copy / name)
    _refused(copy, f"{name} is missing")


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ("os.abort()", "TensorFlow's reader ended with SIGABRT"),
        ("os.kill(os.getpid(), 9)", "TensorFlow's reader ended with SIGKILL"),
        ("os._exit(3)", "TensorFlow's reader ended with status 3"),
        ("raise MemoryError('no memory')", "no memory"),
    ],
)
@pytest.mark.parametrize("when", ["at opening", "at the second variable"])
def test_the_end_of_its_process_is_said_in_a_line(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, words: str, when: str
) -> None:
    """As a `CHECK` in C++ ends it, or a system out of memory: by a module in TensorFlow's place, whose reader does."""
    first = "" if when == "at opening" else "if done:\n            "
    (tmp_path / "tensorflow.py").write_text(STAND_IN.format(opening=end if not first else "pass", reading=first + end))
    monkeypatch.syspath_prepend(tmp_path)
    _refused(copy, words)


STAND_IN = """
import os, types
import numpy as np
done = []
class Reader:
    def __init__(self, prefix):
        {opening}
    def get_variable_to_shape_map(self):
        return {{"a": [2], "b": [2]}}
    def get_variable_to_dtype_map(self):
        return dict.fromkeys("ab", types.SimpleNamespace(name="float32", size=4))
    def get_tensor(self, name):
        {reading}
        done.append(name)
        return np.ones(2, np.float32)
train = types.SimpleNamespace(
    get_checkpoint_state=lambda folder: types.SimpleNamespace(model_checkpoint_path="model.ckpt")
)
compat = types.SimpleNamespace(v1=types.SimpleNamespace(train=types.SimpleNamespace(NewCheckpointReader=Reader)))
"""


def _read_all(source: tensorflow_checkpoint) -> None:
    for name in source.shapes:
        source.read(name)


@pytest.mark.parametrize("pickle", ["params.pkl", "params.pt", "pytorch_model.bin"])
def test_a_pickled_dump_is_refused_with_the_command_that_helps(tmp_path: Path, pickle: str) -> None:
    (tmp_path / pickle).write_bytes(b"")
    with pytest.raises(UserError, match=rf"{pickle}.*slm-convert source=gpt2-124m format=gpt2_tf to=slm out=") as told:
        tensorflow_checkpoint(tmp_path)
    assert "\n" not in str(told.value)


def test_a_folder_without_a_checkpoint_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no TensorFlow checkpoint: checkpoint is missing"):
        tensorflow_checkpoint(tmp_path)
    with pytest.raises(UserError, match="there is no folder"):
        tensorflow_checkpoint(tmp_path / "nowhere")


def test_tensorflow_is_never_in_our_process(gpt2_tf_folder: tuple[Path, Any]) -> None:
    """It would take the whole memory of a GPU with its first device, and talks while it is loaded."""
    code = f"""
import sys, pathlib, torch
from slm.weights.openai_release import tensorflow_checkpoint
source = tensorflow_checkpoint(pathlib.Path({str(gpt2_tf_folder[0])!r}))
source.read("model/wte")
assert "tensorflow" not in sys.modules
process = source.stored["model/wte"].read.func.__self__.process
del source
assert process.returncode is not None
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
