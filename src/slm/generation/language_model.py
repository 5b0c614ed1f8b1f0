"""A model with its tokenizer: text in, text out."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from slm.chat.renderer import ChatRenderer
from slm.errors import UserError
from slm.generation.config import GenerationConfig, Prompt, settled
from slm.generation.engine import Engine, Reason, Request, Token
from slm.generation.graphed_step import GraphedSteps
from slm.models.contract import CausalLM
from slm.models.inference.prepared import prepare_for_inference
from slm.models.kernels.waiting import heed_others
from slm.schema import checked
from slm.tokenizers.base import StreamDecoder, Tokenizer
from slm.weights.name_table import widest_dtype
from slm.weights.open_model import Source, find_source, open_source
from slm.weights.own_sampling import own_sampling


@dataclass(frozen=True)
class Completion:
    """A continuation and how it came about."""

    text: str  # without the stop string that ended it
    ids: list[int]  # the last ones may belong to a stop string
    finish_reason: Reason
    prompt_tokens: int
    logprobs: list[float] | None  # of each token, in nats; None unless asked for
    seconds_to_first_token: float  # from the call on, other prompts before it included
    seconds: float
    refusal: str | None = None  # why the prompt was refused; None if it was not

    @property
    def new_tokens(self) -> int:
        return len(self.ids)

    @property
    def tokens_per_second(self) -> float:
        """Of those after the first."""
        later = self.seconds - self.seconds_to_first_token
        return (self.new_tokens - 1) / later if later > 0 else 0.0


class WithoutLead(StreamDecoder):
    """Another decoder's text without the `lead` it may begin with: a chat template's white space ahead of an answer."""

    def __init__(self, decoder: StreamDecoder, lead: str) -> None:
        self._decoder = decoder
        self._lead = lead
        self._held = ""

    def push(self, token_id: int) -> str:
        return self._past_lead(self._decoder.push(token_id))

    def flush(self) -> str:
        text = self._past_lead(self._decoder.flush())
        held, self._held = self._held, ""  # a text that is shorter than the lead stays
        return text + held

    def _past_lead(self, piece: str) -> str:
        if not self._lead:
            return piece
        self._held += piece
        if len(self._held) < len(self._lead) and self._lead.startswith(self._held):
            return ""
        text, self._held, self._lead = self._held.removeprefix(self._lead), "", ""
        return text


class StopStrings:
    """Cuts a text before a string of `stop`, and holds back what might begin one, wherever a token's border falls."""

    def __init__(self, stop: Sequence[str]) -> None:
        self.stop = list(stop)
        self.found = False
        self._held = ""

    def push(self, piece: str) -> str:
        """The text that is certain to come before any stop string."""
        if not self.stop or self.found:
            return "" if self.found else piece
        text = self._held + piece
        places = [place for stop in self.stop if (place := text.find(stop)) >= 0]
        if places:
            self.found, self._held = True, ""
            return text[: min(places)]
        kept = max(_overlap(text, stop) for stop in self.stop)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def flush(self) -> str:
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    # the length of the longest end of `text` that `stop` begins with
    return next(n for n in range(min(len(text), len(stop) - 1), -1, -1) if text.endswith(stop[:n]))


@dataclass
class _Text:
    request: Request
    decoder: StreamDecoder
    stop: StopStrings
    began: float
    pieces: list[str] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    first: float = 0.0

    def take(self, token: Token) -> str:
        if not self.ids:
            self.first = time.perf_counter() - self.began
        self.ids.append(token.token_id)
        if token.logprob is not None:
            self.logprobs.append(token.logprob)
        self.pieces.append(self.stop.push(self.decoder.push(token.token_id)))
        return self.pieces[-1]

    def close(self) -> str:
        self.pieces.append(self.stop.push(self.decoder.flush()) + self.stop.flush())
        return self.pieces[-1]

    def completed(self, reason: Reason, logprobs: bool, refusal: str | None) -> Completion:
        return Completion(
            text="".join(self.pieces),
            ids=self.ids,
            finish_reason="stop" if self.stop.found else reason,
            prompt_tokens=len(self.request.prompt_ids),
            logprobs=self.logprobs if logprobs else None,
            seconds_to_first_token=self.first,
            seconds=time.perf_counter() - self.began,
            refusal=refusal,
        )


