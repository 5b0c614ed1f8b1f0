"""A decoding step whose shapes and addresses never change: on a GPU recorded once as a CUDA graph and replayed."""

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from slm.generation.config import GenerationConfig
from slm.generation.sampling import has_rules, next_tokens
from slm.models.contract import CausalLM
from slm.models.inference.kv_cache import KVCache, StaticCache
from slm.notices import notice

_SMALLEST = 256  # positions; larger caches are twice, four times … as long, so that few graphs serve all texts
_MOST_KEPT = 2  # each holds a cache
_WARM_UPS = 3


class GraphedStep:
    """One token a row: hidden states, head and, where no rule looks at the texts so far, the draw of the next token.
    Rows that are not in use compute numbers that nobody reads. On a CPU the same operations run one by one. The model
    is in eval mode; its `make_cache` gives a `KVCache`."""

    def __init__(
        self,
        model: CausalLM,
        settings: GenerationConfig,
        n_rows: int,
        max_len: int,
        vocab_size: int | None,
        draws: bool = True,
    ) -> None:
        self.cache: KVCache = model.make_cache(n_rows, max_len)  # the caller keeps its account of the rows
        self.reset()
        self.draws = draws and not has_rules(settings)  # the step draws the tokens too
        self.lock = threading.Lock()
        self._static = StaticCache(self.cache, model.config.params.max_seq_len)
        device = self.cache.keys.device
        self._tokens = torch.zeros(n_rows, dtype=torch.int64, device=device)
        self._uniforms = torch.zeros(n_rows, device=device)
        self._logits = torch.empty(0)

        def step() -> None:
            self._logits = model.head(model.hidden_states(self._tokens[:, None], self._static)[:, -1])
            if self.draws:
                uniforms = None if settings.greedy else self._uniforms
                self._tokens.copy_(next_tokens(self._logits[:, :vocab_size], settings, uniforms))

        self._step, self._read = _recorded(step, device)

    def reset(self) -> None:
        """No row in use, and no number of an earlier text anywhere: one of them might be nan."""
        self.cache.keep(0)
        self.cache.keys.zero_()
        self.cache.values.zero_()
        self._standing: list[int] = []  # the lengths that the device has

    def __call__(self, tokens: Tensor, uniforms: Sequence[float]) -> tuple[Tensor, Tensor]:
        """Append `tokens` (B,), one for each row in use; the next (B,) if it `draws`, and their logits (B, V). The next
        call writes over both. B numbers in [0, 1) decide the draws; none if greedy or if it does not draw."""
        n = len(tokens)
        if tokens.data_ptr() != self._tokens.data_ptr():
            self._tokens[:n].copy_(tokens)
        if self.cache.lengths != self._standing:
            padded = [*self.cache.lengths, *([0] * (len(self._tokens) - n))]
            self._static.lengths.copy_(sent(padded, torch.int64, tokens.device))
        if uniforms:
            self._uniforms[:n].copy_(sent(uniforms, torch.float32, tokens.device))
        self._step()
        self.cache.advance(1)
        self._standing = list(self.cache.lengths)
        return self._tokens[:n], self._logits[:n]


class GraphedSteps:
    """The steps made last for one model; recording one takes as long as a few dozen tokens."""

    def __init__(self) -> None:
        self._steps: dict[Any, GraphedStep] = {}
        self._failed = False

    def __reduce__(self) -> tuple[Any, ...]:
        return GraphedSteps, ()  # a copy of the model has weights of its own

    def lease(
        self,
        model: Any,
        settings: GenerationConfig,
        n_rows: int,
        room: int,
        vocab_size: int | None,
        draws: bool = True,
    ) -> GraphedStep | None:
        """A step with `n_rows` rows of at least `room` positions, no row in use, its `lock` held for the caller; it
        `draws` tokens unless rows have settings of their own. None if it is at work elsewhere, and for what a step
        cannot do; that a model cannot be recorded is said once."""
        if self._failed or settings.overflow == "slide" or torch.is_autocast_enabled(model.head_weight.device.type):
            return None
        scaling = model.config.modules.position_embedding.rotary.scaling
        if scaling is not None and scaling.kind in ("dynamic", "longrope"):  # its angles change with the text's length
            return None
        max_len = min(model.config.params.max_seq_len, max(_SMALLEST, 1 << (room - 1).bit_length()))
        draw = (settings.greedy, settings.temperature, settings.top_k, settings.top_p, settings.min_p)
        key = (n_rows, max_len, draw if draws and not has_rules(settings) else None, vocab_size)
        # a step is no longer the model's once its weights moved
        weights = tuple((w.data_ptr(), w.dtype) for w in itertools.chain(model.parameters(), model.buffers()))
        self._steps = {k: step for k, step in self._steps.items() if k[1] == weights}
        step = self._steps.pop((key, weights), None)
        if step is None:
            while len(self._steps) >= _MOST_KEPT:
                del self._steps[next(iter(self._steps))]
            if (step := self._made(model, settings, n_rows, max_len, vocab_size, draws)) is None:
                return None
        self._steps[key, weights] = step
        if not step.lock.acquire(blocking=False):
            return None
        step.reset()
        return step

    def _made(self, model: CausalLM, *shape: Any) -> GraphedStep | None:
        try:
            if type(model.make_cache(1, 1)) is KVCache:
                return GraphedStep(model, *shape)
        except Exception as error:  # what a registered model does cannot be known; its texts come all the same
            reason = str(error).strip().partition("\n")[0]
            notice(f"decoding without a CUDA graph: {type(error).__name__}: {reason}")
        self._failed = True
        return None


class _Reads(TorchDispatchMode):
    """The tensors that operations read and did not make: weights, tables and buffers, wherever kept."""

    def __init__(self) -> None:
        super().__init__()
        self.read: dict[int, Tensor] = {}
        self._made: dict[int, Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor) and id(leaf) not in self._made:
                self.read[id(leaf)] = leaf
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and id(leaf) not in self.read:
                self._made[id(leaf)] = leaf
        return out


def _recorded(step: Callable[[], None], device: torch.device) -> tuple[Callable[[], Any], list[Tensor]]:
    # the step as a graph (on a GPU), and what it reads: a graph knows addresses only, so somebody must keep them
    step()  # what is made once, as rotary tables are, is there from now on
    with _Reads() as reads:
        step()
    read = [tensor.detach() for tensor in reads.read.values()]  # of their memory, also if a module takes new
    del reads
    if device.type != "cuda":
        return step, read
    with torch.cuda.device(device):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
    return graph.replay, read


def sent(numbers: Sequence[float], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor (n,) on the device, without waiting for it."""
    return torch.tensor(numbers, dtype=dtype, pin_memory=device.type == "cuda").to(device, non_blocking=True)
