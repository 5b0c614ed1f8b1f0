"""Plain values read from a YAML file that others may have written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slm.errors import UserError
from slm.files.bounded_text import bounded_text

_MOST_BYTES = 1 << 18  # a run's whole configuration takes 5 KiB


def read_yaml_object(file: Path) -> dict[str, Any]:
    """What `file` holds: mappings, lists, numbers, texts, and no Python objects.

    Raises:
        UserError: it is missing, unreadable, too large, not YAML, nested without end, another value than a mapping, or
            has aliases: a few lines of them stand for more values than a memory holds.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("it has aliases")
            return super().compose_node(parent, index)

    mend = "restore it"
    try:
        content = yaml.load(bounded_text(file, _MOST_BYTES, mend), Loader)
    except UserError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{file} is damaged ({reason}); {mend}") from None
    if not isinstance(content, dict):
        raise UserError(f"{file} is damaged (it holds no mapping); {mend}")
    return content
