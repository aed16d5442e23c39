import dream_jax.quiet  # noqa: F401 before diffusers
