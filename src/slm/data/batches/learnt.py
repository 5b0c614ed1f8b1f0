"""What of conversations is learnt: checked, and told, before the first step."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from slm.chat.records import Message
from slm.data.batches.samples import LossOn, SampleSet
from slm.errors import UserError, first_few
from slm.tokenizers.base import Tokenizer

_REASONING = {"reasoning_content", "thinking", "reasoning"}
_OURS = {"role", "content", "weight", "instruction", "input"}  # of the last two content has all


def learnt_told(samples: SampleSet, tokenizer: Tokenizer, end_ids: Sequence[int], loss_on: LossOn) -> str:
    """How many tokens are learnt, and of how many answers the end, one of `end_ids`. `UserError` if the chat template
    makes a response of every token of all samples."""
    is_last = np.zeros(len(samples.ids), bool)
    is_last[samples.offsets[1:] - 1] = True
    is_first = np.roll(is_last, 1)  # no label holds it
    n_labels, n_learnt = int((~is_first).sum()), int((samples.learnt & ~is_first).sum())
    if loss_on == "responses" and n_learnt == n_labels:
        raise UserError(
            f"task.loss_on=responses: the chat template makes responses of all {n_labels:,} tokens, so that prompts "
            "are learnt too; mend its {% generation %} blocks, or say so (task.loss_on=all)"
        )
    is_end = samples.learnt & (is_last | ~np.roll(samples.learnt, -1))
    ends = samples.ids[is_end]
    ended = np.isin(ends, end_ids)
    spelt = {token_id: text for text, token_id in tokenizer.special_tokens.items()}
    names = [repr(spelt.get(int(i), tokenizer.decode([int(i)]))) for i in np.unique(ends[ended])]
    told = f"learnt: {n_learnt:,} of {n_labels:,} tokens"
    if not ended.any():
        return f"{told}; the end of no answer is learnt, so that generation will stop by itself at none"
    if ended.all():
        return f"{told}, each of {len(ends):,} answers to its end, {' or '.join(names)}"
    return f"{told}; of {len(ends):,} answers {int(ended.sum()):,} to their end, {' or '.join(names)}"


def unread_told(conversations: Iterable[Sequence[Message]], template: str) -> list[str]:
    """A line on what messages hold and the chat template does not read; none if it reads all."""
    found = Counter(name for messages in conversations for message in messages for name in message)
    read = set(re.findall(r"\w+", template))
    names = [name for name in found if name not in _OURS | read and not (name in _REASONING and read & _REASONING)]
    told = [f"'{name}' of {found[name]:,} messages" for name in names]
    return [f"data: the chat template does not read {first_few(told)}"] if told else []
