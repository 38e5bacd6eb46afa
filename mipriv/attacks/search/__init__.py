"""What attacks share: rows that do not see each other, losses, searches over latents, reference models."""
