"""Text to batches. Called, ``slm.data(slm.config(…))``, it gives the data of a configuration: the front door's function
has the name of this room."""

import sys
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    def __call__(self, config: Any) -> Any:
        return sys.modules["slm"].__getattr__("data")(config)


sys.modules[__name__].__class__ = _Room
