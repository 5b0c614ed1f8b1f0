"""SentencePiece's vocabularies (Kudo and Richardson 2018) in the Rust library's terms."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, processors

from slm.extras import require
from slm.tokenizers.base import breakdowns_refused

_SPACE = "\u2581"
_LONGEST = 64 << 20  # bytes of a vocabulary; the largest there are take five


def merges_by_score(vocab: Mapping[str, int], scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """Its BPE joins, of all pairs that are a token together, the one with the best score: as a list of merges."""
    found = []
    for token in vocab:
        halves = [(token[:i], token[i:]) for i in range(1, len(token))]
        pairs = sorted((vocab[a], vocab[b], a, b) for a, b in halves if a in vocab and b in vocab)
        found += [(-scores[token], -len(a), -len(b), a, b) for _, _, a, b in pairs]
    return [(a, b) for *_, a, b in sorted(found, key=lambda merge: merge[:3])]


def sentence_piece_backend(
    vocab: Mapping[str, int], merges: list[tuple[str, str]], unk_token: str, prefixed: bool
) -> tokenizers.Tokenizer:
    """A tokenizer of Llama's kind: what the vocabulary lacks is spelt by bytes; where `prefixed` a space is put before
    a text, and before what follows a special token."""
    model = models.BPE(dict(vocab), merges, unk_token=unk_token, fuse_unk=True, byte_fallback=True)
    backend = tokenizers.Tokenizer(model)
    prepended = [normalizers.Prepend(_SPACE)] if prefixed else []
    backend.normalizer = normalizers.Sequence([*prepended, normalizers.Replace(" ", _SPACE)])
    stripped = [decoders.Strip(" ", 1, 0)] if prefixed else []
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *stripped]
    backend.decoder = decoders.Sequence(steps)
    return backend


def begin_with(token: str, backend: tokenizers.Tokenizer) -> None:
    """Let it put `token` before every text."""
    backend.post_processor = processors.TemplateProcessing(
        single=[token, "$A"], pair=[token, "$A", "$B:1"], special_tokens=[(token, backend.token_to_id(token))]
    )


def read_sentence_pieces(file: Path, settings: Mapping[str, Any]) -> tokenizers.Tokenizer | None:
    """The vocabulary in a ``tokenizer.model``, `settings` those of the ``tokenizer_config.json`` beside it. None if it
    is of another kind than Llama's, byte-pair encoding of text as it is; `UserError` if it is damaged."""
    with file.open("rb") as opened:
        content = opened.read(_LONGEST + 1)
    if not content.startswith(b"\n") or len(content) > _LONGEST:  # the first field; others call their files so, too
        return None
    what = f"the vocabulary {file}"
    require("google.protobuf", "hf", what)
    proto = require("sentencepiece.sentencepiece_model_pb2", "hf", what).ModelProto()
    with breakdowns_refused(f"{file} is damaged", "fetch it again", also=Exception):
        proto.ParseFromString(content)
        normal, spec = proto.normalizer_spec, proto.trainer_spec
        if spec.model_type != spec.BPE or normal.precompiled_charsmap or normal.remove_extra_whitespaces:
            return None
        vocab = {piece.piece: i for i, piece in enumerate(proto.pieces)}
        merges = merges_by_score(vocab, {piece.piece: piece.score for piece in proto.pieces})
        backend = sentence_piece_backend(vocab, merges, proto.pieces[spec.unk_id].piece, normal.add_dummy_prefix)
        for piece in proto.pieces:
            if piece.type in (piece.CONTROL, piece.UNKNOWN):
                backend.add_special_tokens([piece.piece])
            elif piece.type == piece.USER_DEFINED:
                backend.add_tokens([tokenizers.AddedToken(piece.piece, normalized=False)])
        added = settings.get("added_tokens_decoder")
        for i, token in sorted((int(i), token) for i, token in (added or {}).items()):
            traits = {name: token[name] for name in ("lstrip", "rstrip", "normalized", "special") if name in token}
            backend.add_tokens([tokenizers.AddedToken(token["content"], **traits)])
            if backend.token_to_id(token["content"]) != i:
                raise ValueError(f"'{token['content']}' cannot have the id {i}")
        if settings.get("add_bos_token", True) and spec.bos_id >= 0:
            begin_with(proto.pieces[spec.bos_id].piece, backend)
    return backend
