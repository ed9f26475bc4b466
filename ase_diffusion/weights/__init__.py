"""The shipped checkpoints; MODELS.md describes them, index.json lists them."""
