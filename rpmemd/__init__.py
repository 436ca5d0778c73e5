"""The target daemon: serves one pool to one initiator over the session that started it."""