@dataclass
class LanguageModel:
    """What `load` gives: the model, in eval mode, its tokenizer, and what produced it, in plain types."""

    model: CausalLM
    tokenizer: Tokenizer
    facts: dict[str, Any]
    _steps: GraphedSteps = field(default_factory=GraphedSteps, init=False, repr=False, compare=False)

    def settled(self, settings: GenerationConfig | None, changes: Mapping[str, Any]) -> GenerationConfig:
        """All settings of a continuation that is asked for with `settings`, if any, and `changes` of them."""
        if settings is None:
            return settled(changes, own_sampling(self.facts))
        return checked(GenerationConfig, {**asdict(settings), **changes})

    def stream(self, prompt: str, settings: GenerationConfig | None = None, **changes: Any) -> Iterator[str]:
        """The continuation of `prompt`, which may be empty, piece by piece, never half a character. Without `settings`
        as the model's makers do, and by the defaults of `GenerationConfig`; `changes` are single ones, e.g.
        ``max_new_tokens=64, greedy=True``. Raises `UserError` where one is unknown or out of range, or the prompt is
        too long."""
        settings = replace(self.settled(settings, changes), n=1)
        for _, piece in self._run([prompt], settings):
            if isinstance(piece, str) and piece:
                yield piece

    def generate(self, prompt: str, settings: GenerationConfig | None = None, **changes: Any) -> str:
        """The continuation of `prompt` as one string; arguments as for `stream`."""
        return "".join(self.stream(prompt, settings, **changes))

    def follow(self, ids: Sequence[int], settings: GenerationConfig, lead: str = "") -> Iterator[str | Completion]:
        """The text that became certain with each token after `ids` (often none), and last the `Completion`. The
        ids are taken as they are, without `Tokenizer.begin_ids`, and ``n`` as 1; a `lead` that the text begins with is
        no part of it: `ChatRenderer.answer_lead` of an answer."""
        return (event for _, event in self._run([], replace(settings, n=1), [ids], lead=lead))

    def complete(
        self, prompts: Sequence[str | Prompt], settings: GenerationConfig | None = None, **changes: Any
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
        self, prompts: Sequence[str | Prompt], settings: GenerationConfig
    ) -> Iterator[tuple[int, list[Completion]]]:
        """As `complete`, each prompt's index and continuations as soon as all of them are done. A prompt that is
        refused keeps none of the others from being answered: its continuations say why."""
        n, done = settings.n, dict[int, Completion]()
        for index, completion in self._run(prompts, settings, others_go_on=True):
            if isinstance(completion, Completion):
                done[index] = completion
                samples = range(index - index % n, index - index % n + n)
                if all(sample in done for sample in samples):
                    yield index // n, [done.pop(sample) for sample in samples]

    def complete_ids(
        self, prompts: Sequence[Sequence[int]], settings: GenerationConfig, lead: str = ""
    ) -> list[Completion]:
        """One continuation of each prompt; arguments as for `follow`."""
        events = self._run([], replace(settings, n=1), prompts, lead=lead)
        done = {index: event for index, event in events if isinstance(event, Completion)}
        return [done[index] for index in range(len(prompts))]

    def _encoded(self, prompts: Sequence[str], chat: bool | str) -> tuple[list[list[int]], str]:
        # ids, and the lead of what follows them
        tokenizer = self.tokenizer
        if chat is True or (chat == "auto" and tokenizer.chat_template is not None):
            renderer = ChatRenderer(tokenizer)
            asked = [renderer.prompt_ids([{"role": "user", "content": prompt}]) for prompt in prompts]
            return asked, renderer.answer_lead
        return [[*tokenizer.begin_ids, *ids] for ids in tokenizer.encode_batch(list(prompts))], ""

    def _decoder(self, prompt_ids: Sequence[int], lead: str) -> StreamDecoder:
        begin = self.tokenizer.begin_ids
        begins = begin == tuple(prompt_ids[: len(begin)])  # of these no text knows
        return WithoutLead(self.tokenizer.decoder_after(prompt_ids[len(begin) if begins else 0 :]), lead)

    def _run(
        self,
        prompts: Sequence[str | Prompt],
        settings: GenerationConfig,
        prompt_ids: Sequence[Sequence[int]] | None = None,
        others_go_on: bool = False,
        lead: str = "",
    ) -> Iterator[tuple[int, str | Completion]]:
        """(request, piece of its text) as they come, then (request, `Completion`); of `prompt_ids` if given."""
        start = time.perf_counter()
        tokenizer = self.tokenizer
        asked = [Prompt.of(prompt) for prompt in prompts] or [Prompt("")] * len(prompt_ids or ())
        if prompt_ids is None:
            prompt_ids, lead = self._encoded([prompt.text for prompt in asked], settings.chat)
        requests = []
        for prompt, ids in zip(asked, prompt_ids, strict=True):
            seed = settings.seed if prompt.seed is None else prompt.seed
            budget = prompt.max_new_tokens or settings.max_new_tokens
            requests += [Request(ids, budget, None if seed is None else seed + j) for j in range(settings.n)]
        steps = self._steps if self.model.head_weight.is_cuda else None
        engine = Engine(self.model, settings, tokenizer.eos_id, tokenizer.vocab_size, tokenizer.end_ids, steps)
        texts = [_Text(r, self._decoder(r.prompt_ids, lead), StopStrings(settings.stop), start) for r in requests]
        for event in engine.run(requests, others_go_on):
            text = texts[event.index]
            if isinstance(event, Token):
                piece = text.take(event)
                if text.stop.found:
                    engine.stop(event.index)
                yield event.index, piece
            else:
                yield event.index, text.close()
                refusal = engine.problem(text.request) if event.reason == "refused" else None
                yield event.index, text.completed(event.reason, settings.logprobs, refusal)


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
        dtype: of the weights; by default bf16 on a GPU that has it, else as stored, but fp32 for fp16 on a CPU.
        quantize: ``int8`` or ``int4`` weights; by default none, or what a quantized bundle has.
        base: of a PEFT adapter, the model that it was trained beside; by default the one it names, if that is here.
    """
    heed_others()
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    opened = open_source(source if isinstance(source, Source) else find_source(source, base=base))
    if dtype is None and place.type == "cuda" and torch.cuda.is_bf16_supported():
        dtype = torch.bfloat16
    if dtype is None and place.type == "cpu" and widest_dtype(opened.table, opened.tensors) == torch.float16:
        dtype = torch.float32
    model: Any = opened.model(place, dtype)
    prepare_for_inference(model, quantize)
    return LanguageModel(model, opened.tokenizer, opened.facts)
