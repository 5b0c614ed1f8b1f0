"""Words that are typed without a name: ``slm-runs outputs``."""

from collections.abc import Callable

from slm.cli.command import quoted, read
from slm.errors import UserError


def words_as(key: str) -> Callable[[list[str]], list[str]]:
    """Rewrites a command line whose words that are no settings are the list of `key`."""

    def rewrite(arguments: list[str]) -> list[str]:
        line = read(arguments)
        words = [word for word in line.settings if "=" not in word and not word.startswith(("~", "+"))]
        if not words:
            return arguments
        settings = [word for word in line.settings if word not in words]
        if any(setting.startswith(f"{key}=") for setting in settings):
            raise UserError(f"{key} is given twice: as {key}=… and without a name, '{words[0]}'; type one")
        return [*line.flags, f"{key}=[{','.join(map(quoted, words))}]", *settings]

    return rewrite
