"""Dream-OOD in JAX: imagine outliers with a diffusion model, train a classifier that knows them."""

__version__ = "0.1.0"
