"""From rows to the tables of the chapters."""
