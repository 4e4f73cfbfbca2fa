"""Public layouts to items."""
