"""A model as lm-eval asks of one: `TemplateLM` over token scoring and the decode engine. Imports lm-eval."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text

from slm.chat.writer import ConversationWriter
from slm.errors import UserError
from slm.evaluation.reader import Reader
from slm.generation.config import GenerationConfig
from slm.notices import notice_once
from slm.scoring.token_scores import ScoreRequest
from slm.scoring.windows import rolling

_MAX_GEN_TOKS = 256  # of a task that does not say: what lm-eval's own `hf` takes
_READ = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")  # of a task's generation_kwargs
_NO_DRAW = ("do_sample", "until", "max_gen_toks", "num_beams", "pad_token_id")


class HarnessModel(TemplateLM):
    """Answers the three kinds of requests that tasks make."""

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self.reader = reader

    # ---- what lm-eval asks about the vocabulary ----

    @property
    def eot_token_id(self) -> int:
        return self.reader.tokenizer.eos_id

    @property
    def prefix_token_id(self) -> int:
        """What an empty context is read as."""
        return self.reader.spelled.begin_id

    @property
    def max_length(self) -> int:
        return self.reader.longest

    @property
    def tokenizer_name(self) -> str:
        return self.reader.tokenizer.fingerprint[:16]

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        return self.reader.spelled.ids(string, begins=add_special_tokens is not False)

    # ---- chat ----

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        return self.reader.tokenizer.chat_template if chat_template else None

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The conversation as text. Without `add_generation_prompt` its last message is one to go on with: what the
        template writes behind it is left out."""
        writer = ConversationWriter(self.reader.tokenizer, None, {})
        text = writer.meant(writer.text(chat_history, asking=add_generation_prompt))
        if add_generation_prompt:
            return text
        last = chat_history[-1]["content"].strip()
        return text[: text.rindex(last) + len(last)] if last else text

    # ---- requests ----

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Of continuations, each with whether it is the likeliest; without a bar for the time that encoding takes."""
        return super().loglikelihood(requests, disable_tqdm=True)

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        scores = self.reader.scores([ScoreRequest(context, continuation) for _, context, continuation in requests])
        found = [(one.total, one.is_greedy) for one in scores]
        for request, answer in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood", request[0], answer)
        return found

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Of whole texts, each token once."""
        windows: list[ScoreRequest] = []
        owners: list[int] = []
        for number, request in enumerate(requests):
            ids = self.tok_encode(request.args[0])
            cut = rolling(ids, [self.prefix_token_id], self.max_length) if ids else []
            windows += [ScoreRequest(*window) for window in cut]
            owners += [number] * len(cut)
        totals = [0.0] * len(requests)
        for owner, one in zip(owners, self.reader.scores(windows), strict=True):
            totals[owner] += one.total
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """What the model writes after each context, up to a stop; those of equal settings side by side."""
        groups: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(repr(sorted(request.args[1].items())), []).append(number)
        texts = [""] * len(requests)
        for numbers in groups.values():
            contexts = [requests[number].args[0] for number in numbers]
            for number, text in zip(numbers, self._written(contexts, requests[numbers[0]].args[1]), strict=True):
                texts[number] = text
        return texts

    def _written(self, contexts: Sequence[str], asked: Mapping[str, Any]) -> Iterable[str]:
        named, until = _settings(asked, self.max_length)
        settings = GenerationConfig(**named, batch_size=self.reader.batch_size)
        room = self.max_length - settings.max_new_tokens
        prompts = [self.tok_encode(context)[-room:] for context in contexts]
        for text in self.reader.written(prompts, settings):
            yield postprocess_generated_text(generation=text, stop=until, think_end_token=None)


def _settings(asked: Mapping[str, Any], longest: int) -> tuple[dict[str, Any], list[str]]:
    """Of a task's ``generation_kwargs``: ours, and where the text ends."""
    known = normalize_gen_kwargs(dict(asked), _MAX_GEN_TOKS)
    until = [stop for stop in handle_stop_sequences(known.get("until"), eos=None) if stop]
    if unread := sorted(known.keys() - {*_READ, *_NO_DRAW}):
        notice_once(f"lm_eval: generation settings that are not read here: {', '.join(unread)}")
    most = int(known["max_gen_toks"])
    if most >= longest:
        notice_once(
            f"lm_eval: a task asks for {most} new tokens, and the model has {longest} positions in all; half of them "
            "are left for the prompt (gen_kwargs.max_gen_toks sets another number)"
        )
        most = longest // 2
    if most < 1:
        raise UserError(f"lm_eval: a task asks for {most} new tokens; set gen_kwargs.max_gen_toks")
    draws = {name: known[name] for name in _READ if known.get(name) is not None} if known["do_sample"] else {}
    base = {"top_k": 0, "temperature": 1.0, **draws, "seed": 1} if known["do_sample"] else {"greedy": True}
    return {"max_new_tokens": most, "stop": until, "chat": False, **base}, until
