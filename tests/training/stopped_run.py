"""A run that is stopped on its way: it accumulates, and saves and validates at different steps."""

RUN = (
    "trainer.max_steps=12",
    "trainer.batch_size=2",
    "trainer.global_batch_size=6",
    "trainer.val_every=4",
    "trainer.save_every=5",
    "trainer.keep=0",
    "model.params.dropout=0.1",
)
