"""Rows that are one message each, as OASST's Parquet files have them, put together to the trees that they are of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

from slm.chat.records import RecordError

Place = TypeVar("Place")


class MessageRows(Generic[Place]):
    """Takes rows in any order, each with its place, and gives the trees."""

    def __init__(self) -> None:
        self._nodes: dict[Any, dict[str, Any]] = {}  # by the message's id
        self._parents: dict[Any, Any] = {}
        self._places: dict[Any, Place] = {}
        self._twice: list[tuple[Place, RecordError]] = []

    def __len__(self) -> int:
        return len(self._nodes)

    def takes(self, values: Mapping[str, Any], place: Place) -> bool:
        """Whether it is such a row; if so it is kept."""
        if not all(isinstance(values.get(name), str) for name in ("message_id", "role", "text")):
            return False
        name = values["message_id"]
        if name in self._nodes:
            self._twice.append((place, RecordError(f"is the message '{name}' once more")))
            return True
        self._nodes[name] = {key: values.get(key) for key in ("role", "text", "rank", "deleted")} | {"replies": []}
        self._parents[name], self._places[name] = values.get("parent_id"), place
        return True

    def trees(self) -> Iterator[tuple[Place, dict[str, Any] | RecordError]]:
        """Each tree as a record of OASST's files of trees, where its first message stood, in that order; and what is of
        none."""
        yield from self._twice
        begin = []
        for name, parent in self._parents.items():
            if parent is None:
                begin.append(name)
            elif parent in self._nodes:
                self._nodes[parent]["replies"].append(self._nodes[name])
            else:
                lost = RecordError(f"answers the message '{parent}', which is not there; give the files of whole trees")
                yield self._places[name], lost
        for name in begin:
            yield self._places[name], {"prompt": self._nodes[name]}
