"""Prompts to the ids that a model reads: texts, ids themselves, and conversations by the chat template."""

from collections.abc import Sequence
from typing import NamedTuple

from slm.chat.records import Message
from slm.chat.renderer import ChatRenderer
from slm.errors import UserError
from slm.generation.config import GenerationConfig, Prompt
from slm.tokenizers.base import Tokenizer

_NO_TOOLS = "tools are described by a chat template, which this prompt is not asked by; leave them out"


class PromptIds(NamedTuple):
    """A prompt as it is read."""

    ids: Sequence[int]
    lead: str = ""  # white space ahead of every answer, which is no part of one: `ChatRenderer.answer_lead`
    refusal: str | None = None  # why there are none


def ids_of_prompts(prompts: Sequence[Prompt], tokenizer: Tokenizer, settings: GenerationConfig) -> list[PromptIds]:
    """The ids of each prompt, in their order; a text is a message where `settings` and the model have it so. What the
    chat template refuses is told in its place. `UserError` where a template is asked for and the model has none, or
    there are settings for one and nothing is asked by it."""
    chats = settings.chat is True or (settings.chat == "auto" and tokenizer.chat_template is not None)
    talks = [prompt.messages is not None or (chats and prompt.ids is None) for prompt in prompts]
    if prompts and not any(talks):
        check_no_chat(settings, tokenizer)
    renderer = ChatRenderer(tokenizer, template_args=settings.template_args) if any(talks) else None
    texts = [prompt.text for prompt, talk in zip(prompts, talks, strict=True) if not talk and prompt.ids is None]
    encoded = iter(tokenizer.encode_batch(texts))
    read = []
    for prompt, talk in zip(prompts, talks, strict=True):
        if talk and renderer is not None:
            read.append(_of_conversation(prompt, renderer, settings.system))
            continue
        ids = [*tokenizer.begin_ids, *next(encoded)] if prompt.ids is None else prompt.ids
        read.append(PromptIds([], refusal=_NO_TOOLS) if prompt.tools else PromptIds(ids))
    return read


def with_system(messages: Sequence[Message], system: str | None) -> list[Message]:
    """`messages`, told `system` ahead of them, if anything, where they do not begin with such a message themselves."""
    begins = messages and messages[0].get("role") in ("system", "developer")
    return [*messages] if system is None or begins else [{"role": "system", "content": system}, *messages]


def _of_conversation(prompt: Prompt, renderer: ChatRenderer, system: str | None) -> PromptIds:
    asked = [{"role": "user", "content": prompt.text}] if prompt.messages is None else prompt.messages
    messages = with_system(asked, system if prompt.system is None else prompt.system)
    if not messages or messages[-1].get("role") == "assistant":
        last = "the assistant's words; leave these for the model to write" if messages else "none to answer"
        return PromptIds([], refusal=f"the last of the messages is {last}")
    try:
        return PromptIds(renderer.prompt_ids(messages, prompt.tools), renderer.answer_lead)
    except UserError as error:
        return PromptIds([], refusal=str(error))


def check_no_chat(settings: GenerationConfig, tokenizer: Tokenizer) -> None:
    """Raise `UserError` for a setting that is for conversations, where none is held."""
    why = "generation.chat is false" if tokenizer.chat_template is not None else "the model has no chat template"
    for name in ("system", "template_args"):
        if getattr(settings, name):
            raise UserError(f"generation.{name} is for conversations, and {why}; leave it out")
