"""Which documents are trained on, which are held out for validation, and which are left out."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from slm.data.config import Filters
from slm.data.documents.source import Document
from slm.data.faults import Faults
from slm.data.store.scan import Unit
from slm.errors import UserError

DROPPED, TRAIN, VAL = 0, 1, 2
SPLIT_NAMES = {TRAIN: "train", VAL: "val"}
_REASONS = {1: "empty", 2: "too_short", 3: "too_long", 4: "duplicates"}
_EMPTY, _TOO_SHORT, _TOO_LONG, _DUPLICATE = _REASONS


@dataclass(frozen=True)
class Chosen:
    """What becomes of the documents of one unit."""

    codes: np.ndarray  # (n,) uint8, `DROPPED`, `TRAIN` or `VAL` for each document (or part of one)
    chars: np.ndarray  # (n,) their lengths when they were scanned
    sole: bool = False  # they are parts of the only document there is: no end of text belongs after it
    cut: tuple[int, int] | None = None  # (index, characters): so much of that part is trained on, the rest held out

    def of(self, unit: Unit, faults: Faults) -> Iterator[tuple[str, Document]]:
        """Read `unit` again; each document that is kept, with its split. `UserError` if it is not what was scanned."""
        documents = iter(unit.read(faults))
        for index, (code, chars) in enumerate(zip(self.codes.tolist(), self.chars.tolist(), strict=True)):
            piece, document = next(documents, (unit.pieces[-1], None))
            if document is None or len(document.text) != chars:
                raise UserError(f"data.path: '{piece.source.place}' changed while it was read; do it again")
            if code != DROPPED:
                yield from self._parts(index, SPLIT_NAMES[code], document)

    def _parts(self, index: int, split: str, document: Document) -> Iterator[tuple[str, Document]]:
        if self.cut is None or self.cut[0] != index:
            yield split, replace(document, ends=False) if self.sole else document
        else:  # no text ends here, and none begins
            place = self.cut[1]
            yield "train", replace(document, text=document.text[:place], ends=False)
            yield "val", replace(document, text=document.text[place:], begins=False, ends=False)


@dataclass(frozen=True)
class Selection:
    """What becomes of all documents."""

    units: list[Chosen]
    documents: dict[str, int]  # in each split; a single one that is cut is in both
    dropped: dict[str, int]  # left out, by reason
    n_bytes: int  # of UTF-8 text that is kept


def select(records: Sequence[np.ndarray], filters: Filters, val_fraction: float) -> Selection:
    """Drop what `filters` say, and hold out `val_fraction` of the characters of what is left: of several documents,
    whole ones; of a single one, its last part. `records` are those of each unit, of dtype
    `slm.data.store.scan.RECORD`. `UserError` if nothing is left, or a part would be empty."""
    starts = np.flatnonzero(_column(records, "begins"))  # a document is all from its first part to the next first one
    part_chars = _column(records, "chars")
    chars = np.add.reduceat(part_chars, starts, dtype=np.int64) if len(starts) else np.empty(0, np.int64)
    dropped = np.zeros(len(chars), np.uint8)  # why, a key of _REASONS
    dropped[chars > (filters.max_chars or np.inf)] = _TOO_LONG
    dropped[chars < filters.min_chars] = _TOO_SHORT
    dropped[chars == 0] = _EMPTY
    if filters.dedupe:
        left = np.flatnonzero(dropped == 0)
        contents = _contents(_column(records, "content"), starts)[left].view("S16")
        dropped[left] = _DUPLICATE
        dropped[left[np.unique(contents, return_index=True)[1]]] = 0  # of equal ones, the first stays
    kept = np.flatnonzero(dropped == 0)
    reasons = {reason: int((dropped == code).sum()) for code, reason in _REASONS.items()}
    if not len(kept):
        told = ", ".join(f"{reason.replace('_', ' ')}: {count:,}" for reason, count in reasons.items() if count)
        raise UserError(f"data: no document is left ({told}); change data.min_chars and data.max_chars")
    codes = np.zeros(len(starts), np.uint8)
    codes[kept] = TRAIN
    if len(kept) > 1:
        codes[kept[hold_out(_column(records, "name")[starts[kept]], chars[kept], val_fraction)]] = VAL
    counts = {name: int((codes == code).sum()) for code, name in SPLIT_NAMES.items()}
    of_parts = np.repeat(codes, np.diff(starts, append=len(part_chars)))
    cut = None
    if len(kept) == 1:
        parts = np.flatnonzero(of_parts)
        cut = _cut(parts, part_chars, val_fraction)
        of_parts[parts[parts > cut[0]]] = VAL
        counts["val"] = 1
    n_bytes = int(_column(records, "bytes")[of_parts != DROPPED].sum(dtype=np.int64))
    units, start = [], 0
    for end in np.cumsum([len(of_unit) for of_unit in records]).tolist():
        here = (cut[0] - start, cut[1]) if cut and start <= cut[0] < end else None
        units.append(Chosen(of_parts[start:end], part_chars[start:end], sole=cut is not None, cut=here))
        start = end
    return Selection(units, counts, reasons, n_bytes)


def hold_out(names: np.ndarray, chars: np.ndarray, fraction: float) -> np.ndarray:
    """Which of at least two documents to hold out: (n,) bool. Whole documents, in the order of the hash of their name,
    until `fraction` of the characters is reached; so a new document moves few others from one part to the other. Of
    `names` (n,) hashes, of `chars` (n,) lengths are given."""
    by_hash = np.argsort(names, kind="stable")
    lengths = chars[by_hash[:-1]]  # at least one stays for training
    wanted = fraction * chars.sum()
    held = np.zeros(len(names), bool)
    fits = np.flatnonzero(lengths / 2 <= wanted)
    if not len(fits):  # each is far longer than what is to be held out
        held[by_hash[np.argmin(chars[by_hash])]] = True
        return held
    lengths = lengths[fits[0] :]
    taken = np.cumsum(lengths) - lengths / 2 <= wanted
    n_taken = len(taken) if taken.all() else int(np.argmin(taken))
    held[by_hash[fits[0] : fits[0] + n_taken]] = True
    return held


def _column(records: Sequence[np.ndarray], name: str) -> np.ndarray:
    """One at a time, so that memory holds a few bytes a document."""
    return np.concatenate([of_unit[name] for of_unit in records])


def _contents(of_parts: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(n, 2) uint64: the hash of each document's text; of one in parts, of the hashes of its parts."""
    contents = of_parts[starts]
    ends = np.append(starts[1:], len(of_parts))
    for i in np.flatnonzero(ends - starts > 1):
        digest = hashlib.blake2b(of_parts[starts[i] : ends[i]].tobytes(), digest_size=16).digest()
        contents[i] = np.frombuffer(digest, "<u8")
    return contents


def _cut(parts: np.ndarray, part_chars: np.ndarray, fraction: float) -> tuple[int, int]:
    """(part, characters of it) up to which the only document, of the given `parts`, is trained on."""
    ends = np.cumsum(part_chars[parts], dtype=np.int64)
    whole = int(ends[-1])
    place = int(whole * (1 - fraction))
    if not 0 < place < whole:
        raise UserError(
            f"data: the only document has {whole} characters, too few to hold out a fraction of {fraction} for "
            "validation; give more text or another data.val_fraction"
        )
    i = int(np.searchsorted(ends, place))
    return int(parts[i]), place - (int(ends[i - 1]) if i else 0)
