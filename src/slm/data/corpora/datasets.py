"""Data sets of the library `datasets`: a name on the Hugging Face hub, or a folder."""

from __future__ import annotations

from slm.data.documents.hf_datasets import DatasetSource
from slm.registry import register_corpus


@register_corpus("datasets")
def datasets(
    path: str, name: str | None = None, split: str = "train", revision: str | None = None, streaming: bool = False
) -> list[DatasetSource]:
    """One split of one data set.

    Args:
        path: on the hub, or a folder that `save_to_disk` wrote or `load_dataset` takes.
        name: its configuration, where it has several.
        split: which part, e.g. "train" or "train[:10%]".
        revision: of the hub, so that it stays the same.
        streaming: read it while it is downloaded, keeping nothing; in one process, as it has no parts that can be
            read on their own. A folder that `save_to_disk` wrote is never held in memory anyway.
    """
    return [DatasetSource(path, name, split, revision, streaming)]
