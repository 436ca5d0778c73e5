"""The constants of the native in-band messages, for making such messages in Python."""
