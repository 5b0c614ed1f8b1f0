"""A model with its tokenizer: text in, text out."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from slm.chat.records import Message
from slm.errors import UserError
from slm.generation.completion import Completion, GrowingText, Piece, StopStrings, WithoutLead
from slm.generation.config import Asked, GenerationConfig, Prompt, settled
from slm.generation.engine import Engine
from slm.generation.graphed_step import GraphedSteps
from slm.generation.prefixes import Prefixes
from slm.generation.prompt_ids import PromptIds, ids_of_prompts
from slm.generation.request import End, Request, Token
from slm.models.contract import CausalLM
from slm.models.inference.prepared import prepare_for_inference
from slm.models.kernels.library import multiplies_bf16
from slm.models.kernels.waiting import heed_others
from slm.models.trace import Scalar, Trace, trace
from slm.schema import checked
from slm.tokenizers.base import StreamDecoder, Tokenizer
from slm.tokenizers.load import is_missing
from slm.weights.name_table import widest_dtype
from slm.weights.open_model import Source, find_source, open_source
from slm.weights.own_sampling import own_sampling


@dataclass
class LanguageModel:
    """What `load` gives: the model, in eval mode, its tokenizer, and what produced it, in plain types."""

    model: CausalLM
    tokenizer: Tokenizer
    facts: dict[str, Any]
    prefixes: Prefixes | None = None  # where one is set, no beginning that texts share is read twice
    _steps: GraphedSteps = field(default_factory=GraphedSteps, init=False, repr=False, compare=False)

    def settled(self, settings: GenerationConfig | None, changes: Mapping[str, Any]) -> GenerationConfig:
        """All settings of a continuation that is asked for with `settings`, if any, and `changes` of them."""
        if settings is None:
            return settled(changes, own_sampling(self.facts))
        return checked(GenerationConfig, {**asdict(settings), **changes})

    def stream(self, prompt: Asked, settings: GenerationConfig | None = None, **changes: Any) -> Iterator[str]:
        """The continuation of a text, which may be empty, or of ids, or the answer to a list of messages (``role``,
        ``content``), piece by piece, never half a character. Without `settings` as the model's makers do, and by
        the defaults of `GenerationConfig`; `changes` are single ones, e.g. ``max_new_tokens=64, greedy=True``. Raises
        `UserError` where one is unknown or out of range, the prompt is too long, or the chat template refuses it."""
        for piece in self.pieces(prompt, self.settled(settings, changes)):
            if piece.text:
                yield piece.text

    def pieces(self, prompt: Asked, settings: GenerationConfig) -> Iterator[Piece]:
        """As `stream`, with the token that each piece came by; its log-probability with ``logprobs``."""
        for _, piece in self._run([Prompt.of(prompt)], replace(settings, n=1)):
            if isinstance(piece, Piece):
                yield piece

    def generate(self, prompt: Asked, settings: GenerationConfig | None = None, **changes: Any) -> str:
        """The continuation of `prompt` as one string; arguments as for `stream`."""
        return "".join(self.stream(prompt, settings, **changes))

    def chat(
        self,
        messages: Sequence[Message],
        settings: GenerationConfig | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **changes: Any,
    ) -> Completion:
        """The answer to a conversation, whose `Completion.message` goes on with it. `tools` are described to the model
        as its chat template does; other arguments as for `stream`, which gives an answer piece by piece."""
        described = None if tools is None else list(map(dict, tools))
        asked = Prompt(messages=list(map(dict, messages)), tools=described)
        return self.complete([asked], replace(self.settled(settings, changes), n=1))[0][0]

    def follow(self, ids: Sequence[int], settings: GenerationConfig, lead: str = "") -> Iterator[Piece | Completion]:
        """The text that became certain with each token after `ids`, and last the `Completion`. The ids are taken as
        they are, without `Tokenizer.begin_ids`, and ``n`` as 1; a `lead` that the text begins with is no part of it:
        `ChatRenderer.answer_lead` of an answer."""
        return (event for _, event in self._written([PromptIds(ids, lead)], [Prompt()], replace(settings, n=1)))

    def complete(
        self, prompts: Sequence[Asked], settings: GenerationConfig | None = None, **changes: Any
    ) -> list[list[Completion]]:
        """``n`` continuations of each prompt, many written side by side; arguments as for `stream`."""
        settings = self.settled(settings, changes)
        done: list[list[Completion]] = [[] for _ in prompts]
        for index, completions in self.complete_each(prompts, settings):
            if (refusal := completions[0].refusal) is not None:
                raise UserError(f"prompt {index + 1} of {len(prompts)}: {refusal}")
            done[index] = completions
        return done

    def complete_each(
        self, prompts: Sequence[Asked], settings: GenerationConfig
    ) -> Iterator[tuple[int, list[Completion]]]:
        """As `complete`, each prompt's index and continuations as soon as all of them are done. A prompt that is
        refused keeps none of the others from being answered: its continuations say why."""
        n, done = settings.n, dict[int, Completion]()
        for index, completion in self._run(list(map(Prompt.of, prompts)), settings, others_go_on=True):
            if isinstance(completion, Completion):
                done[index] = completion
                samples = range(index - index % n, index - index % n + n)
                if all(sample in done for sample in samples):
                    yield index // n, [done.pop(sample) for sample in samples]

    def complete_ids(
        self, prompts: Sequence[Sequence[int]], settings: GenerationConfig, lead: str = ""
    ) -> list[Completion]:
        """One continuation of each prompt; arguments as for `follow`."""
        read = [PromptIds(ids, lead) for ids in prompts]
        events = self._written(read, [Prompt()] * len(read), replace(settings, n=1))
        done = {index: event for index, event in events if isinstance(event, Completion)}
        return [done[index] for index in range(len(prompts))]

    def trace(self, prompt: Asked, *, attention: bool = True, gradient_of: str | Scalar | None = None) -> Trace:
        """What the model computes on its way over a text, ids, or messages in its chat template: hidden states,
        attention maps, what layers write, the logit lens; as `trace` of `slm.models.trace`, with its other arguments.
        Raises `UserError` where the prompt is too long, or has an id that the model has not."""
        read = ids_of_prompts([Prompt.of(prompt)], self.tokenizer, GenerationConfig(chat=False))[0]
        if read.refusal is not None:
            raise UserError(f"trace: {read.refusal}")
        ids = torch.tensor([list(read.ids) or [self.tokenizer.eos_id]], device=self.model.head_weight.device)
        traced = trace(self.model, ids, attention=attention, gradient_of=gradient_of)
        return traced if is_missing(self.tokenizer) else replace(traced, text_of=lambda i: self.tokenizer.decode([i]))

    def _decoder(self, prompt_ids: Sequence[int], lead: str) -> StreamDecoder:
        begin = self.tokenizer.begin_ids
        begins = begin == tuple(prompt_ids[: len(begin)])  # of these no text knows
        return WithoutLead(self.tokenizer.decoder_after(prompt_ids[len(begin) if begins else 0 :]), lead)

    def _run(
        self, prompts: Sequence[Prompt], settings: GenerationConfig, others_go_on: bool = False
    ) -> Iterator[tuple[int, Piece | Completion]]:
        return self._written(ids_of_prompts(prompts, self.tokenizer, settings), prompts, settings, others_go_on)

    def _written(
        self,
        read: Sequence[PromptIds],
        prompts: Sequence[Prompt],  # whose ids those are
        settings: GenerationConfig,
        others_go_on: bool = False,
    ) -> Iterator[tuple[int, Piece | Completion]]:
        """(request, piece of its text) as they come, then (request, `Completion`)."""
        engine = self.engine(settings)
        texts = self.growing(read, prompts, settings)
        for event in engine.run([text.request for text in texts], others_go_on):
            text = texts[event.index]
            if isinstance(event, Token):
                piece = Piece(text.take(event), event)
                if text.stop.found:
                    engine.stop(event.index)
                yield event.index, piece
            elif isinstance(event, End):
                yield event.index, Piece(text.close(), None)
                refusal = engine.problem(text.request) if event.reason == "refused" else None
                yield event.index, text.completed(event.reason, settings.logprobs, refusal)

    def engine(self, settings: GenerationConfig, alike: bool = True, max_len: int | None = None) -> Engine:
        """What writes texts by `settings`; not `alike`: requests bring their own. `max_len` as of an `Engine`."""
        tokenizer, steps = self.tokenizer, self._steps if self.model.head_weight.is_cuda else None
        shape = (self.model, settings, tokenizer.eos_id, tokenizer.vocab_size, tokenizer.end_ids)
        return Engine(*shape, steps, alike, max_len, self.prefixes)

    def growing(
        self, read: Sequence[PromptIds], prompts: Sequence[Prompt], settings: GenerationConfig
    ) -> list[GrowingText]:
        """The ``n`` texts of each prompt, side by side, ahead of their first token; `read` are the prompts' ids."""
        start = time.perf_counter()
        texts = []
        for prompt, (ids, lead, refusal) in zip(prompts, read, strict=True):
            seed = settings.seed if prompt.seed is None else prompt.seed
            budget = prompt.max_new_tokens or settings.max_new_tokens
            for j in range(settings.n):
                own = None if seed is None else seed + j
                request = Request(ids, budget, own, refusal, settings, settings.alternatives)
                texts.append(GrowingText(request, self._decoder(ids, lead), StopStrings(settings.stop), start))
        return texts


