"""Records of all forms to pairs, and to answers with a label; what is neither says why."""

from __future__ import annotations

from typing import Any

import pytest

from slm.chat.preference_forms import LabelledAnswer, Pair, labelled_of, pair_of
from slm.chat.records import Fields, RecordError


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


SYSTEM, USER = said("system", "s"), said("user", "hi")
GOOD, BAD = said("assistant", "good"), said("assistant", "bad")
EARLIER = (said("user", "q"), said("assistant", "a"))
TALK = "\n\nHuman: q\n\nAssistant: a\n\nHuman: hi\n\nAssistant: "
WANTED, WITH_SYSTEM = Pair((USER,), "good", "bad"), Pair((SYSTEM, USER), "good", "bad")


@pytest.mark.parametrize(
    ("values", "expected", "form"),
    [
        ({"prompt": "hi", "chosen": "good", "rejected": "bad"}, WANTED, "prompt/chosen/rejected"),
        ({"prompt": [USER], "chosen": [GOOD], "rejected": [BAD], "score": 1}, WANTED, "prompt/chosen/rejected"),
        ({"chosen": [USER, GOOD], "rejected": [USER, BAD]}, WANTED, "chosen/rejected, prompt: their common messages"),
        # UltraFeedback, binarized: the prompt again in each conversation
        ({"prompt": "hi", "chosen": [USER, GOOD], "rejected": [USER, BAD], "messages": [USER, GOOD]}, WANTED,
         "prompt/chosen/rejected"),
        ({"prompt": "q", "chosen": [*EARLIER, USER, GOOD], "rejected": [*EARLIER, USER, BAD], "system": "s"},
         Pair((SYSTEM, *EARLIER, USER), "good", "bad"), "system/prompt/chosen/rejected"),
        ({"system": "s", "question": "hi", "chosen": "good", "rejected": "bad"}, WITH_SYSTEM,
         "system/question/chosen/rejected"),
        ({"system": "", "question": "hi", "chosen": "good", "rejected": "bad"}, WANTED, "question/chosen/rejected"),
        ({"system": "s", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, WITH_SYSTEM,
         "chosen/rejected, prompt: their common messages"),
        ({"chosen": f"{TALK}good", "rejected": f"{TALK}bad"}, Pair((*EARLIER, USER), "good", "bad"),
         "chosen/rejected as transcripts, prompt: their common messages"),
        ({"prompt": TALK, "chosen": "good", "rejected": "bad"}, Pair((*EARLIER, USER), "good", "bad"),
         "prompt/chosen/rejected"),
        ({"chosen": "The sky is blue.", "rejected": "The sky is black."},
         Pair((said("user", "The sky is"),), " blue.", " black."), "chosen/rejected, prompt: their common words"),
        ({"conversations": [], "prompt": [{"from": "human", "value": "hi"}], "chosen": {"from": "gpt", "value": "good"},
          "rejected": {"from": "gpt", "value": "bad"}}, WANTED, "prompt/chosen/rejected"),
        ({"history": "hi", "human_ref_A": "good", "human_ref_B": "bad", "labels": 1, "score_A": 9}, WANTED,
         "SHP: history/human_ref_A/human_ref_B"),
        ({"history": "hi", "human_ref_A": "bad", "human_ref_B": "good", "labels": 0}, WANTED,
         "SHP: history/human_ref_A/human_ref_B"),
        ({"input": {"messages": [USER], "tools": [], "parallel_tool_calls": True}, "preferred_output": [GOOD],
          "non_preferred_output": [BAD]}, WANTED, "input/preferred_output/non_preferred_output"),
    ],
)  # fmt: skip
def test_forms_of_a_pair(values: dict[str, Any], expected: Pair, form: str) -> None:
    assert pair_of(Fields(values)) == (expected, form)


def test_tools_of_a_pair_are_kept() -> None:
    tools = [{"type": "function", "function": {"name": "find"}}]
    given = {"prompt": "hi", "chosen": "good", "rejected": "bad", "tools": tools}
    assert pair_of(Fields(given)).pair.tools == tools
    given = {"input": {"messages": [USER], "tools": tools}, "preferred_output": [GOOD], "non_preferred_output": [BAD]}
    assert pair_of(Fields(given)).pair.tools == tools


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ({"prompt": "hi", "chosen": "good"}, "has no field 'rejected' (fields: 'prompt', 'chosen')"),
        ({"prompt": "hi", "chosen": "good", "worse": "x"}, "data.columns={rejected: worse}"),
        ({"chosen": "good", "rejected": "bad"}, "has no field 'prompt'"),
        ({"prompt": "hi", "completion": "a", "label": True}, "task=kto"),
        ({"prompt": "hi", "chosen": "good", "rejected": ""}, "has an empty answer in 'rejected'"),
        ({"prompt": "", "chosen": "good", "rejected": "bad"}, "has nothing in the field 'prompt'"),
        ({"prompt": "hi", "chosen": 3, "rejected": "bad"}, "has in 'chosen' neither a text nor a list of messages"),
        ({"prompt": [GOOD], "chosen": "g", "rejected": "b"}, "ends with the assistant's words"),
        ({"chosen": [USER, GOOD], "rejected": [said("user", "ho"), BAD]}, "differ before their last message"),
        ({"prompt": "ho", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, "none of the questions in 'chosen'"),
        ({"chosen": [GOOD, USER], "rejected": [BAD, USER]}, "not the assistant's"),
        ({"prompt": "hi", "chosen": "good", "rejected": "b\udc00"}, "half a surrogate pair"),
        ({"history": "hi", "human_ref_A": "a", "human_ref_B": "b", "labels": 2}, "has 2 in the field 'labels'"),
    ],
)
def test_what_is_no_pair(record: dict[str, Any], why: str) -> None:
    with pytest.raises(RecordError) as refused:
        pair_of(Fields(record))
    assert why in str(refused.value)


@pytest.mark.parametrize(
    ("values", "expected", "form"),
    [
        ({"prompt": "hi", "completion": "good", "label": True}, [("good", True)], "prompt/completion/label"),
        ({"prompt": [USER], "completion": [BAD], "label": 0}, [("bad", False)], "prompt/completion/label"),
        ({"messages": [USER, GOOD], "label": 1}, [("good", True)], "messages/label"),
        ({"prompt": "hi", "chosen": "good", "rejected": "bad"}, [("good", True), ("bad", False)],
         "prompt/chosen/rejected, an answer each"),
    ],
)  # fmt: skip
def test_forms_of_an_answer_with_a_label(values: dict[str, Any], expected: list[Any], form: str) -> None:
    assert labelled_of(Fields(values)) == ([LabelledAnswer((USER,), *one) for one in expected], form)


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (
            {"prompt": "hi", "completion": "a"},
            "no field 'label', not true or false (fields: 'prompt', 'completion')",
        ),
        ({"prompt": "hi", "completion": "a", "label": "good"}, "has 'good' for a label"),
        ({"prompt": "hi", "answr": "a", "label": True}, "data.columns={completion: answr}"),
        ({"prompt": "hi", "completion": "", "label": True}, "nothing in the field 'completion'"),
    ],
)
def test_what_is_no_answer_with_a_label(record: dict[str, Any], why: str) -> None:
    with pytest.raises(RecordError) as refused:
        labelled_of(Fields(record))
    assert why in str(refused.value)
