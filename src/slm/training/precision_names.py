"""The precisions that `trainer.precision` knows. Apart, because checking a name needs no torch."""

SHORT_NAMES = {"16": "16-mixed", "bf16": "bf16-mixed", "32": "32-true", "64": "64-true"}
PRECISIONS = ("auto", *SHORT_NAMES, "16-mixed", "16-true", "bf16-mixed", "bf16-true", "32-true", "64-true")
