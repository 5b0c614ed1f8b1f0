"""Files that somebody made to do harm: refused by the command that meets it, in one line, soon, in little memory."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.append(str(Path(__file__).parent.parent / "fuzz"))  # the smallest files there are
from small_model_folder import bundle_files, checkpoint_bytes, hugging_face_files

pytestmark = pytest.mark.nightly

MOST_MEGABYTES = 500
MOST_SECONDS = 5
RAN = "ran.txt"
GIGABYTE = 1 << 30


class Evil:
    """Unpickled, it leaves a file behind."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {RAN}",)


def folder_of(files: dict[str, bytes], place: Path, **changed: bytes | str | None) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (place / name).write_bytes(content)
    return place


def change(file: Path, edit: Callable[[Any], None]) -> None:
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


def sparse(file: Path, head: bytes, size: int, tail: bytes = b"") -> None:
    """`size` bytes, of which only the ends are on the disk."""
    with file.open("wb") as out:
        out.write(head)
        out.truncate(size - len(tail))
        out.seek(0, 2)
        out.write(tail)


def header(tensors: dict[str, Any]) -> bytes:
    text = json.dumps(tensors).encode()
    return len(text).to_bytes(8, "little") + text


def own_run(folder: Path, **record: Any) -> None:
    """What looks like a run of slm's, by another hand."""
    folder_of(bundle_files(), folder / "run" / "model")
    (folder / "run" / "checkpoints").mkdir()
    (folder / "run" / "checkpoints" / "last.ckpt").write_bytes(checkpoint_bytes())
    (folder / "run" / "run.json").write_text(
        json.dumps({"overrides": [], "sessions": [{"command": ["slm-train"]}], **record})
    )
    (folder / "evil.py").write_text(f"open({RAN!r}, 'w')")


GENERATE = ("slm-generate", "model_dir=m", "prompt=a", "generation.max_new_tokens=2")
GENERATE_RUN = ("slm-generate", "run=run", "prompt=a", "generation.max_new_tokens=2")
RESUME = ("slm-train", "resume=run")
PREPARE = ("slm-prepare", "tokenizer=byte", "out=store", "num_processes=1")

CASES: dict[str, tuple[Callable[[Path], object], tuple[str, ...], str]] = {}


def case(words: str, *command: str) -> Callable[[Callable[[Path], object]], Callable[[Path], object]]:
    """`words` stand in the one line; the decorated function lays the files."""

    def add(lay: Callable[[Path], object]) -> Callable[[Path], object]:
        CASES[lay.__name__] = (lay, command, words)
        return lay

    return add


# ---- pickles ----


@case("is not a checkpoint that can be read", "slm-train", "resume=last.ckpt")
def pickle_as_checkpoint(folder: Path) -> None:
    (folder / "last.ckpt").write_bytes(pickle.dumps({"state_dict": Evil()}))


@case("is not a checkpoint that can be read", "slm-train", "resume=last.ckpt")
def pickle_in_a_torch_checkpoint(folder: Path) -> None:
    torch.save({"state_dict": Evil()}, folder / "last.ckpt")


@case("is not a checkpoint that can be read (torch did not write it)", "slm-train", "resume=last.ckpt")
def checkpoint_that_is_a_bomb(folder: Path) -> None:
    with zipfile.ZipFile(folder / "last.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(200 << 20))
        archive.writestr("../../slip.txt", b"out of the folder")


@case("a pickle, which could run any code", *GENERATE)
def pickled_weights_of_hugging_face(folder: Path) -> None:
    folder_of(hugging_face_files(), folder / "m")
    (folder / "m" / "model.safetensors").unlink()
    (folder / "m" / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))


@case("a pickle, which could run any code", *GENERATE)
def pickled_pth(folder: Path) -> None:
    pickled_weights_of_hugging_face(folder)
    (folder / "m" / "pytorch_model.bin").rename(folder / "m" / "consolidated.00.pth")


@case("to unpickle is to run what code is in it", *GENERATE)
def pickled_gpt2(folder: Path) -> None:
    (folder / "m").mkdir()
    (folder / "m" / "params.pkl").write_bytes(pickle.dumps(Evil()))


# ---- code by name ----


@case("unknown key", *GENERATE)
def target_in_a_bundles_config(folder: Path) -> None:
    folder_of(bundle_files(), folder / "m")
    change(folder / "m" / "config.json", lambda c: c["model"]["modules"]["transformer"].update(_target_="os.system"))


@case("no model is called 'os.system'", *GENERATE)
def model_name_that_is_a_function(folder: Path) -> None:
    folder_of(bundle_files(), folder / "m")
    change(folder / "m" / "config.json", lambda c: c["model"].update(name="os.system"))


@case("no tokenizer is called 'os.system'", *GENERATE)
def tokenizer_kind_that_is_a_function(folder: Path) -> None:
    folder_of(bundle_files(), folder / "m")
    change(folder / "m" / "slm_tokenizer.json", lambda c: c.update(kind="os.system"))


