"""The numbers of the native in-band messages, for who makes such messages in Python."""
