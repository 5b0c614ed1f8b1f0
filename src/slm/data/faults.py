"""What is found in text that is read: its forms, told; what is wrong, refused, or left out and counted."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from slm.errors import UserError

OnBad = Literal["refuse", "skip", "replace"]
"""``refuse``: the first fault is an error. ``skip``: what is bad is left out. ``replace``: bytes that are no text
become U+FFFD, what cannot be mended so is left out."""

PLACES_KEPT = 5  # places named a kind; the counts go on


class FaultKind(NamedTuple):
    """What a report and a refusal say of it."""

    counted: str
    mend: str  # what a user can do


KINDS = {
    "not_utf8": FaultKind("not UTF-8 text", "name its encoding (data.encoding=auto looks for it) or leave it out"),
    "replaced": FaultKind("texts in another encoding, left out; name it (data.encoding=auto looks for it)", ""),
    "nul": FaultKind("NUL bytes", "leave it out, or name its encoding (data.encoding=auto looks for it)"),
    "empty": FaultKind("empty documents", ""),
    "bad_json": FaultKind("records that are not JSON", "mend or delete it"),
    "bad_csv": FaultKind("rows that do not fit the table", "mend or delete it, or name data.delimiter"),
    "no_text": FaultKind("records without text", "set data.field to the field that holds the text"),
    "no_conversation": FaultKind("records that are no conversation", "mend or delete it"),
    "too_long": FaultKind("records too long", "raise data.max_record_bytes"),
    "cut_off": FaultKind("files that end too early", "fetch or make it again"),
    "no_pair": FaultKind("records that are no pair", "give it prompt, chosen and rejected"),
    "no_label": FaultKind("records that are no answer with a label", "give it prompt, completion and label"),
    "same_answers": FaultKind("pairs of two equal answers, left out", ""),
    "long_pair": FaultKind("pairs longer than data.seq_len, left out", ""),
    "long_answer": FaultKind("answers longer than data.seq_len with their prompt, left out", ""),
    "cut_prompt": FaultKind("prompts cut to fit data.seq_len", ""),
    "unreadable": FaultKind("files that cannot be read", "fetch or make it again"),
    "passed_over": FaultKind("passed over in archives (hidden, binary, links, archives)", ""),
    "page": FaultKind("HTML pages, passed over; data.html=true reads their text", ""),
    "no_page": FaultKind("WARC records without a page or a text", ""),
}


class Faults:
    """Counts faults by kind, and names where the first few of each kind are; and what was recognised."""

    def __init__(self, on_bad: OnBad = "refuse") -> None:
        self.on_bad = on_bad
        self.counts: dict[str, int] = {}
        self.places: dict[str, list[str]] = {}
        self.forms: dict[str, int] = {}

    @property
    def replaces(self) -> bool:
        return self.on_bad == "replace"

    def add(self, kind: str, place: str, refusal: str | Callable[[], str]) -> None:
        """Count a fault of `KINDS` at a `place` within the corpus; `UserError` where faults are refused, with what was
        got and where: "'notes.txt' is not UTF-8 text"."""
        if self.on_bad == "refuse":
            found = refusal if isinstance(refusal, str) else refusal()
            raise UserError(f"data.path: {found}; {KINDS[kind].mend} (or set data.on_bad=skip, which counts it)")
        self.note(kind, place)

    def note(self, kind: str, place: str) -> None:
        """Count what is never refused: nothing is lost with it, or a setting says so."""
        self.merge({kind: {"count": 1, "places": [place]}})

    def recognise(self, form: str, count: int = 1) -> None:
        """Count what was read in a form that nobody named: "documents by the line '</s>'"."""
        self.forms[form] = self.forms.get(form, 0) + count

    def merge(self, found: Mapping[str, Any]) -> None:
        """Add what the `as_dict` of another process says; its places come after those that are here."""
        for kind, entry in found.items():
            self.counts[kind] = self.counts.get(kind, 0) + entry["count"]
            places = self.places.setdefault(kind, [])
            places += entry["places"][: PLACES_KEPT - len(places)]

    def as_dict(self) -> dict[str, Any]:
        """Kind -> ``count`` and the first ``places``, in JSON types."""
        found = [kind for kind in KINDS if kind in self.counts]
        return {kind: {"count": self.counts[kind], "places": self.places[kind]} for kind in found}

    def lines(self) -> list[str]:
        """A line a form and a kind for people: how many, and where the first are."""
        told = [f"{count:,} {form}" for form, count in self.forms.items()]
        for kind, entry in self.as_dict().items():
            more = ", …" if entry["count"] > len(entry["places"]) else ""
            told.append(f"{KINDS[kind].counted}: {entry['count']:,} ({', '.join(entry['places'])}{more})")
        return told
