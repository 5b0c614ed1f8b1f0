"""The quickstart notebook runs from top to bottom."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.nightly

nbclient = pytest.importorskip("nbclient", reason="needs the extra 'notebook'")
nbformat = pytest.importorskip("nbformat", reason="needs the extra 'notebook'")

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "quickstart.ipynb"


def test_quickstart_runs_and_shows_text_and_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell executes; the text cell prints something and both plots are drawn."""
    monkeypatch.setenv("SLM_NOTEBOOK_STEPS", "6")
    monkeypatch.setenv("SLM_CACHE_DIR", str(tmp_path / "cache"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert any(output.output_type == "stream" and output.text.strip() for output in outputs)


def test_quickstart_is_committed_without_outputs() -> None:
    """Outputs in the repository would go stale and bloat every diff."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")
