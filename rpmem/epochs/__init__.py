"""What a copy knows of itself and of the others: epochs, their history, and who holds them."""
