"""Known holes of everything that `constraints.txt` pins, by PyPI's advisories (`pip-audit`); needs the network.

Ends with 0 if there are none, 1 if there are some, 3 if packages could not be looked up: nothing is known
of them. A mirror that has packages but no advisories answers "not found" to each: that is no clean bill.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

CONSTRAINTS = Path(__file__).parent.parent / "constraints.txt"
NOT_LOOKED_UP = 3


def main() -> int:
    """Entry point."""
    packages = _audited()
    if not packages:
        return NOT_LOOKED_UP
    holes = [(package, hole) for package in packages for hole in package.get("vulns", ())]
    for package, hole in holes:
        mended = ", ".join(hole["fix_versions"]) or "no version yet"
        print(f"{package['name']} {package['version']}: {hole['id']} (mended in {mended})")
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    looked_up = len(packages) - len(unknown)
    _say(f"{looked_up} of {len(packages)} packages looked up, {len(holes)} known holes")
    if unknown:
        named = ", ".join(unknown[:5]) + (" …" if len(unknown) > 5 else "")
        _say(f"nothing is known of {named}: PyPI's advisories cannot be reached from here, or have no such version")
    return 1 if holes else NOT_LOOKED_UP if unknown else 0


def _audited() -> list[dict[str, Any]]:
    options = ["--no-deps", "--disable-pip", "--progress-spinner=off", "--timeout=15", "--format=json"]
    audit = [sys.executable, "-m", "pip_audit", "-r", str(CONSTRAINTS), *options]
    answer = subprocess.run(audit, capture_output=True, text=True)
    try:
        found: list[dict[str, Any]] = json.loads(answer.stdout)["dependencies"]
    except (ValueError, KeyError):
        reason = (answer.stderr.strip().splitlines() or ["it said nothing"])[-1]
        _say(f"nothing was checked, PyPI's advisories cannot be reached ({reason[:300]})")
        return []
    return found


def _say(words: str) -> None:
    print(f"audit: {words}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
