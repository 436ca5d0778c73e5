"""The numbers of PMDK's in-band messages, for who makes such messages in Python."""
