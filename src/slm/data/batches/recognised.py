"""Records, each made into what it holds; the forms they were found in, and the fields that were not read, are told."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from slm.chat.message_trees import MessageRows
from slm.chat.records import Fields, RecordError
from slm.data.documents.source import Source
from slm.data.faults import Faults
from slm.errors import first_few
from slm.notices import notice

T = TypeVar("T")
Made = Callable[[Fields], tuple[T, str]]
"""What a record holds, and the name of its form."""


def recognised(
    sources: Sequence[Source],
    made: Made[T],
    columns: Mapping[str, str] | None,
    fault: str,
    faults: Faults,
    rows: MessageRows[tuple[Source, str]] | None = None,
) -> list[tuple[str, T]]:
    """What is `made` of each record, with its place; a record of which nothing can be made is such a `fault`. Records
    that are one message each are put together by `rows`, where these are given, and come behind all others."""
    forms: Counter[str] = Counter()
    left_out: Counter[str] = Counter()

    def read() -> Iterator[tuple[str, T]]:
        for source, place, values in _records(sources, faults, rows):
            try:
                if isinstance(values, RecordError):
                    raise values
                fields = Fields(values, columns)
                found, form = made(fields)
            except RecordError as error:
                faults.add(fault, f"{source.name}{place}", f"{source.where(place)} {error}")
                continue
            forms[form] += 1
            left_out.update(fields.keys() - fields.read)
            yield f"{source.name}{place}", found

    found = list(read())
    if found:
        where = first_few([source.place for source in sources], most=2)
        known = first_few([f"{number:,} as {form}" for form, number in forms.most_common()])
        more = f"; fields not read: {first_few(sorted(left_out), most=8)}" if left_out else ""
        notice(f"data: of {where} {sum(forms.values()):,} records: {known}{more}")
    return found


def _records(
    sources: Sequence[Source], faults: Faults, rows: MessageRows[tuple[Source, str]] | None
) -> Iterator[tuple[Source, str, Mapping[str, Any] | RecordError]]:
    for source in sources:
        for record in (record for span in source.spans() for record in source.records(span, faults)):
            if rows is None or not rows.takes(record.values, (source, record.place)):
                yield source, record.place, record.values
    if not rows:
        return
    trees = [(source, place, values) for (source, place), values in rows.trees()]
    notice(f"data: {len(rows):,} rows are one message each; by parent_id they make {len(trees):,} trees")
    yield from trees
