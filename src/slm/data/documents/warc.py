"""Crawled pages (``.warc``, ``.wet``): a document a record, of the text in it or, by ``data.html``, of a page."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from slm.data.documents.compression import BrokenFileError, PiecesFile, pieces
from slm.data.documents.source import WHOLE, Document, FileSource, Span, decoded, in_parts, mended
from slm.data.faults import Faults
from slm.extras import require
from slm.registry import register_reader

_LONGEST_HEADERS = 1 << 20  # bytes, of a record
_WITH_CONTENT = ("conversion", "response", "resource")


@register_reader("warc")
class WarcFile(FileSource):
    """Records are named by their number, from 0. What is no answer with a text or a page is counted."""

    def spans(self) -> list[Span]:
        return [WHOLE]

    def read(self, span: Span, faults: Faults) -> Iterator[Document]:
        number = 0
        try:
            for number, record in enumerate(self._records()):
                place = f"#{number}"
                text = self._text(record, place, faults)
                if text == "":
                    faults.note("empty", self.name + place)
                elif text is not None:
                    faults.recognise("pages and texts of WARC files")
                    yield from in_parts(self.name + place, text)
        except BrokenFileError as error:
            faults.add(error.kind, f"{self.name}#{number}", str(error))

    def _records(self) -> Iterator[Any]:
        """`BrokenFileError` if one is damaged: nobody knows where the next one begins."""
        warcio = require("warcio.archiveiterator", "warc", "reading WARC files")
        content = _Content(pieces(self.file), str(self.file))
        records = warcio.ArchiveIterator(content)
        while True:
            with self._damage():
                record = next(records, None)
            if records.err_count or (record is not None and record.length is None):
                raise BrokenFileError("unreadable", f"'{self.file}' is damaged (a record has not the length it says)")
            if record is None:
                return
            content.allowed = record.length + _LONGEST_HEADERS
            yield record
            self._end(record)
            content.allowed = _LONGEST_HEADERS

    def _end(self, record: Any) -> None:
        while record.raw_stream.read(1 << 16):
            pass
        if record.raw_stream.limit:
            raise BrokenFileError("cut_off", f"'{self.file}' is cut off: its last record has no end")

    @contextmanager
    def _damage(self) -> Iterator[None]:
        try:
            yield
        except BrokenFileError:
            raise
        except Exception as error:  # what its parsers raise
            words = " ".join(str(error).split())[:200]
            raise BrokenFileError("unreadable", f"'{self.file}' is damaged ({words})") from None

    def _text(self, record: Any, place: str, faults: Faults) -> str | None:
        of_http = record.http_headers
        kind = ((of_http or record.rec_headers).get_header("Content-Type") or "").lower()
        is_page = "html" in kind
        answered = of_http is None or of_http.get_statuscode() == "200"
        if record.rec_type not in _WITH_CONTENT or not answered or not (is_page or kind.startswith("text/plain")):
            faults.note("no_page", self.name + place)
        elif is_page and not self.reading.html:
            faults.note("page", self.name + place)
        else:
            with self._damage():
                raw = record.content_stream().read(self.reading.max_record_bytes + 1)
            self._end(record)
            if len(raw) > self.reading.max_record_bytes:
                limit = f"data.max_record_bytes ({self.reading.max_record_bytes:,})"
                faults.add("too_long", self.name + place, f"{self.where(place)} is longer than {limit}")
            elif is_page:
                return self._of_page(raw, kind, self.name + place, faults)
            else:
                return decoded(raw, 0, self.name + place, self.where(place), faults)
        return None

    def _of_page(self, raw: bytes, kind: str, name: str, faults: Faults) -> str | None:
        encodings = require("resiliparse.parse.encoding", "warc", "data.html=true")
        extract = require("resiliparse.extract.html2text", "warc", "data.html=true").extract_plain_text
        encoding = kind.partition("charset=")[2].strip("\"' ;") or encodings.detect_encoding(raw, from_html_meta=True)
        page = encodings.bytes_to_str(raw, encoding or "utf-8", errors="replace").replace("\0", "\ufffd")
        page = mended(page, name, faults)
        return None if page is None else str(extract(page, main_content=True, alt_texts=False))


class _Content(PiecesFile):
    """What warcio reads; of headers without end only so much."""

    def __init__(self, source: Iterator[bytes], place: str) -> None:
        super().__init__(source)
        self.allowed, self._place = _LONGEST_HEADERS, place

    def readinto(self, buffer: Any) -> int:
        if self.allowed < 0:
            raise BrokenFileError("too_long", f"'{self._place}' has a record whose headers have no end")
        size = super().readinto(buffer)
        self.allowed -= size
        return size
