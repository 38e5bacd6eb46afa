"""Imported, yet named by no deps."""

X = 1
