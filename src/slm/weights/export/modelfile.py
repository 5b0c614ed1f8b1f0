"""The ``Modelfile`` by which ollama takes a GGUF file in: template of a chat, ends, sampling, context."""

import json
import re
from collections.abc import Mapping
from typing import Any

from slm.chat.jinja_chat import RESPONSE_BEGINS, RESPONSE_ENDS, rendered
from slm.errors import UserError
from slm.models.config import ModelConfig
from slm.notices import notice
from slm.tokenizers.base import Tokenizer
from slm.weights.own_sampling import own_sampling

_SYSTEM, _ASKED, _ANSWER = "\ue000", "\ue001", "\ue002"  # contents that no template writes by itself
_PARAMETERS = {
    **{name: name for name in ("temperature", "top_k", "top_p", "min_p")},
    "repetition_penalty": "repeat_penalty",
}  # of sampling, by ollama's name


def modelfile(gguf_file: str, config: ModelConfig, tokenizer: Tokenizer, facts: Mapping[str, Any]) -> str:
    """Its text; `gguf_file` lies beside it. What it cannot say is told."""
    lines = [f"FROM ./{gguf_file}", f"PARAMETER num_ctx {config.params.max_seq_len}"]
    sampling = own_sampling(facts)
    if sampling.get("greedy"):
        sampling["temperature"] = 0
    lines += [f"PARAMETER {theirs} {sampling[ours]}" for ours, theirs in _PARAMETERS.items() if ours in sampling]
    if tokenizer.chat_template is None:
        return "\n".join([*lines, 'TEMPLATE "{{ .Prompt }}"', ""])
    ends = [token for token, token_id in tokenizer.special_tokens.items() if token_id in tokenizer.end_ids]
    lines += [f"PARAMETER stop {json.dumps(end, ensure_ascii=False)}" for end in ends]
    try:
        lines.append(f'TEMPLATE """{_in_go(tokenizer)}"""')
    except (UserError, ValueError):  # a template that insists on more than this, or writes a turn otherwise later
        notice("the Modelfile has no TEMPLATE: the model's own cannot be put into ollama's language; add one by hand")
    return "\n".join([*lines, ""])


def _in_go(tokenizer: Tokenizer) -> str:
    """The tokenizer's template in Go's language, found by what it writes around messages; without a begin of text,
    which llama.cpp adds. `ValueError` where that is not all it does."""
    first, after = _around(tokenizer, "user")
    _, _, later, _ = _around(tokenizer, "user", "assistant", "user")
    expected = [first, after, later, after, later, after]
    if _around(tokenizer, "user", "assistant", "user", "assistant", "user") != expected:
        raise ValueError("a turn is written otherwise once more follow")
    try:
        headed = _around(tokenizer, "system", "user")
    except UserError:
        headed = []  # it takes no such message
    if headed[2:] not in ([], [after]):
        raise ValueError("a system's message changes what follows the next one")
    ends, says = "{{ end }}", "{{ .Content }}"
    branches = [f'{{{{ if eq .Role "user" }}}}{{{{ $before }}}}{says}']
    branches.append(f'{{{{ else if eq .Role "assistant" }}}}{after}{says}{_before(later, "=")}')
    if headed:
        head, joint, _ = headed
        branches.append(f'{{{{ else if eq .Role "system" }}}}{head}{says}{_before(joint, "=")}')
    return f"{_before(first, ':=')}{{{{ range .Messages }}}}{''.join(branches)}{ends}{ends}{after}"


def _before(text: str, assign: str) -> str:
    """Go's statement that `text` stands ahead of the next user's message."""
    return f"{{{{ $before {assign} {json.dumps(text, ensure_ascii=False)} }}}}"


def _around(tokenizer: Tokenizer, *roles: str) -> list[str]:
    """What is written around the contents of a conversation that asks for an answer."""
    contents = {"system": _SYSTEM, "user": _ASKED, "assistant": _ANSWER}
    ends = [token for token, token_id in tokenizer.special_tokens.items() if token_id == tokenizer.eos_id]
    names = {"eos_token": "".join(ends), **tokenizer.special_names, "bos_token": "", **tokenizer.template_args}
    messages = [{"role": role, "content": contents[role]} for role in roles]
    names |= {"messages": messages, "add_generation_prompt": True}
    text = rendered(str(tokenizer.chat_template), None, names)
    pieces = re.split("|".join(contents.values()), re.sub(f"[{RESPONSE_BEGINS}{RESPONSE_ENDS}]", "", text))
    if re.findall("|".join(contents.values()), text) != [contents[role] for role in roles]:
        raise ValueError("a message is left out, or written twice")
    return pieces
