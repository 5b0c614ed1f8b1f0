"""Records of all forms to conversations, each as its data sets have it; what is none says why, and what mends it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from slm.chat.conversation_forms import conversation_of
from slm.chat.records import Fields, RecordError


def said(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


SYSTEM, ASKED, ANSWERED = said("system", "s"), said("user", "q"), said("assistant", "a")
AGAIN, LAST = said("user", "q2"), said("assistant", "a2")
WITH_CONTEXT = said("user", "q\n\nc", instruction="q", input="c")
CALL = {"id": "1", "type": "function", "function": {"name": "find", "arguments": {"thing": "kite"}}}


def read(values: dict[str, Any], **settings: Any) -> tuple[list[Any], str]:
    conversation, form = conversation_of(Fields(values, settings.pop("columns", None)), **settings)
    return list(conversation), form


@pytest.mark.parametrize(
    ("values", "expected", "form"),
    [
        ({"instruction": "q", "output": "a"}, [ASKED, ANSWERED], "instruction/output"),
        ({"instruction": "q", "input": "", "output": "a", "text": "more"}, [ASKED, ANSWERED], "instruction/output"),
        ({"instruction": "q", "input": "c", "output": "a"}, [WITH_CONTEXT, ANSWERED], "instruction/input/output"),
        ({"instruction": "q", "context": "c", "response": "a", "category": "x"}, [WITH_CONTEXT, ANSWERED],
         "instruction/context/response"),
        ({"instruction": "q2", "output": "a2", "history": [["q", "a"]], "system": "s"},
         [SYSTEM, ASKED, ANSWERED, AGAIN, LAST], "system/history/instruction/output"),
        ({"prompt": "q2", "response": "a2", "history": [ASKED, ANSWERED]}, [ASKED, ANSWERED, AGAIN, LAST],
         "history/prompt/response"),
        ({"prompt": "q", "response": "a"}, [ASKED, ANSWERED], "prompt/response"),
        ({"prompt": "q", "completion": "a", "system": "s"}, [SYSTEM, ASKED, ANSWERED], "system/prompt/completion"),
        ({"system_prompt": "s", "question": "q", "response": "a", "id": "1"}, [SYSTEM, ASKED, ANSWERED],
         "system_prompt/question/response"),
        ({"question": "q", "answer": "a"}, [ASKED, ANSWERED], "question/answer"),
        ({"input": "q", "output": "a"}, [ASKED, ANSWERED], "input/output"),
        ({"prompt": [SYSTEM, ASKED], "completion": [ANSWERED]}, [SYSTEM, ASKED, ANSWERED], "prompt/completion"),
        ({"messages": [ASKED, ANSWERED, AGAIN, LAST], "prompt": "q"}, [ASKED, ANSWERED, AGAIN, LAST], "messages"),
        ({"messages": [ASKED, ANSWERED], "system_prompt": "s"}, [SYSTEM, ASKED, ANSWERED], "messages"),
        ({"messages": [SYSTEM, ASKED, ANSWERED], "system": "s"}, [SYSTEM, ASKED, ANSWERED], "messages"),
        ({"messages": json.dumps([ASKED, ANSWERED])}, [ASKED, ANSWERED], "messages"),
        ({"messages": None, "prompt": "q", "response": "a"}, [ASKED, ANSWERED], "prompt/response"),
        ({"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "q"},
                            {"from": "gpt", "value": "a"}]}, [SYSTEM, ASKED, ANSWERED],
         "conversations as from/value"),
        ({"conversations": [{"from": "human", "value": "q", "weight": None},
                            {"from": "gpt", "value": "a", "weight": 1}]}, [ASKED, {**ANSWERED, "weight": 1}],
         "conversations as from/value"),
        ({"conversations": ["q", "a", "q2", "a2"], "source": "x"}, [ASKED, ANSWERED, AGAIN, LAST],
         "conversations as texts, the user's first"),
        ({"data": ["q", "a"], "id": "1"}, [ASKED, ANSWERED], "data as texts, the user's first"),
        ({"text": "### Human: q### Assistant: a### Human: q2### Assistant: a2"}, [ASKED, ANSWERED, AGAIN, LAST],
         "transcripts of Human and Assistant in 'text'"),
        ({"text": "\n\nHuman: q\n\nAssistant: a"}, [ASKED, ANSWERED], "transcripts of Human and Assistant in 'text'"),
        ({"messages": [said("user", [{"type": "text", "text": "q"}, {"type": "text", "text": "2"}]), ANSWERED]},  # type: ignore[arg-type]
         [AGAIN, ANSWERED], "messages"),
    ],
)  # fmt: skip
def test_forms_are_told_by_their_fields(values: dict[str, Any], expected: Any, form: str) -> None:
    assert read(values) == (expected, form)


def test_of_a_tree_the_best_ranked_path_is_learnt() -> None:
    """Not the first reply, nor one that was deleted; a question at its end has no answer."""

    def node(role: str, text: str, rank: int | None, *replies: Any, deleted: bool = False) -> dict[str, Any]:
        return {"role": role, "text": text, "rank": rank, "deleted": deleted, "replies": list(replies)}

    best = node("assistant", "a", 1, node("prompter", "worse", 1), node("prompter", "q2", 0))
    replies = (node("assistant", "gone", 0, deleted=True), node("assistant", "bad", None), best)
    tree = {"message_tree_id": "1", "prompt": node("prompter", "q", None, *replies)}
    assert read(tree)[0] == [ASKED, ANSWERED]
    best["replies"][1]["replies"] = [node("assistant", "a2", 0)]
    assert read(tree) == ([ASKED, ANSWERED, AGAIN, LAST], "OASST trees, of each the best-ranked path")


def test_calls_of_tools_are_kept_whole() -> None:
    """Arguments are an object, as templates write it, where OpenAI's files have them as JSON in a text: `tojson` would
    write that quoted. Tools come as a list or as JSON of one."""
    as_text = {**CALL, "function": {"name": "find", "arguments": '{"thing": "kite"}'}}
    tools = [{"type": "function", "function": {"name": "find", "parameters": {}}}]
    result = said("tool", "in the barn", tool_call_id="1")
    for nothing in ({}, {"content": None}):
        call = {"role": "assistant", "tool_calls": [as_text], **nothing}
        values = {"messages": [ASKED, call, result, LAST], "tools": json.dumps(tools), "parallel_tool_calls": False}
        fields = Fields(values)
        found = conversation_of(fields).conversation
        assert list(found) == [ASKED, {"role": "assistant", "tool_calls": [CALL], **nothing}, result, LAST]
        assert found.tools == tools
        assert fields.keys() - fields.read == {"parallel_tool_calls"}
    called = {"from": "function_call", "value": '{"name": "find", "arguments": {"thing": "kite"}}'}
    seen = {"from": "observation", "value": "in the barn"}
    found = read({"conversations": [{"from": "human", "value": "q"}, called, seen, {"from": "gpt", "value": "a2"}]})[0]
    assert found[1] == {"role": "assistant", "tool_calls": [{"type": "function", "function": CALL["function"]}]}
    assert found[2:] == [said("tool", "in the barn"), LAST]
    once = {"role": "assistant", "content": None, "function_call": as_text["function"]}
    seen = {"role": "function", "name": "find", "content": "in the barn"}
    fields = Fields({"messages": [ASKED, once, seen, LAST], "functions": [tools[0]["function"]]})
    conversation = conversation_of(fields).conversation
    assert (conversation[1]["tool_calls"], conversation[2]["role"], conversation.tools) == (
        [{"type": "function", "function": CALL["function"]}], "tool", tools,
    )  # fmt: skip


def test_columns_name_fields_and_hide_the_others() -> None:
    """Also one within another; what stands beside is read all the same, and the rest is not."""
    values = {"instruction": "no", "q": "q", "meta": {"a": "a"}, "system": "s", "output": "no"}
    fields = Fields(values, {"prompt": "q", "response": "meta.a"})
    found = conversation_of(fields)
    assert (list(found.conversation), found.form) == ([SYSTEM, ASKED, ANSWERED], "system/q/meta.a")
    assert fields.keys() - fields.read == {"instruction", "output"}
    assert read({"talk": [ASKED, ANSWERED]}, columns={"messages": "talk"}) == ([ASKED, ANSWERED], "talk")
    with pytest.raises(RecordError, match=r"no field 'a' \(data.columns: response\) \(fields: 'q'\)"):
        read({"q": "q"}, columns={"prompt": "q", "response": "a"})
    with pytest.raises(RecordError, match=r"no field 'meta\.b'"):
        read(values, columns={"prompt": "q", "response": "meta.b"})


def test_roles_are_named_by_a_setting() -> None:
    values = {"conversations": [{"from": "pupil", "value": "q"}, {"from": "teacher", "value": "a"}]}
    with pytest.raises(RecordError, match=r"a message from 'pupil'; .*data.roles=\{pupil: user\}"):
        read(values)
    assert read(values, roles={"pupil": "user", "teacher": "assistant"})[0] == [ASKED, ANSWERED]


@pytest.mark.parametrize(
    ("values", "form", "why"),
    [
        ({"text": "a"}, "auto", "no form of a conversation (fields: 'text'); a text alone is for task=pretrain"),
        ({"q": "x", "a": "y"}, "auto", "data.columns={prompt: q, response: a}"),
        ({"id": 1, "turns": [ASKED]}, "auto", "data.columns={messages: turns}"),
        ({"prompt": "q", "reply": "a"}, "auto", "data.columns={response: reply}"),
        ({"instruction": "q"}, "alpaca", "no field 'output'"),
        ({"prompt": "q", "response": 7}, "auto", "int in the field 'response'"),
        ({"prompt": "q", "response": ""}, "auto", "nothing in the field 'response'"),
        ({"prompt": "q", "response": "a"}, "alpaca", "no field 'instruction'"),
        ({"prompt": "q", "response": "a", "answer": "b"}, "auto", "answers in 'response' and 'answer'"),
        ({"prompt": "q", "completion": "a", "label": False}, "auto", "task=kto"),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "auto", "task=dpo"),
        ({"message_id": "1", "parent_id": None, "text": "q", "role": "prompter"}, "auto", "puts such rows together"),
        ({"messages": []}, "auto", "no list of messages"),
        ({"messages": [{"role": "user"}]}, "auto", "without a role and a content"),
        ({"messages": [ASKED, {"role": "assistant", "content": None}]}, "auto", "without a role and a content"),
        ({"messages": [ASKED]}, "auto", "no message of role assistant"),
        ({"messages": [ASKED, {**ANSWERED, "weight": 0.5}]}, "auto", "weight 0.5"),
        ({"messages": [said("user", [{"type": "image_url"}]), ANSWERED]}, "auto", "type 'image_url'"),  # type: ignore[arg-type]
        ({"messages": [SYSTEM, ASKED, ANSWERED], "system": "other"}, "auto", "another message of the system"),
        ({"prompt": "q", "response": "a\ud800"}, "auto", "half a surrogate pair"),
        ({"messages": [ASKED, said("assistant", "a", tool_calls=[{"a": "\ud800"}])]}, "auto", "half a surrogate pair"),
    ],
)  # fmt: skip
def test_what_is_no_conversation_says_why(values: dict[str, Any], form: Any, why: str) -> None:
    with pytest.raises(RecordError) as refused:
        read(values, form=form)
    assert why in str(refused.value)
