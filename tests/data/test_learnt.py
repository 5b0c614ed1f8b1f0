"""What is learnt of conversations is checked and told before the first step."""

from __future__ import annotations

from typing import Any

import pytest

from slm.chat.records import Conversation
from slm.chat.renderer import ChatRenderer
from slm.chat.template import with_template
from slm.data.batches.learnt import learnt_told, unread_told
from slm.data.batches.samples import make_samples
from slm.errors import UserError
from slm.tokenizers.base import Tokenizer
from slm.tokenizers.byte import ByteTokenizer
from slm.tokenizers.extended import ExtendedTokenizer

TALK = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "ab"}]
TWO = [*TALK, *TALK]


def told(tokenizer: Tokenizer, talks: list[Any], loss_on: Any = "responses", longest: int = 99) -> str:
    renderer = ChatRenderer(tokenizer)
    samples = make_samples(talks, renderer, longest, "keep_start", loss_on)
    return learnt_told(samples, tokenizer, renderer.end_ids, loss_on)


def plain(template: str) -> Tokenizer:
    return ExtendedTokenizer(ByteTokenizer(), [], template)


def test_ends_of_answers_are_told() -> None:
    chatml = with_template(ByteTokenizer(), "chatml")
    assert told(chatml, [TALK, TWO]).endswith("9 of 68 tokens, each of 3 answers to its end, '<|im_end|>'")
    assert told(chatml, [TALK, TWO], longest=45).endswith("of 3 answers 2 to their end, '<|im_end|>'")
    alpaca = with_template(ByteTokenizer(), "alpaca")
    assert "each of 2 answers to its end, '<|endoftext|>'" in told(alpaca, [TWO], longest=400)
    assert "each of 1 answers" in told(chatml, [TWO], loss_on="all")


def test_a_template_that_ends_no_answer_is_told() -> None:
    """The line's end stands behind the block, so that nothing learnt says where an answer ends."""
    block = "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
    found = told(plain(block + "{% else %}{{ m.content }}{% endif %}{{ '\n' }}{% endfor %}"), [TALK])
    assert "the end of no answer is learnt" in found


def test_a_mask_of_everything_is_refused() -> None:
    """But where it is asked for."""
    everything = "{% generation %}{% for m in messages %}{{ m.content }}{% endfor %}{% endgeneration %}"
    with pytest.raises(UserError, match=r"makes responses of all .*task.loss_on=all"):
        told(plain(everything), [TALK])
    assert "3 of 3 tokens" in told(plain(everything), [TALK], loss_on="all")


def test_answers_of_weight_0_are_not_learnt() -> None:
    """OpenAI's: they were. A conversation of such answers alone has nothing to learn, and is counted."""
    chatml = with_template(ByteTokenizer(), "chatml")
    wrong = {"role": "assistant", "content": "WRONG", "weight": 0}
    renderer = ChatRenderer(chatml)
    samples = make_samples([[TALK[0], wrong, *TALK], [TALK[0], wrong]], renderer, 99, "drop", "responses")
    assert (len(samples), samples.without) == (1, 1)
    assert chatml.decode(samples.ids[samples.learnt].tolist()) == "ab"
    assert b"WRONG" in bytes(i for i in samples.ids.tolist() if i < 256)


def test_tools_reach_the_template() -> None:
    """Calls, results and what may be called; a template that writes none of them refuses."""
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "find", "arguments": {"thing": "kite"}}}]}
    talk = Conversation([TALK[0], call, {"role": "tool", "content": "barn"}, TALK[1]], [{"name": "find"}])
    source = "{{ tools | tojson }}{% for m in messages %}<{{ m.role[0] }}>{{ m.content or m.tool_calls | tojson }}"
    source += "{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
    tokenizer = plain(source)
    samples = make_samples([talk], ChatRenderer(tokenizer), 200, "drop", "responses")
    asked = '[{"function": {"name": "find", "arguments": {"thing": "kite"}}}]'
    assert tokenizer.decode(samples.ids.tolist()) == f'[{{"name": "find"}}]<u>q<a>{asked}<t>barn<a>ab'
    assert tokenizer.decode(samples.ids[samples.learnt].tolist()) == f"{asked}ab"
    with pytest.raises(UserError, match="no place for tools"):
        make_samples([talk], ChatRenderer(with_template(ByteTokenizer(), "chatml")), 200, "drop", "responses")


def test_what_the_template_does_not_read_is_told() -> None:
    thinking = [TALK[0], {**TALK[1], "reasoning_content": "hm", "name": "b"}]
    chatml = with_template(ByteTokenizer(), "chatml").chat_template or ""
    (line,) = unread_told([thinking, TALK], chatml)
    assert "'reasoning_content' of 1 messages, 'name' of 1 messages" in line
    assert unread_told([[TALK[0], {**TALK[1], "thinking": "hm"}]], chatml + "{{ m.reasoning_content }}") == []
