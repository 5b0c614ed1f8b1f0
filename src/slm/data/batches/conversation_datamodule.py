"""Loaders over the samples of conversations; order, position and state are those of running text."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from slm.data.batches.conversation_windows import PackedSamples, PaddedSamples
from slm.data.batches.datamodule import WindowDataModule
from slm.data.batches.samples import SampleSet
from slm.data.batches.windows import CountedWindows, Windows


class InstructionDataModule(WindowDataModule):
    """Samples of conversations as batches.

    Args:
        samples: of "train" and "val", or of the only part to be scored; in one vocabulary.
        vocabulary: the tokenizer's fingerprint.
        packing: several samples share a window; else each has a row.
        seq_len, batch_size, num_workers, seed, eval_split: as `WindowDataModule` has them; `seed` decides the packing
            too.
    """

    def __init__(
        self,
        samples: Mapping[str, SampleSet],
        vocabulary: str,
        packing: bool,
        seq_len: int,
        batch_size: int,
        num_workers: int = 0,
        seed: int = 0,
        eval_split: str = "val",
    ) -> None:
        parts = [vocabulary, str(packing), *(part.fingerprint for part in samples.values())]
        fingerprint = hashlib.sha256(" ".join(parts).encode()).hexdigest()
        super().__init__(fingerprint, seq_len, batch_size, num_workers, seed, eval_split)
        self.samples = samples
        self.packing = packing
        self._made: dict[str, PackedSamples | PaddedSamples] = {}

    def parts(self, split: str) -> list[PackedSamples | PaddedSamples]:
        """The windows of a part."""
        return [self.dataset(split)]

    def eval_parts(self) -> list[Windows]:
        """Those that say how many bytes of text they stand for."""
        return [CountedWindows(part, part.text_bytes) for part in self.parts(self.eval_split)]

    def dataset(self, split: str) -> PackedSamples | PaddedSamples:
        """The windows of a part."""
        if split not in self._made:
            samples = self.samples[split]
            packed = self.packing
            self._made[split] = (
                PackedSamples(samples, self.seq_len, self.seed) if packed else PaddedSamples(samples, self.seq_len)
            )
        return self._made[split]
