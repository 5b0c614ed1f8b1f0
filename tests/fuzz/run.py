"""Coverage-guided fuzzing with atheris: ``python tests/fuzz/run.py TARGET SECONDS``; no TARGET lists them.

What is found lies in ``tests/fuzz/findings`` afterwards; mended, it belongs into ``tests/fuzz/corpus/TARGET``, which
``test_corpus.py`` runs for ever.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import atheris

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
with atheris.instrument_imports(include=["slm", "json"]):
    from mutate import mutated_json
    from targets import Fuzzed, targets

from slm.errors import UserError  # noqa: E402

MEMORY_MB = 1500  # of the fuzzer itself; a target alone has a few hundred
LONGEST_S = 10


def main() -> None:
    """Fuzz one target for so many seconds."""
    name = sys.argv[1] if len(sys.argv) > 2 else None
    fuzzed = targets().get(name or "")
    if name is None or fuzzed is None:
        print("\n".join(targets()))
        return
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-", dir=memory) as place:
        child = os.fork()  # libFuzzer ends its process without a word to Python, and the folder would stay
        if child == 0:
            fuzz(name, fuzzed, int(sys.argv[2]), Path(place))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    sys.exit(status)


def fuzz(name: str, fuzzed: Fuzzed, seconds: int, place: Path) -> None:
    """Until a finding or the end of the time; never returns."""
    seeds, findings = place / "seeds", HERE / "findings"
    seeds.mkdir()
    findings.mkdir(exist_ok=True)
    for i, seed in enumerate((*fuzzed.seeds, *(f.read_bytes() for f in sorted((HERE / "corpus" / name).glob("*"))))):
        (seeds / str(i)).write_bytes(seed)
    largest = max(map(len, fuzzed.seeds))

    def one(data: bytes) -> None:
        folder = place / "input"
        folder.mkdir()
        try:
            fuzzed.run(data, folder)
        except UserError:
            pass
        except Exception:  # atheris keeps it too, unless the error's own words cannot be printed
            traceback.print_exc()
            (findings / f"{name}-{hashlib.sha256(data).hexdigest()[:16]}").write_bytes(data)
            os._exit(1)
        finally:
            shutil.rmtree(folder)

    def mutate(data: bytes, limit: int, seed: int) -> bytes:
        draw = random.Random(seed)
        if fuzzed.is_json and draw.random() < 0.7 and (changed := mutated_json(data, draw)) is not None:
            return changed[:limit]
        mutated: Any = atheris.Mutate(data, limit)
        return mutated

    arguments = [
        *("fuzz", f"-max_total_time={seconds}", f"-timeout={LONGEST_S}", f"-rss_limit_mb={MEMORY_MB}"),
        *(f"-artifact_prefix={findings}/{name}-", f"-max_len={max(4096, 2 * largest)}", "-print_final_stats=1"),
        *("-verbosity=0", str(seeds)),
    ]
    began = time.monotonic()
    atheris.Setup(arguments, one, custom_mutator=mutate)
    print(json.dumps({"target": name, "seconds": seconds, "began": began}), flush=True)
    atheris.Fuzz()
    os._exit(0)


if __name__ == "__main__":
    main()