@case("wants modules imported, which runs their code", *GENERATE_RUN)
def plugin_of_a_run(folder: Path) -> None:
    own_run(folder)
    (folder / "run" / "config.yaml").write_text("plugins: [evil]\n")


@case("its setting +callbacks.x._target_=os.system could run code", *RESUME)
def callback_of_a_resumed_run(folder: Path) -> None:
    own_run(folder, overrides=["+callbacks.x._target_=os.system", f"+callbacks.x.command='touch {RAN}'"])


@case("its setting plugins=[evil] could run code", *RESUME)
def plugin_of_a_resumed_run(folder: Path) -> None:
    own_run(folder, overrides=["plugins=[evil]"])


@case("its setting --config-dir=run/evil could run code", *RESUME)
def config_dir_of_a_resumed_run(folder: Path) -> None:
    own_run(folder, sessions=[{"command": ["slm-train", "--config-dir=run/evil"]}])


@case("could run code", *RESUME)
def hydra_of_a_resumed_run(folder: Path) -> None:
    own_run(folder, overrides=["+hydra.callbacks.x._target_=evil.X"])


@case("could run code", *RESUME)
def flag_among_recorded_settings(folder: Path) -> None:
    own_run(folder, overrides=["--config-path=/tmp"])


@case("could run code", *RESUME)
def forged_seal(folder: Path) -> None:
    own_run(folder, overrides=["plugins=[evil]"], seal="0" * 64)


# ---- lengths that lie, bombs ----


@case("is damaged (its header would be 10,000,000,000 bytes long)", *GENERATE)
def safetensors_header_of_10_gb(folder: Path) -> None:
    folder_of(bundle_files(), folder / "m")
    sparse(folder / "m" / "model.safetensors", (10_000_000_000).to_bytes(8, "little") + b"{", 11 * 10**9)


@case("is damaged", *GENERATE)
def safetensors_shape_that_lies(folder: Path) -> None:
    folder_of(bundle_files(), folder / "m")
    lie = {"a": {"dtype": "F32", "shape": [1 << 20, 1 << 20], "data_offsets": [0, 4]}}
    (folder / "m" / "model.safetensors").write_bytes(header(lie) + bytes(4))


@case("no model is so large", *GENERATE)
def config_of_a_giant(folder: Path) -> None:
    folder_of(bundle_files(), folder / "m")
    change(folder / "m" / "config.json", lambda c: c["model"]["modules"]["transformer"].update(n_layers=10**9))


@case("is damaged", *GENERATE)
def nested_json(folder: Path) -> None:
    folder_of(bundle_files(), folder / "m")
    (folder / "m" / "config.json").write_bytes(b'{"a":' * 1_000_000)


@case("values, more than any model's file", *GENERATE)
def json_of_empty_lists(folder: Path) -> None:
    folder_of(bundle_files(), folder / "m")
    (folder / "m" / "slm_tokenizer.json").write_bytes(b'{"kind": [' + b"[]," * 10_000_000 + b"0]}")


@case("is damaged", *GENERATE)
def json_number_of_a_million_digits(folder: Path) -> None:
    folder_of(bundle_files(), folder / "m")
    (folder / "m" / "config.json").write_bytes(b'{"format": ' + b"9" * 1_000_000 + b"}")


@case("is longer than", *GENERATE)
def json_of_a_gigabyte(folder: Path) -> None:
    folder_of(hugging_face_files(), folder / "m")
    sparse(folder / "m" / "tokenizer.json", b'{"a": "', GIGABYTE, b'"}')


@case("is longer than", *GENERATE)
def chat_template_of_a_gigabyte(folder: Path) -> None:
    folder_of(hugging_face_files(), folder / "m")
    sparse(folder / "m" / "chat_template.jinja", b"{% if true %}", GIGABYTE)


