"""The text of a continuation as its tokens come, and what is said of it at its end."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from slm.generation.request import Alternatives, Reason, Request, Token
from slm.tokenizers.base import StreamDecoder


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
    alternatives: list[Alternatives] | None = None  # the likeliest tokens where each came; None unless asked

    @property
    def message(self) -> dict[str, str]:
        """The text as the next message of a conversation."""
        return {"role": "assistant", "content": self.text}

    @property
    def new_tokens(self) -> int:
        return len(self.ids)

    @property
    def tokens_per_second(self) -> float:
        """Of those after the first."""
        later = self.seconds - self.seconds_to_first_token
        return (self.new_tokens - 1) / later if later > 0 else 0.0


@dataclass(frozen=True)
class Piece:
    """The text, often none, that became certain with a token; None of what was held back until the end."""

    text: str
    token: Token | None


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
class GrowingText:
    """The text of a request while its tokens come."""

    request: Request
    decoder: StreamDecoder
    stop: StopStrings
    began: float
    pieces: list[str] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    alternatives: list[Alternatives] = field(default_factory=list)
    first: float = 0.0

    def take(self, token: Token) -> str:
        """What became certain with this token."""
        if not self.ids:
            self.first = time.perf_counter() - self.began
        self.ids.append(token.token_id)
        if token.logprob is not None:
            self.logprobs.append(token.logprob)
            self.alternatives.append(token.alternatives)
        self.pieces.append(self.stop.push(self.decoder.push(token.token_id)))
        return self.pieces[-1]

    def close(self) -> str:
        """What was still held back."""
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
            alternatives=self.alternatives if logprobs and self.request.alternatives else None,
        )
