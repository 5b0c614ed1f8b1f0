"""Settings of a run whose values are paths, and are taken as they are typed."""

PATHS = (
    "run_dir",
    "resume",
    "data.path",
    "data.val_path",
    "data.test_path",
    "task.template_file",
    "model.weights",
    "model.base",
)
