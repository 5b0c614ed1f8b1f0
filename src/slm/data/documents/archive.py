"""Archives (``.zip``, ``.tar``, compressed or not): their files, each in the form of its own ending."""

import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

from slm.data.documents.compression import BrokenFileError, PiecesFile, broken, damages, pieces
from slm.data.documents.member import Member, is_archive
from slm.data.documents.source import WHOLE, Document, FileSource, Record, Span, file_source, grouped
from slm.data.faults import Faults
from slm.registry import register_reader

_LOOKED_AT = 1 << 12  # bytes of a file that tell whether it is text


class _Header(tarfile.TarInfo):
    """A damaged one is an error; tarfile takes it for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> Any:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if any(buf):
                raise tarfile.ReadError(str(error)) from None
            raise  # nothing but zeros: the end


@register_reader("archive")
class ArchiveFile(FileSource):
    """Hidden and binary files, links and archives inside are passed over and counted. No file is written."""

    def spans(self) -> list[Span]:
        """Numbers of files in a ``.zip``, as many as hold about `span_bytes`; a ``.tar`` has one span."""
        if not self._is_zip:
            return [WHOLE]
        try:
            with zipfile.ZipFile(self.path) as archive:
                sizes = [info.compress_size for info in archive.infolist()]
        except damages():
            return [WHOLE]
        groups = grouped(range(len(sizes)), sizes.__getitem__, self.span_bytes)
        return [Span(numbers[0], numbers[-1] + 1) for numbers in groups] or [WHOLE]

    def read(self, span: Span, faults: Faults) -> Iterator[Document]:
        for source in self._sources(span, faults):
            yield from source.read(WHOLE, faults)

    def records(self, span: Span, faults: Faults, fields: Sequence[str] | None = None) -> Iterator[Record]:
        for source in self._sources(span, faults):
            for record in source.records(WHOLE, faults, fields):
                yield Record(f"{source.name.removeprefix(self.name)}{record.place}", record.values)

    @property
    def _is_zip(self) -> bool:
        return self.path.suffix.lower() == ".zip"

    def _sources(self, span: Span, faults: Faults) -> Iterator[FileSource]:
        try:
            for member in self._of_zip(span, faults) if self._is_zip else self._of_tar(faults):
                source = file_source(member, f"{self.name}/{member.name}", self.reading)
                if member.is_hidden or is_archive(member) or _is_binary(source):
                    faults.note("passed_over", source.name)
                else:
                    faults.recognise("files of archives")
                    yield source
        except damages() as error:
            found = broken(self.file, error)
            faults.add(found.kind, self.name, str(found))

    def _of_zip(self, span: Span, faults: Faults) -> Iterator[Member]:
        with zipfile.ZipFile(self.path) as archive:
            for info in archive.infolist()[span.start : None if span == WHOLE else span.end]:
                place = f"{self.path}/{info.filename}"
                try:
                    stream = None if info.is_dir() else archive.open(info)
                except damages() as error:
                    found = broken(place, error)
                    faults.add(found.kind, f"{self.name}/{info.filename}", str(found))
                else:
                    if stream is not None:
                        with stream:
                            yield Member(place, info.filename, info.compress_size, stream)

    def _of_tar(self, faults: Faults) -> Iterator[Member]:
        content = PiecesFile(pieces(self.path))
        with tarfile.open(fileobj=content, mode="r|", tarinfo=_Header) as opened:
            archive: Any = opened
            for info in archive:
                archive.members.clear()  # it keeps them all
                if info.isfile():
                    stream: Any = archive.extractfile(info)
                    yield (member := Member(f"{self.path}/{info.name}", info.name, info.size, stream))
                    if member.failed:  # what follows is lost, too
                        return
                elif not info.isdir():
                    faults.note("passed_over", f"{self.name}/{info.name}")


def _is_binary(source: FileSource) -> bool:
    try:
        return any(b"\0" in piece for piece in source.pieces(size=_LOOKED_AT))
    except BrokenFileError:
        return False  # told when it is read
