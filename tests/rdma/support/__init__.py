"""What the tests inside the bench's guest share."""
