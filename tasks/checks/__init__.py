"""What `tasks.check` asks of the parameters, part by part."""
