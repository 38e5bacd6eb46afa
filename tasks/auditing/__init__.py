"""What an audit of attributes is made of: which images, what is told of them, and what never is leakage."""
