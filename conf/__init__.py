"""The configuration groups; Hydra reads them as `pkg://slm.conf`."""
