"""Imported and not named, but there is nothing in it."""
