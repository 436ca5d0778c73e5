"""How regions are mapped, for other compiled parts; nothing here is for Python."""
