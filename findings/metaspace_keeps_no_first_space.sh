#!/usr/bin/env bash
# tokenizers' Metaspace writes "hello" and " hello" as the same; SentencePiece, whose rule it stands for, does not.
#
# tokenizers 0.23.3, sentencepiece 0.2.3. SentencePiece puts a "▁" ahead of every text, also of one that begins with a
# space: " hello" has two. Metaspace, with prepend_scheme "first" as with "always", puts none where one is already, and so
# gives "▁hello" for both: a space at the beginning of a text is lost. The normalizer Prepend, which older converted
# files have in its place, keeps it. Seen: SentencePiece ▁hello / ▁▁hello, Metaspace ▁hello / ▁hello, Prepend and
# Replace ▁hello / ▁▁hello. Expected by most: the same model in either library gives the same ids.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tokenizers==0.23.3 sentencepiece==0.2.3
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import io

import sentencepiece
import tokenizers
from tokenizers import normalizers, pre_tokenizers

assert (tokenizers.__version__, sentencepiece.__version__) == ("0.23.3", "0.2.3")
model = io.BytesIO()
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(["hello world"] * 9),
    model_writer=model,
    model_type="bpe",
    vocab_size=12,
    hard_vocab_limit=False,
    normalization_rule_name="identity",
    remove_extra_whitespaces=False,
    minloglevel=2,
)
processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
replaced = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
kinds = {
    "SentencePiece": lambda text: "".join(processor.encode(text, out_type=str)),
    "Prepend and Replace": replaced.normalize_str,
}
for scheme in ("first", "always"):
    metaspace = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    kinds[f"Metaspace {scheme}"] = lambda text, metaspace=metaspace: "".join(
        piece for piece, _ in metaspace.pre_tokenize_str(text)
    )
seen = {name: (write("hello"), write(" hello")) for name, write in kinds.items()}
print(seen)
assert seen["SentencePiece"] == seen["Prepend and Replace"] == ("▁hello", "▁▁hello")
assert seen["Metaspace first"] == seen["Metaspace always"] == ("▁hello", "▁hello"), "Metaspace keeps the space now"
PY
