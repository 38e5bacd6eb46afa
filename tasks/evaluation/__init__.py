"""What `evaluate` is made of: judges at work, their figures of attacks, and what is left of them."""
