"""What inversion attacks share: rows that do not see each other, identity losses, searches over latents."""
