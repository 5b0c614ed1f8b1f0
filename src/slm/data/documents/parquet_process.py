"""A process that reads Parquet files for this one, in no more memory than it is given (why: docs/architecture.md)."""

import atexit
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from slm.data.documents.compression import BrokenFileError
from slm.data.documents.fields import column_of
from slm.errors import UserError

LEAST_MEMORY = 256 << 20
MEMORY_OF_RECORDS = 16  # bytes for each of the longest record: as Arrow has it, as Python does, and a page of several
Rows = list[dict[str, Any] | None]
_BATCH_BYTES = 1 << 20
_MOST_ROWS = 1024
_MOST_ITEMS = 100_000  # row groups, columns: Arrow takes a kB for each that a file says it has
_TEXTS = ("string", "large_string", "string_view")
_ENVIRONMENT = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",  # the others reserve address space by the gigabyte
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(4 << 20),  # larger blocks leave no holes behind, whatever was freed before
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
}


def ask(function: str, file: Path, *arguments: Any, memory: int) -> Iterator[Any]:
    """What `groups` or `rows` gives or raises, called in the process, which is started when there is none at rest.
    `BrokenFileError` if the file is damaged, or takes more than `memory` bytes."""
    process = _at_rest.pop() if _at_rest else _started()
    assert process.stdin is not None and process.stdout is not None  # noqa: PT018
    try:
        pickle.dump((function, file, arguments, memory), process.stdin)
        process.stdin.flush()
        while (answer := pickle.load(process.stdout)) is not None:
            if isinstance(answer, Exception):
                raise answer
            yield answer
        _at_rest.append(process)
    except (EOFError, BrokenPipeError, pickle.UnpicklingError):
        words = f"'{file}' ended the process that read it (status {process.wait()})"
        raise BrokenFileError("unreadable", words) from None
    finally:
        if process not in _at_rest:  # it has answered with an error, or whoever asked wants no more
            _end(process)


def _started() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", "from slm.data.documents.parquet_process import main; main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        start_new_session=True,  # Ctrl-C is for this process
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def _end_all() -> None:
    while _at_rest:
        _end(_at_rest.pop())


_at_rest: list[subprocess.Popen[bytes]] = []
atexit.register(_end_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_at_rest.clear)  # they are the parent's


def main() -> None:
    """The program: answers one question after another, until its parent ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _arrow().set_cpu_count(1)
    at_first = _address_space()
    with suppress(EOFError):
        while True:
            function, file, arguments, memory = pickle.load(sys.stdin.buffer)
            _limit(at_first, memory)
            for answer in _answers(function, file, arguments, memory):
                answers.write(answer)
                answers.flush()


def _answers(function: str, file: Path, arguments: Sequence[Any], memory: int) -> Iterator[bytes]:
    """Pickled: all that `function` gives, and None or an error. They are pickled here, since that takes memory too."""
    known: dict[str, Callable[..., Iterator[Any]]] = {"groups": groups, "rows": rows}
    end: Exception | None = None
    try:
        for found in known[function](file, *arguments):
            yield pickle.dumps(found)
    except UserError as error:
        end = error
    except MemoryError:
        of_record = f"{MEMORY_OF_RECORDS} times data.max_record_bytes"
        end = BrokenFileError("too_long", f"'{file}' takes more than {memory >> 20:,} MiB to read, {of_record}")
    except (OSError, ValueError, _arrow().ArrowException) as error:
        end = BrokenFileError("unreadable", f"'{file}' is damaged ({str(error).partition(chr(10))[0]})")
    yield pickle.dumps(end)


def _limit(at_first: int | None, memory: int) -> None:
    if at_first is not None:
        import resource

        with suppress(ValueError, OverflowError):  # this user's processes have less, or the number is beyond all memory
            resource.setrlimit(resource.RLIMIT_AS, (at_first + memory, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _address_space() -> int | None:
    """Bytes that this process has of it; None where the system does not hold processes to a size."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def groups(file: Path) -> Iterator[list[int]]:
    """Bytes of each row group, all at once."""
    metadata = _opened(file).metadata
    yield [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]


def rows(file: Path, start: int, end: int, columns: list[str] | None, longest: int) -> Iterator[tuple[int, Rows]]:
    """Rows of the row groups from `start` up to `end`, some at a time, with the number of the first; None for one of
    more than `longest` bytes. `UserError`: there is no such column. `MemoryError`: not even one row can be held."""
    table = _opened(file)
    there = table.schema_arrow.names
    if columns is not None:
        texts = [name for name, kind in zip(there, table.schema_arrow.types, strict=True) if str(kind) in _TEXTS]
        columns = [column_of(name, there, texts, str(file)) for name in columns]
    if not there:  # Arrow makes as many rows as the file says there are
        raise ValueError("it has no columns")
    number = sum(table.metadata.row_group(group).num_rows for group in range(start))
    for group in range(start, end):
        for found in _of_group(table, group, columns, longest):
            yield number, found
            number += len(found)


def _of_group(table: Any, group: int, columns: list[str] | None, longest: int) -> Iterator[Rows]:
    about, given = table.metadata.row_group(group), 0
    at_once = max(1, min(_MOST_ROWS, _BATCH_BYTES * about.num_rows // max(1, about.total_byte_size)))
    try:
        for found in _rows(table, group, columns, at_once, longest):
            yield found
            given += len(found)
        return
    except MemoryError:
        if at_once == 1:
            raise
    yield from islice(_rows(table, group, columns, 1, longest), given, None)  # long strings, repeated


def _rows(table: Any, group: int, columns: list[str] | None, at_once: int, longest: int) -> Iterator[Rows]:
    for batch in table.iter_batches(at_once, row_groups=[group], columns=columns, use_threads=False):
        if batch.nbytes <= min(longest, 2 * _BATCH_BYTES):
            yield batch.to_pylist()
        else:
            for i in range(batch.num_rows):
                row = batch.slice(i, 1)
                yield row.to_pylist() if row.nbytes <= longest else [None]


def _arrow() -> Any:
    import_module("pyarrow.parquet")
    return import_module("pyarrow")


def _opened(file: Path) -> Any:
    return _arrow().parquet.ParquetFile(
        file, buffer_size=_BATCH_BYTES, pre_buffer=False, thrift_container_size_limit=_MOST_ITEMS
    )
