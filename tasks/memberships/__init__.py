"""What the page and the table of membership have in common: a grid's figures, and laws fitted to them."""
