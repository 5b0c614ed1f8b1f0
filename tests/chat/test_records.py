"""Records of all forms to messages: a conversation, or two answers to one prompt; what is neither says why."""

from __future__ import annotations

from typing import Any

import pytest

from slm.chat.records import Pair, RecordError, conversation_of, pair_of

ASKED, ANSWERED = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
USER = {"role": "user", "content": "hi"}


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"instruction": "q", "output": "a"}, [ASKED, ANSWERED]),
        ({"instruction": "q", "input": "", "output": "a", "text": "more"}, [ASKED, ANSWERED]),
        (
            {"instruction": "q", "input": "i", "output": "a"},
            [{"role": "user", "content": "q\n\ni", "instruction": "q", "input": "i"}, ANSWERED],
        ),
        ({"prompt": "q", "response": "a"}, [ASKED, ANSWERED]),
        ({"prompt": "q", "completion": "a", "system": "s"}, [{"role": "system", "content": "s"}, ASKED, ANSWERED]),
        ({"messages": [ASKED, ANSWERED, ASKED, ANSWERED]}, [ASKED, ANSWERED, ASKED, ANSWERED]),
    ],
)
def test_forms_are_told_by_their_fields(values: dict[str, Any], expected: Any) -> None:
    assert conversation_of(values) == expected


@pytest.mark.parametrize(
    ("values", "form", "said"),
    [
        ({"text": "a"}, "auto", "none of the fields messages, instruction, prompt .*'text'"),
        ({"instruction": "q"}, "auto", "no field 'output'"),
        ({"prompt": "q", "response": 7}, "auto", "int in the field 'response'"),
        ({"prompt": "q", "response": ""}, "auto", "nothing in the field 'response'"),
        ({"prompt": "q", "response": "a"}, "alpaca", "no field 'instruction'"),
        ({"messages": []}, "auto", "no list of messages"),
        ({"messages": [{"role": "user"}]}, "auto", "without a role and a content"),
        ({"messages": [ASKED]}, "auto", "no message of role assistant"),
        ({"prompt": "q", "response": "a\ud800"}, "auto", "half a surrogate pair"),
    ],
)
def test_what_is_no_conversation_says_why(values: dict[str, Any], form: Any, said: str) -> None:
    with pytest.raises(RecordError, match=said):
        conversation_of(values, form)


def test_forms_of_a_pair() -> None:
    """A text or messages; a whole conversation in each answer; all mean the same pair."""
    wanted = Pair((USER,), "good", "bad")
    good, bad = [said("assistant", "good")], [said("assistant", "bad")]
    assert pair_of({"prompt": "hi", "chosen": "good", "rejected": "bad"}) == wanted
    assert pair_of({"prompt": [USER], "chosen": good, "rejected": bad, "score": 1}) == wanted
    assert pair_of({"chosen": [USER, *good], "rejected": [USER, *bad]}) == wanted


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ({"prompt": "hi", "chosen": "good"}, "has no field 'rejected' (fields: 'prompt', 'chosen')"),
        ({"chosen": "good", "rejected": "bad"}, "has no field 'prompt'"),
        ({"prompt": "hi", "chosen": "good", "rejected": ""}, "has an empty answer in 'rejected'"),
        ({"prompt": "", "chosen": "good", "rejected": "bad"}, "has an empty prompt"),
        ({"prompt": "hi", "chosen": 3, "rejected": "bad"}, "has in 'chosen' neither a text nor a list of messages"),
        ({"prompt": [said("assistant", "x")], "chosen": "g", "rejected": "b"}, "ends with the assistant's words"),
        (
            {"chosen": [USER, said("assistant", "a")], "rejected": [said("user", "ho"), said("assistant", "b")]},
            "differ",
        ),
        ({"prompt": "hi", "chosen": [USER, said("assistant", "a")], "rejected": "b"}, "more than one message"),
        ({"prompt": "hi", "chosen": "good", "rejected": "b\udc00"}, "half a surrogate pair"),
    ],
)
def test_what_is_no_pair(record: dict[str, Any], why: str) -> None:
    with pytest.raises(RecordError) as refused:
        pair_of(record)
    assert why in str(refused.value)
