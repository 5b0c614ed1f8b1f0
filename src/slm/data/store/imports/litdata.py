"""litdata's folders of chunks, as litgpt's pretraining reads them: ``index.json`` tells what each chunk holds."""

from pathlib import Path
from typing import Any

import numpy as np

from slm.data.store.imports.id_array import IdArray
from slm.errors import UserError
from slm.files.reading import read_json_object

INDEX = "index.json"
# its numbers of types, of which several stand for one
_TORCH = {11: "u1", 12: "i1", 13: "i2", 14: "i2", 15: "i4", 16: "i4", 17: "i8", 18: "i8", 20: "u2"}
_NUMPY = {0: "i1", 1: "i2", 2: "i4", 3: "i8", 4: "u1", 5: "u2", 6: "u4", 7: "u8"}
_DTYPES = {"no_header_tensor": _TORCH, "no_header_numpy": _NUMPY}


def is_litdata(folder: Path) -> bool:
    """Whether its index lists chunks."""
    index = folder / INDEX
    return index.is_file() and {"chunks", "config"} <= read_json_object(index).keys()


def litdata_ids(folder: Path) -> list[IdArray]:
    """Its chunks, in the index's order. `UserError`: a chunk is missing or damaged, or they hold no running ids."""
    index = read_json_object(folder / INDEX)
    try:
        dtype = _dtype(index["config"])
        chunks = [(folder / Path(chunk["filename"]).name, int(chunk["dim"] or 0)) for chunk in index["chunks"]]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(f"data.path: '{folder / INDEX}' is damaged ({error!r}); make the chunks again") from None
    if dtype is None or not all(length for _, length in chunks):
        raise UserError(
            f"data.path: the chunks of '{folder}' (litdata) are no running token ids, not compressed: write them with "
            "item_loader=TokensLoader() and compression=None, one tensor of ids a document"
        )
    return [_chunk(file, length, np.dtype(f"<{dtype}")) for file, length in chunks]


def _dtype(config: dict[str, Any]) -> str | None:
    """Of running ids, as they are; None for all else."""
    if config.get("compression") or config.get("encryption") or len(config["data_format"]) != 1:
        return None
    serializer, _, number = config["data_format"][0].partition(":")
    return _DTYPES.get(serializer, {}).get(int(number or -1))


def _chunk(file: Path, length: int, dtype: np.dtype[Any]) -> IdArray:
    """A chunk: the number of its items, where each begins and the last one ends (uint32), and their ids."""
    if not file.is_file():
        raise UserError(f"data.path: '{file}' is missing, which '{INDEX}' names; fetch or make it again")
    with file.open("rb") as content:
        n_items = int.from_bytes(content.read(4), "little")
        table = content.read(4 * (n_items + 1)) if 4 * n_items < file.stat().st_size else b""
    places = np.frombuffer(table[: len(table) // 4 * 4], "<u4").astype(np.int64)
    begin = 4 * (n_items + 2)
    ends = (places[1:] - begin) // dtype.itemsize
    told = len(places) == n_items + 1 and places[0] == begin and (np.diff(places) >= 0).all()
    if not told or ends[-1:].tolist() != [length]:
        raise UserError(f"data.path: '{file}' is damaged: it has not the items that '{INDEX}' tells; make it again")
    return IdArray(file, "litdata", dtype, begin, length, np.unique(ends[ends > 0]))
