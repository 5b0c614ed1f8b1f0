"""What Hydra and OmegaConf complain about, said so that the user can mend it."""

from __future__ import annotations

import re
import traceback

from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from slm.errors import did_you_mean

_NO_MATCH = re.compile(r"Could not override '([^']+)'\.?\s*No match in the defaults list")


_IN_EXTRA = ("optuna", "joblib", "submitit")
_COMPOSER = re.compile(r"(hydra\.(_internal|core|grammar)|omegaconf|antlr4)\b(?!.*instantiate)")


def explain(error: BaseException | None) -> str | None:
    """One line for a mistake in the command line or a config file; None for any other error."""
    if isinstance(error, MissingConfigException):
        return _missing_config(error)
    if isinstance(error, OverrideParseException):
        if "=" not in str(error.override):
            return f"cannot read '{error.override}': a setting is key=value"
        return (
            f"cannot read '{error.override}': {_first_line(error)}; quote values with spaces or brackets twice, "
            "e.g. 'key=\"a b\"'"
        )
    if isinstance(error, MissingMandatoryValue):
        key = error.full_key
        return f"{key} is missing; set it: {key}=…"
    if isinstance(error, ValueError) and "Config group override" in str(error):  # model=null, model=3
        return f"{_one_line(error)}; a group takes the name of one of its choices, e.g. model=base"
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return _one_line(error) or explain(error.__cause__)
    if error is not None and _COMPOSER.match(_raised_in(error)):  # model=[1,2] is a TypeError deep inside Hydra
        return (
            f"these settings cannot be composed ({_one_line(error)}); a group takes the name of one of its choices, "
            "e.g. model=base, any other setting a value, key=value"
        )
    return None


def _raised_in(error: BaseException) -> str:
    """The module whose code raised it."""
    innermost = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        innermost = frame.f_globals.get("__name__", "")
    return innermost


def could_not_override(error: Exception, override: str | None) -> str | None:
    """The line for a group that is in no defaults list, where its key alone would not do; None for any other error."""
    found = _NO_MATCH.search(str(error)) if isinstance(error, ConfigCompositionException) else None
    if found is None or override is None:
        return None
    return f"the configuration has no '{found.group(1)}' to choose anew; to add one: +{override.lstrip('+')}"


def _missing_config(error: MissingConfigException) -> str:
    wanted = str(error.missing_cfg_file or "")
    group, _, choice = wanted.rpartition("/")
    options = list(error.options or [])
    plugin = choice.partition("_")[0]
    if group in ("hydra/sweeper", "hydra/launcher") and plugin in _IN_EXTRA:
        package = f"hydra-{plugin}-{group.removeprefix('hydra/')}"
        return f"{group}={choice} needs the package '{package}': pip install 'slm[sweep]'"
    if not group or not options:
        return _one_line(error)
    return f"{group} has no choice '{choice}'{did_you_mean(choice, options)} (choices: {', '.join(options)})"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
