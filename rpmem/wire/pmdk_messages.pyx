"""The constants of PMDK's in-band messages, for making such messages in Python."""
