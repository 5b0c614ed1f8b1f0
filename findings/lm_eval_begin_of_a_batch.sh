#!/usr/bin/env bash
# Whether a context gets its begin-of-text token in lm-eval hangs on the first context of its batch.
#
# lm-eval 0.4.13 with transformers 5.23.0, torch 2.13.0. HFLM.tok_batch_encode looks whether the first text of the batch
# begins with the token already, as one made by a chat template does, and tokenizes all by the answer. Seen: of a context
# with it and one without, batched in this order, neither is given one; in the other order both are, and the first then has
# two. Batched alone each has one. Expected by most: a context is read alike whatever stands beside it, at any batch size.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 lm-eval==0.4.13
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PY' 2> err || { cat err >&2; exit 1; }
from importlib.metadata import version

from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

assert version("lm-eval") == "0.4.13"
words = Tokenizer(models.WordLevel({"<s>": 0, "<pad>": 1, "a": 2, "b": 3, "c": 4, "d": 5}, "<pad>"))
words.add_special_tokens(["<s>", "<pad>"])
words.pre_tokenizer = pre_tokenizers.Whitespace()
words.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", pad_token="<pad>", eos_token="<pad>")
shape = LlamaConfig(vocab_size=6, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
lm = HFLM(pretrained=LlamaForCausalLM(shape), tokenizer=tokenizer, device="cpu")


def begins(*contexts: str) -> list[int]:
    """How many begin-of-text tokens each is given."""
    ids, _ = lm.tok_batch_encode(list(contexts))
    return [int((row == 0).sum()) for row in ids]


has, lacks = "<s> a b", "c d"
found = {"alone": begins(has) + begins(lacks), "with it first": begins(has, lacks), "with it last": begins(lacks, has)}
print(found)
assert found["alone"] == [1, 1]
assert found["with it first"] == [1, 0], "each context is looked at now"
assert found["with it last"] == [1, 2], "each context is looked at now"
PY
