"""Shared by engine, service and fabrics: lanes as C structs, in-band messages, polling."""
