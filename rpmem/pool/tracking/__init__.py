"""What `Pool.persist` sends without a range: the pages that changed."""
