"""Lanes of our own over sockets: TCP, or pairs of sockets that a child inherits."""
