"""Settings: one frozen model a stage."""
