"""Parts of the stage `evaluate_split`."""
