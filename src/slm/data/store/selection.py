"""Which documents are trained on, which are held out for validation and test, and which are left out."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from slm.data.config import Filters, HeldOut
from slm.data.documents.source import Document
from slm.data.faults import Faults
from slm.data.store.scan import Unit
from slm.errors import UserError

DROPPED, TRAIN, VAL, TEST = 0, 1, 2, 3
SPLIT_NAMES = {TRAIN: "train", VAL: "val", TEST: "test"}
_CODES = {name: code for code, name in SPLIT_NAMES.items()}
REASONS = {1: "empty", 2: "too_short", 3: "too_long", 4: "duplicates"}
_EMPTY, _TOO_SHORT, _TOO_LONG, _DUPLICATE = REASONS
_DIVIDED = 0  # of a document whose part is not given
_NOTHING_HELD = HeldOut()


class Cut(NamedTuple):
    """From where on the only document belongs to another split."""

    part: int  # its number
    place: int  # in it
    split: str
    in_bytes: bool  # of UTF-8; else in characters. A character that it would divide stays behind it

    def within(self, text: str) -> int:
        return len(text.encode()[: self.place].decode(errors="ignore")) if self.in_bytes else self.place


@dataclass(frozen=True)
class Chosen:
    """What becomes of the documents of one unit."""

    codes: np.ndarray  # (n,) uint8, `DROPPED` or a key of `SPLIT_NAMES`, of each document (or part of one)
    chars: np.ndarray  # (n,) their lengths when they were scanned
    sole: bool = False  # they are parts of the only document there is: no end of text belongs after it
    cuts: tuple[Cut, ...] = ()  # in order

    def of(self, unit: Unit, faults: Faults) -> Iterator[tuple[str, Document]]:
        """Read `unit` again; each document that is kept, with its split. `UserError` if it is not what was scanned."""
        documents = iter(unit.read(faults))
        for index, (code, chars) in enumerate(zip(self.codes.tolist(), self.chars.tolist(), strict=True)):
            piece, document = next(documents, (unit.pieces[-1], None))
            if document is None or len(document.text) != chars:
                raise UserError(f"data.path: '{piece.source.place}' changed while it was read; do it again")
            if code != DROPPED:
                yield from self._parts(index, SPLIT_NAMES[code], document)

    def where_cut(self) -> object:
        """What tells one division from another, for keys; of the one that ``val_fraction`` makes (index, place)."""
        return self.cuts if any(cut.in_bytes for cut in self.cuts) else next((cut[:2] for cut in self.cuts), None)

    def _parts(self, index: int, split: str, document: Document) -> Iterator[tuple[str, Document]]:
        cuts = [cut for cut in self.cuts if cut.part == index]
        if not cuts:
            yield split, replace(document, ends=False) if self.sole else document
            return
        start, text = 0, document.text
        for end, following in [*((cut.within(text), cut.split) for cut in cuts), (len(text), "")]:
            if end > start:  # no text ends here, and none begins at a cut
                yield split, replace(document, text=text[start:end], begins=document.begins and not start, ends=False)
            start, split = end, following


@dataclass(frozen=True)
class Selection:
    """What becomes of all documents."""

    units: list[Chosen]
    documents: dict[str, int]  # in each split that there is; a single one that is cut is in all of them
    dropped: dict[str, int]  # left out, by reason
    why: np.ndarray  # (n,) uint8, of each document: a key of `REASONS`, 0 if it is kept
    n_bytes: int  # of UTF-8 text that is kept


def select(
    records: Sequence[np.ndarray],
    filters: Filters,
    val_fraction: float,
    held_out: HeldOut = _NOTHING_HELD,
    parts: Sequence[str | None] = (),
) -> Selection:
    """Drop what `filters` say, of equal texts those that are trained on first; then hold out `val_fraction` of the
    characters, or what `held_out` says: of several documents, whole ones; of a single one, its end. `records` are those
    of each unit, of dtype `slm.data.store.scan.RECORD`; `parts` the split that all of a unit belongs to, None for one
    to be divided; none of those is held out for a split that is there already. `UserError` if nothing is left, or a
    split would be empty."""
    starts = np.flatnonzero(_column(records, "begins"))  # a document is all from its first part to the next first one
    part_chars = _column(records, "chars")
    chars = np.add.reduceat(part_chars, starts, dtype=np.int64) if len(starts) else np.empty(0, np.int64)
    begun = [int(of_unit["begins"].sum()) for of_unit in records]
    given = [_CODES[part] if part else _DIVIDED for part in parts or [None] * len(records)]
    part_of = np.repeat(np.array(given, np.uint8), begun)  # of each document
    why = _left_out(records, starts, chars, filters, part_of)
    kept = why == 0
    reasons = {reason: int((why == code).sum()) for code, reason in REASONS.items()}
    if not kept.any():
        told = ", ".join(f"{reason.replace('_', ' ')}: {count:,}" for reason, count in reasons.items() if count)
        raise UserError(f"data: no document is left ({told}); change data.min_chars and data.max_chars")
    codes = np.where(kept, np.maximum(part_of, TRAIN), DROPPED).astype(np.uint8)
    divided = np.flatnonzero(kept & (part_of == _DIVIDED))
    wanted = _Wanted.of(val_fraction, held_out, has_val=VAL in given)
    cuts: list[Cut] = []
    if len(divided) > 1:
        sizes = np.add.reduceat(_column(records, "bytes"), starts, dtype=np.int64) if wanted.in_bytes else chars
        wanted.hold_out(codes, divided, _column(records, "name")[starts], sizes)
    of_parts = np.repeat(codes, np.diff(starts, append=len(part_chars)))
    counts = {name: int((codes == code).sum()) for code, name in SPLIT_NAMES.items()}
    if len(divided) == 1:
        own = np.arange(*np.append(starts, len(part_chars))[divided[0] : divided[0] + 2])
        cuts = wanted.cuts(own, _column(records, "bytes") if wanted.in_bytes else part_chars)
        for cut in cuts:
            of_parts[own[own > cut.part]] = _CODES[cut.split]
            counts[cut.split] += 1
    if not counts["test"]:
        del counts["test"]
    n_bytes = int(_column(records, "bytes")[of_parts != DROPPED].sum(dtype=np.int64))
    sole = {code: int(kept[part_of == code].sum()) == 1 for code in set(given)}
    units, start = [], 0
    for code, end in zip(given, np.cumsum([len(of_unit) for of_unit in records]).tolist(), strict=True):
        here = tuple(cut._replace(part=cut.part - start) for cut in cuts if start <= cut.part < end)
        units.append(Chosen(of_parts[start:end], part_chars[start:end], sole=sole[code], cuts=here))
        start = end
    return Selection(units, counts, reasons, why, n_bytes)


def _left_out(
    records: Sequence[np.ndarray], starts: np.ndarray, chars: np.ndarray, filters: Filters, part_of: np.ndarray
) -> np.ndarray:
    """(n,) uint8: a key of `REASONS`, 0 for what stays."""
    why = np.zeros(len(chars), np.uint8)
    why[chars > (filters.max_chars or np.inf)] = _TOO_LONG
    why[chars < filters.min_chars] = _TOO_SHORT
    why[chars == 0] = _EMPTY
    if filters.dedupe:
        left = np.flatnonzero(why == 0)
        left = left[np.argsort(-part_of[left].astype(np.int8), kind="stable")]  # what is held out stays whole
        contents = _contents(_column(records, "content"), starts)[left].view("S16")
        why[left] = _DUPLICATE
        why[left[np.unique(contents, return_index=True)[1]]] = 0  # of equal ones, the first stays
    return why


@dataclass(frozen=True)
class _Wanted:
    """How much is to be held out of what is to be divided."""

    val_fraction: float  # of characters; 0 where validation has files of its own
    val_bytes: int | None
    test_bytes: int

    @classmethod
    def of(cls, val_fraction: float, held_out: HeldOut, has_val: bool) -> "_Wanted":
        return cls(0.0 if has_val else val_fraction, held_out.val_bytes, held_out.test_bytes or 0)

    @property
    def in_bytes(self) -> bool:
        return self.val_bytes is not None or self.test_bytes > 0

    def of_size(self, whole: int) -> tuple[float, int]:
        """How much of `whole` goes to validation and to the test part; `UserError` if nothing would be left."""
        left = whole - self.test_bytes
        val = self.val_fraction * left if self.val_bytes is None else self.val_bytes
        if left - val <= 0:
            raise UserError(
                f"data: of {whole:,} bytes nothing is left to train on (data.val_bytes={self.val_bytes}, "
                f"data.test_bytes={self.test_bytes or None}); give more text, or hold out less"
            )
        return val, self.test_bytes

    def hold_out(self, codes: np.ndarray, divided: np.ndarray, names: np.ndarray, sizes: np.ndarray) -> None:
        """Mark in `codes` whole documents of those `divided`."""
        val, test = self.of_size(int(sizes[divided].sum()))
        for code, size in ((TEST, test), (VAL, val)):
            if size:
                if len(divided) < 2:
                    raise UserError("data: there are too few documents for a validation and a test part; give more")
                held = hold_out(names[divided], sizes[divided], size)
                codes[divided[held]] = code
                divided = divided[~held]

    def cuts(self, parts: np.ndarray, part_sizes: np.ndarray) -> list[Cut]:
        """Where the only document, of the given `parts`, is divided."""
        ends = np.cumsum(part_sizes[parts], dtype=np.int64)
        whole = int(ends[-1])
        if self.in_bytes:
            val, test = self.of_size(whole)
            places = {"val": whole - test - int(val), "test": whole - test}
            begin = {split: places[split] for split, size in (("val", val), ("test", test)) if size}
        else:
            begin = {"val": int(whole * (1 - self.val_fraction))} if self.val_fraction else {}
        if not all(0 < place < whole for place in begin.values()):
            raise UserError(
                f"data: the only document has {whole} characters, too few to hold out a fraction of "
                f"{self.val_fraction} for validation; give more text or another data.val_fraction"
            )
        found = []
        for split, place in begin.items():
            i = int(np.searchsorted(ends, place))
            found.append(Cut(int(parts[i]), place - (int(ends[i - 1]) if i else 0), split, self.in_bytes))
        return found


def hold_out(names: np.ndarray, sizes: np.ndarray, wanted: float) -> np.ndarray:
    """Which of at least two documents to hold out: (n,) bool. Whole documents, in the order of the hash of their name,
    until `wanted` of all `sizes` (n,) is reached; so a new document moves few others from one part to the other. Of
    `names` (n,) hashes are given."""
    by_hash = np.argsort(names, kind="stable")
    lengths = sizes[by_hash[:-1]]  # at least one stays for training
    held = np.zeros(len(names), bool)
    fits = np.flatnonzero(lengths / 2 <= wanted)
    if not len(fits):  # each is far longer than what is to be held out
        held[by_hash[np.argmin(sizes[by_hash])]] = True
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
