"""Speed only, exact: packed batches, attention on them, and the loop over them."""