@case("is damaged (it has aliases)", *GENERATE_RUN)
def yaml_of_a_billion_laughs(folder: Path) -> None:
    own_run(folder)
    lines = ["a0: &a0 [lol, lol]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))]
    (folder / "run" / "config.yaml").write_text("\n".join(lines))


@case("is damaged", *GENERATE_RUN)
def nested_yaml(folder: Path) -> None:
    own_run(folder)
    (folder / "run" / "config.yaml").write_text("a: " + "[" * 100_000)


@case("is longer than data.max_record_bytes", *PREPARE, "data=jsonl", "data.path=a.jsonl")
def line_of_a_gigabyte(folder: Path) -> None:
    sparse(folder / "a.jsonl", b'{"text": "', GIGABYTE, b'"}\n')


@case("grows 250-fold and on", *PREPARE, "data=text", "data.path=a.txt.gz")
def text_that_is_a_bomb(folder: Path) -> None:
    (folder / "a.txt.gz").write_bytes(bomb())


@case("grows 250-fold and on", *PREPARE, "data=text", "data.path=a.zip")
def archive_that_is_a_bomb(folder: Path) -> None:
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", b"a" * (200 << 20))


@case("is longer than data.max_record_bytes", *PREPARE, "data=csv", "data.path=a.csv.gz")
def quote_that_is_a_bomb(folder: Path) -> None:
    (folder / "a.csv.gz").write_bytes(bomb(b'text\n"'))


@case("is longer than data.max_record_bytes", *PREPARE, "data=jsonl", "data.path=a.jsonl.gz")
def line_that_is_a_bomb(folder: Path) -> None:
    (folder / "a.jsonl.gz").write_bytes(bomb(b'{"text": "'))


@case("is longer than", "slm-generate", "model_dir=m", "prompts=p.jsonl")
def prompts_of_a_gigabyte(folder: Path) -> None:
    folder_of(bundle_files(), folder / "m")
    sparse(folder / "p.jsonl", b'{"prompt": "', GIGABYTE, b'"}')


@case("takes more than 512 MiB to read", *PREPARE, "data=parquet", "data.path=a.parquet")
def parquet_page_that_is_said_to_be_long(folder: Path) -> None:
    pytest.importorskip("pyarrow")
    found = Path(__file__).parent.parent / "fuzz" / "corpus" / "parquet" / "page_of_a_gigabyte"
    shutil.copy(found, folder / "a.parquet")


@case("is longer than data.max_record_bytes", *PREPARE, "data=parquet", "data.path=a.parquet")
def parquet_page_that_is_a_bomb(folder: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").table({"text": ["a" * (40 << 20)]})
    parquet.write_table(table, folder / "a.parquet", compression="zstd", use_dictionary=False, write_statistics=False)


def bomb(head: bytes = b"") -> bytes:
    """200 MiB in 200 KiB."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=9) as packed:
        packed.write(head)
        for _ in range(200):
            packed.write(b"a" * (1 << 20))
    return out.getvalue()


# ---- names that lead out of a folder ----


@case("names a shard outside its folder", *GENERATE)
def shard_outside_the_folder(folder: Path) -> None:
    folder_of(hugging_face_files(), folder / "m")
    (folder / "m" / "model.safetensors").unlink()
    index = {"weight_map": {"transformer.wte.weight": "../../../etc/passwd"}}
    (folder / "m" / "model.safetensors.index.json").write_text(json.dumps(index))


@case("is damaged", *GENERATE)
def weights_that_are_a_link_elsewhere(folder: Path) -> None:
    folder_of(bundle_files(), folder / "m")
    (folder / "m" / "model.safetensors").unlink()
    (folder / "m" / "model.safetensors").symlink_to("/etc/passwd")


# ---- chat templates ----

TEMPLATES = {
    "range": ("{% for i in range(10**9) %}a{% endfor %}", "refuses this"),
    "classes": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "refuses this"),
    "system": ("{{ cycler.__init__.__globals__.os.system('touch " + RAN + "') }}", "refuses this"),
}  # fmt: skip


def chat_template(source: str) -> Callable[[Path], None]:
    def lay(folder: Path) -> None:
        folder_of(hugging_face_files(), folder / "m")
        (folder / "m" / "chat_template.jinja").write_text(source)

    return lay


CASES.update(
    {f"template_{name}": (chat_template(source), GENERATE, words) for name, (source, words) in TEMPLATES.items()}
)


@pytest.fixture(scope="module")
def commands() -> Iterator[subprocess.Popen[str]]:
    cores = {"OMP_NUM_THREADS": "1", "SLM_NATIVE": "0", "CUDA_VISIBLE_DEVICES": ""}
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "forking_commands.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **cores},
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="measured by forks, which this system has not")
@pytest.mark.parametrize("name", CASES)
def test_is_refused(name: str, commands: subprocess.Popen[str], tmp_path: Path) -> None:
    """Status 2, one line, nothing run, nothing written outside, under 500 MB with torch, under 5 s of the processor."""
    lay, arguments, words = CASES[name]
    folder = tmp_path / "here"
    folder.mkdir()
    lay(folder)
    assert commands.stdin is not None and commands.stdout is not None  # noqa: PT018
    commands.stdin.write(json.dumps({"folder": str(folder), "arguments": arguments}) + "\n")
    commands.stdin.flush()
    outcome = json.loads(commands.stdout.readline())
    assert outcome["status"] == 2, outcome["err"]
    assert words in outcome["err"]
    assert "Traceback" not in outcome["err"]
    assert len([line for line in outcome["err"].splitlines() if line.startswith("slm-")]) == 1, outcome["err"]
    assert not list(tmp_path.rglob(RAN))
    assert {entry.name for entry in tmp_path.iterdir()} == {"here"}
    assert outcome["megabytes"] < MOST_MEGABYTES
    assert outcome["seconds"] < MOST_SECONDS
    shutil.rmtree(folder)
