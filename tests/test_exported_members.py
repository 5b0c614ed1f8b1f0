"""The front door: what `import slm` offers is listed, in order, and nothing else is shown."""

from __future__ import annotations

import slm


def test_all_names_are_listed_and_nothing_else() -> None:
    """A name that a type checker sees, or that is loaded on first use, stands in `__all__`."""
    assert slm.__all__ == ["__version__", "build", "config", "data", "load", "register_model"]
    assert slm.__all__ == sorted(slm.__all__)
    assert dir(slm) == slm.__all__
    assert set(slm._HOMES) == set(slm.__all__) - {"__version__"}
    assert all(callable(getattr(slm, name)) for name in slm._HOMES)
