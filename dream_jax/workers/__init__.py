"""Several processes of one machine that share the stages of a run, each with its own devices."""
