"""slm-prepare: text to token store, ahead of training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from slm.cli.app import entry_point
from slm.cli.command import Command
from slm.cli.given_model import reject_unknown
from slm.errors import UserError, refuse
from slm.schema import Count, together, value_problems

if TYPE_CHECKING:
    from slm.data.config import CorpusConfig


def prepare(values: dict[str, Any], corpus: CorpusConfig) -> None:
    """The command's task."""
    from slm.data.config import MIXTURE_KIND, STORE_KIND
    from slm.data.store.data_card import CARD_FILE, summary_lines
    from slm.data.store.find import prepare_store
    from slm.files.reading import read_json_object
    from slm.notices import notice

    if corpus.kind == STORE_KIND:
        raise UserError("data=prepared is a token store already; name the text, e.g. data=text data.path=…")
    if corpus.kind == MIXTURE_KIND:
        raise UserError(
            "data=mixture is put together by slm-train; prepare each part, the later ones with the first one's "
            "vocabulary (tokenizer=saved tokenizer.path=…), and name them as its parts (kind: prepared)"
        )
    out = Path(values["out"]).expanduser()
    if out.exists():
        raise UserError(f"out: '{out}' exists already; remove it or name another folder")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out: cannot make the folder '{out.parent}' ({error.strerror})") from None
    prepare_store(corpus, values["tokenizer"], out, values["num_processes"])
    card = read_json_object(out / CARD_FILE)
    for line in summary_lines(card):
        notice(line)
    told = ("train", "val", "bytes_per_token", "dropped", "faults")
    print(json.dumps({"out": str(out), **{key: card[key] for key in told}, **card["tokenizer"]}))


def _checked(values: dict[str, Any]) -> CorpusConfig:
    from slm.data.config import CorpusConfig
    from slm.tokenizers.build import tokenizer_problems
    from slm.training.run_config import import_plugins

    import_plugins(values["plugins"])
    return together(
        lambda: CorpusConfig.from_dict(values["data"]),
        lambda: refuse(value_problems(Count | Literal["auto"], values["num_processes"], "num_processes")),
        lambda: reject_unknown(values, {"out", "data", "tokenizer", "plugins", "num_processes"}),
        lambda: refuse(tokenizer_problems(values["tokenizer"])),
    )[0]


main = entry_point(Command("prepare", prepare, _checked, paths=("out", "data.path", "data.val_path")), __name__)
