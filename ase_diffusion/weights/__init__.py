"""The shipped checkpoints; index.json lists them, docs/models/ has a card for each."""
