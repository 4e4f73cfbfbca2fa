"""The embedded world and its base model."""