def load(
    source: str | Path | Source,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    quantize: str | None = None,
    base: str | Path | None = None,
) -> LanguageModel:
    """Load a model from wherever it is; a `UserError` where there is none, or it is damaged or of no kind slm knows.

    Args:
        source: a run folder (its best model is taken), a model bundle, a Hugging Face folder, a GGUF file, a PEFT
            adapter, a checkpoint of nanoGPT or litgpt, a folder with GPT-2's released files, the name of such a release
            (``gpt2-124m``) or a name on the Hugging Face hub.
        device: by default a GPU if there is one, else the CPU.
        dtype: of the weights; by default bf16 on a GPU that has it, else as stored, but on a CPU fp32 for fp16, and
            with ``int4`` bf16 where the CPU multiplies it, else fp32.
        quantize: ``int8`` or ``int4`` weights; by default none, or what a quantized bundle has.
        base: of a PEFT adapter, the model that it was trained beside; by default the one it names, if that is here.
    """
    heed_others()
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    opened = open_source(source if isinstance(source, Source) else find_source(source, base=base))
    stored = widest_dtype(opened.table, opened.tensors)
    model: Any = opened.model(place, dtype or _usual_dtype(stored, place, quantize or opened.quantize))
    prepare_for_inference(model, quantize)
    return LanguageModel(model, opened.tokenizer, opened.facts)


def _usual_dtype(stored: torch.dtype, place: torch.device, quantize: str | None) -> torch.dtype | None:
    """Of the weights on a device; None as they are."""
    if place.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else None
    if place.type == "cpu" and quantize == "int4":  # the fastest there is
        return torch.bfloat16 if multiplies_bf16() else torch.float32
    return torch.float32 if place.type == "cpu" and stored == torch.float16 else None
