"""What `tasks.audit` does with a victim that a user brings, part by part."""
