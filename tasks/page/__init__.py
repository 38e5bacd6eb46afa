"""What the report is made of: words, tables, pictures and claims."""
