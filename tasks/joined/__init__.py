"""What `table` is made of: cells, the threats that fill them, and whose checkpoint each figure is of."""
