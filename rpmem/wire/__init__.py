"""What engine, service and fabrics share: lanes as C sees them, in-band messages, polling."""
